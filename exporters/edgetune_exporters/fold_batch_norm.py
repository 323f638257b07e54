"""Frozen BatchNorm behind a convolution becomes part of the convolution.

W' = W * g / s and b' = (b - mean) * g / s + beta per output channel, s = sqrt(var + eps)
(Jacob et al., "Quantization and Training of Neural Networks", 2018, eq. 14). A BatchNorm that does
not follow a convolution directly stays as it is: its decomposition with frozen statistics is a
plain affine map, whose weight and bias can be trained.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx

from edgetune.nouns.folding import FoldedBatchNorm

# Where each form of BatchNorm takes its epsilon.
_EPSILON_AT: dict[Any, int] = {
    torch.ops.aten.batch_norm.default: 7,
    torch.ops.aten._native_batch_norm_legit_no_training.default: 6,
}
_CONVOLUTIONS = (
    torch.ops.aten.conv1d.default,
    torch.ops.aten.conv2d.default,
    torch.ops.aten.conv3d.default,
    torch.ops.aten.conv1d.padding,
    torch.ops.aten.conv2d.padding,
    torch.ops.aten.conv3d.padding,
    torch.ops.aten.convolution.default,
)


def fold_batch_norm(
    module: fx.GraphModule,
    placeholders: list[str],
    parameters: dict[str, Tensor],
    constants: dict[str, Tensor],
) -> tuple[FoldedBatchNorm, ...]:
    """Fold every foldable BatchNorm of `module` in place; returns what was folded.

    placeholders: tensor name of each placeholder, changed in place together with `parameters`.
    """
    nodes = [node for node in module.graph.nodes if node.op == "placeholder"]
    names = dict(zip(nodes, placeholders, strict=True))
    folded = []
    for node in list(module.graph.nodes):
        if node.target in _EPSILON_AT:
            folding = _fold(node, names, parameters, constants)
            if folding is not None:
                folded.append(folding)
    module.graph.eliminate_dead_code()
    _drop_unused_placeholders(module, placeholders, parameters, constants)
    module.recompile()
    return tuple(folded)


def _fold(
    norm: fx.Node,
    names: dict[fx.Node, str],
    parameters: dict[str, Tensor],
    constants: dict[str, Tensor],
) -> FoldedBatchNorm | None:
    arguments: tuple[Any, ...] = norm.args
    convolution, scale, shift, mean, var = arguments[:5]
    epsilon = float(arguments[_EPSILON_AT[norm.target]])
    if not _is_foldable(convolution):
        return None
    weight, bias = convolution.args[1], _argument(convolution, 2)
    sources = [node for node in (weight, bias, scale, shift) if node is not None]
    if scale is None or any(node not in names or _uses(node, names) != 1 for node in sources):
        return None  # a tensor used elsewhere must keep its value
    values = {**parameters, **constants}
    g, beta, mean_value, var_value = (
        values[names[node]].double() for node in (scale, shift, mean, var)
    )
    if bool((g == 0).any()):
        return None  # could not be unfolded again
    factor = g / torch.sqrt(var_value + epsilon)
    w = values[names[weight]].double()
    b = torch.zeros_like(beta) if bias is None else values[names[bias]].double()
    bias_node = shift if bias is None else bias
    parameters[names[weight]] = (w * factor.view(-1, *[1] * (w.dim() - 1))).float()
    parameters[names[bias_node]] = ((b - mean_value) * factor + beta).float()
    convolution.args = (*convolution.args[:2], bias_node, *convolution.args[3:])
    # The bias's placeholder stands before every operation, so using it here is in order.
    _replace_result(norm, convolution)
    return FoldedBatchNorm(
        weight=names[weight],
        bias=names[bias_node],
        batch_norm=names[scale].rpartition(".")[0],
        has_convolution_bias=bias is not None,
    )


def _uses(placeholder: fx.Node, names: dict[fx.Node, str]) -> int:
    """How often a tensor is read, through any of its placeholders: a tied one may have several."""
    name = names[placeholder]
    return sum(len(node.users) for node, other in names.items() if other == name)


def _argument(node: fx.Node, index: int) -> Any:
    return node.args[index] if index < len(node.args) else None


def _is_foldable(node: Any) -> bool:
    return (
        isinstance(node, fx.Node)
        and node.target in _CONVOLUTIONS
        and len(node.users) == 1
        and not (node.target is torch.ops.aten.convolution.default and node.args[6])
    )


def _replace_result(norm: fx.Node, convolution: fx.Node) -> None:
    results = [user for user in norm.users if user.target is operator.getitem]
    for node in results or [norm]:
        node.replace_all_uses_with(convolution)


def _drop_unused_placeholders(
    module: fx.GraphModule,
    placeholders: list[str],
    parameters: dict[str, Tensor],
    constants: dict[str, Tensor],
) -> None:
    nodes = [node for node in module.graph.nodes if node.op == "placeholder"]
    for index in range(len(nodes) - 1, -1, -1):
        name = placeholders[index]
        if not nodes[index].users and (name in parameters or name in constants):
            module.graph.erase_node(nodes[index])
            placeholders.pop(index)
            if name not in placeholders:
                parameters.pop(name, None)
                constants.pop(name, None)
