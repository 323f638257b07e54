"""Tuned values back into the PyTorch module they came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from edgetune.errors import BundleError, nearest, raise_all
from edgetune.files.delta import Delta, digest
from edgetune.nouns.candidate import Share
from edgetune.nouns.folding import FoldedBatchNorm
from edgetune.nouns.loss import Array
from edgetune.nouns.slices import NO_SHARES, Shares, share_problems, take_slices

_HEADLINE = "cannot load the values into the module"
_BatchNorm = nn.modules.batchnorm._BatchNorm


def load_into(
    model: nn.Module,
    values: Mapping[str, Array],
    folded: Iterable[FoldedBatchNorm] = (),
    shares: Shares = NO_SHARES,
) -> None:
    """Write `values`, by parameter name, into the parameters of `model`.

    shares: the bundle's `plan.selection.shares`: of these parameters the values are slices, and
    only those are written.
    Values of a convolution that a BatchNorm was folded into are unfolded, in float64, with the
    statistics and affine that the module's BatchNorm has now. Every value is rounded to its
    parameter's own floating-point type. Raises BundleError listing every unknown name, other shape
    and BatchNorm that does not fit; the module is then unchanged.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    foldings = [f for f in folded if f.weight in values or f.bias in values]
    problems = _problems(parameters, values, shares)
    if not problems:  # what follows needs the shapes to be right
        problems = [problem for f in foldings for problem in _folding_problems(model, f)]
    raise_all(BundleError, _HEADLINE, problems)
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in values.items()}
    for folding in foldings:
        tensors |= _unfold(model, folding, tensors, shares)
    with torch.no_grad():
        for name, tensor in tensors.items():
            parameter, share = parameters[name], shares.get(name)
            if share is None:
                parameter.copy_(tensor)
            else:
                indices = torch.tensor(share.indices, device=parameter.device)
                parameter.index_copy_(share.axis, indices, tensor.to(parameter))


def load_delta_into(model: nn.Module, delta: Delta, folded: Iterable[FoldedBatchNorm] = ()) -> None:
    """Write a delta into the parameters of `model`, which must hold what the delta was made from.

    Raises BundleError like `load_into`, and where a parameter holds other values than those that
    were tuned. Tensors that a BatchNorm was folded into are not compared: their base is a rounded
    product, of which the module holds the factors.
    """
    foldings = tuple(folded)
    products = {name for folding in foldings for name in (folding.weight, folding.bias)}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    problems = []
    for name, value in delta.tensors.items():
        found = _problems(parameters, {name: value}, delta.shares)
        if not found and name not in products:
            whole = parameters[name].detach().cpu().float().numpy()
            if digest(take_slices(whole, delta.shares.get(name))) != delta.base_digests[name]:
                found = [f"{name}: the module holds other values than those that were tuned"]
        problems += found
    raise_all(BundleError, _HEADLINE, problems)
    load_into(model, delta.tensors, foldings, delta.shares)


def _problems(
    parameters: Mapping[str, Tensor], values: Mapping[str, Array], shares: Shares
) -> list[str]:
    problems = []
    for name, value in values.items():
        if name not in parameters:
            problems.append(f"{name}: no such parameter{nearest(name, parameters)}")
            continue
        shape, share = tuple(parameters[name].shape), shares.get(name)
        missing = share_problems(name, share, shape) if share else []
        expected = share.shape(shape) if share and not missing else shape
        if missing:
            problems += missing
        elif value.shape != expected:
            found = list(value.shape)
            problems.append(f"{name}: found shape {found}, expected {list(expected)}")
        elif not np.issubdtype(value.dtype, np.floating):
            problems.append(f"{name}: found {value.dtype.name}, expected floating-point numbers")
    return problems


def _folding_problems(model: nn.Module, folding: FoldedBatchNorm) -> list[str]:
    modules = dict(model.named_modules())
    name, norm = folding.batch_norm, modules.get(folding.batch_norm)
    if norm is None:
        return [f"{name}: no such BatchNorm{nearest(name, modules)}"]
    if not isinstance(norm, _BatchNorm) or any(
        tensor is None for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    ):
        return [
            f"{name}: a {type(norm).__name__}, expected a BatchNorm with statistics, weight and "
            "bias"
        ]
    parameters = dict(model.named_parameters(remove_duplicate=False))
    problems = [
        f"{name}: {norm.num_features} channels, {key} has {parameters[key].shape[0]}"
        for key in (folding.weight, folding.bias)
        if key in parameters and parameters[key].shape[0] != norm.num_features
    ]
    zeros = (norm.weight == 0).nonzero().flatten().tolist()
    if zeros:
        problems.append(f"{name}: weight 0 in channels {zeros}: the folding cannot be undone")
    return problems


@dataclass(frozen=True)
class _Affine:
    """A BatchNorm with frozen statistics as y = x * gain + (beta - mean * gain), in float64."""

    gain: Tensor
    mean: Tensor
    beta: Tensor


def _affine(model: nn.Module, name: str, share: Share | None) -> _Affine:
    """The BatchNorm's, for the channels of which a convolution's tensor has its first axis."""
    norm = model.get_submodule(name)
    assert isinstance(norm, _BatchNorm)
    assert norm.running_mean is not None and norm.running_var is not None
    weight, beta, mean, variance = (
        tensor.detach().cpu().double()
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    )
    gain = weight / torch.sqrt(variance + norm.eps)
    if share is None or share.axis != 0:
        return _Affine(gain, mean, beta)
    chosen = list(share.indices)
    return _Affine(gain[chosen], mean[chosen], beta[chosen])


def _unfold(
    model: nn.Module, folding: FoldedBatchNorm, tensors: Mapping[str, Tensor], shares: Shares
) -> dict[str, Tensor]:
    """Those of the folding's two tensors that are in `tensors`, unfolded, in float64."""
    result = {}
    if folding.weight in tensors:
        affine = _affine(model, folding.batch_norm, shares.get(folding.weight))
        weight = tensors[folding.weight].double()
        result[folding.weight] = weight / affine.gain.view(-1, *[1] * (weight.dim() - 1))
    if folding.bias in tensors:
        affine = _affine(model, folding.batch_norm, shares.get(folding.bias))
        bias = tensors[folding.bias].double()
        if folding.has_convolution_bias:
            result[folding.bias] = (bias - affine.beta) / affine.gain + affine.mean
        else:
            result[folding.bias] = bias + affine.mean * affine.gain
    return result
