"""Losses as one unnormalised term per sample, so that the host can weight and normalise exactly.

Every loss here is `per_sample(outputs, targets) -> (batch,)`: the sum over a sample's positions,
class weights included, nothing divided (see edgetune.nouns.loss for who divides by what). They are
written in primitives: `nll_loss` exports with a wrong total weight, and `F.one_hot` reads a value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (the name every PyTorch reader expects)

from edgetune.errors import ExportError
from edgetune.nouns.loss import LossSpec

PerSample = Callable[[Any, Tensor], Tensor]
Loss = Callable[[Any, Any], Tensor]


@dataclass(frozen=True)
class ResolvedLoss:
    """A loss ready for capture.

    per_sample: (outputs, targets) -> (batch,) unnormalised losses.
    correct: (outputs, targets) -> (batch,) int64 right predictions, None where that has no meaning.
    """

    spec: LossSpec
    per_sample: PerSample
    correct: PerSample | None


def prediction(outputs: Any) -> Tensor:
    """The tensor that a loss reads: the only output, `.logits` of a mapping, or the first."""
    if isinstance(outputs, Tensor):
        return outputs
    if isinstance(outputs, Mapping) and "logits" in outputs:
        return prediction(outputs["logits"])
    if isinstance(outputs, (tuple, list)) and outputs:
        return prediction(outputs[0])
    if isinstance(outputs, Mapping) and outputs:
        return prediction(next(iter(outputs.values())))
    raise ExportError(
        f"the model returns a {type(outputs).__name__}: expected a tensor, a tuple that starts "
        "with one, or a mapping with 'logits'; pass your own loss callable for anything else"
    )


def resolve_loss(loss: Loss, outputs: Any, targets: Any) -> ResolvedLoss:
    """The per-sample form of `loss`, a torch.nn loss module or the user's callable.

    outputs, targets: what the model gives for the sample batch, and its targets; their shapes
    decide how the loss normalises, and a user's callable is checked on them. Raises ExportError.
    """
    if isinstance(loss, nn.modules.loss._Loss):
        _require_mean(loss)
    builders: dict[type, Callable[[Any, Tensor, Tensor], ResolvedLoss]] = {
        nn.CrossEntropyLoss: _cross_entropy,
        nn.BCEWithLogitsLoss: _binary_cross_entropy,
        nn.MSELoss: _mean_squared_error,
        nn.L1Loss: _mean_absolute_error,
        nn.HuberLoss: _huber,
        nn.SmoothL1Loss: _smooth_l1,
    }
    builder = builders.get(type(loss))
    if builder is None:
        return _custom(loss, outputs, targets)
    if not isinstance(targets, Tensor):
        raise ExportError(f"{type(loss).__name__} takes one tensor of targets")
    return builder(loss, prediction(outputs), targets)


def _require_mean(loss: nn.modules.loss._Loss) -> None:
    if loss.reduction != "mean":
        raise ExportError(
            f"{type(loss).__name__} has reduction={loss.reduction!r}: edgetune trains on the mean; "
            'use reduction="mean", or pass a callable that returns one loss per sample'
        )


def _sum_positions(terms: Tensor) -> Tensor:
    """(batch, ...) -> (batch,)."""
    return terms if terms.dim() == 1 else terms.flatten(1).sum(1)


def _check_same_shape(name: str, output: Tensor, targets: Tensor) -> None:
    if output.shape != targets.shape:
        raise ExportError(
            f"{name} takes targets of the prediction's shape {tuple(output.shape)}, "
            f"found {tuple(targets.shape)}"
        )


def _cross_entropy(loss: nn.CrossEntropyLoss, output: Tensor, targets: Tensor) -> ResolvedLoss:
    classes = output.shape[1] if output.dim() > 1 else 0
    if targets.is_floating_point():
        return _soft_cross_entropy(loss, output, targets)
    if output.dim() < 2 or targets.shape != output.shape[:1] + output.shape[2:]:
        raise ExportError(
            f"CrossEntropyLoss takes predictions (batch, classes, ...) and integer targets "
            f"(batch, ...): found {tuple(output.shape)} and {tuple(targets.shape)}"
        )
    weights = None if loss.weight is None else loss.weight.detach().float()
    ignore, smoothing = int(loss.ignore_index), float(loss.label_smoothing)

    def per_sample(outputs: Any, targets: Tensor) -> Tensor:
        log_probability = torch.log_softmax(prediction(outputs), 1)
        hit = _is_class(targets, log_probability)
        if weights is not None:
            log_probability = log_probability * weights.view(-1, *[1] * (targets.dim() - 1))
        terms = -torch.where(hit, log_probability, 0.0).sum(1)
        if smoothing:
            terms = (1 - smoothing) * terms - smoothing / classes * log_probability.sum(1)
        return _sum_positions(torch.where(targets != ignore, terms, 0.0))

    def correct(outputs: Any, targets: Tensor) -> Tensor:
        hits = (prediction(outputs).argmax(1) == targets) & (targets != ignore)
        return _sum_positions(hits.long())

    spec = LossSpec(
        kind="cross_entropy",
        classes=classes,
        class_weights=None if weights is None else tuple(weights.tolist()),
        ignore_index=ignore,
    )
    return ResolvedLoss(spec, per_sample, correct)


def _is_class(targets: Tensor, like: Tensor) -> Tensor:
    """(batch, classes, ...) bool: whether a position's target is that class."""
    indices = torch.arange(like.shape[1], device=like.device)
    return targets.unsqueeze(1) == indices.view(1, -1, *[1] * (targets.dim() - 1))


def _soft_cross_entropy(loss: nn.CrossEntropyLoss, output: Tensor, targets: Tensor) -> ResolvedLoss:
    """Targets are class probabilities; PyTorch then divides by the number of positions."""
    _check_same_shape("CrossEntropyLoss with class probabilities", output, targets)
    classes = output.shape[1]
    weights = None if loss.weight is None else loss.weight.detach().float()
    smoothing = float(loss.label_smoothing)

    def per_sample(outputs: Any, targets: Tensor) -> Tensor:
        log_probability = torch.log_softmax(prediction(outputs), 1)
        if weights is not None:
            log_probability = log_probability * weights.view(-1, *[1] * (output.dim() - 2))
        smooth = targets * (1 - smoothing) + smoothing / classes if smoothing else targets
        return _sum_positions(-(smooth * log_probability).sum(1))

    positions = output[0, 0].numel()
    return ResolvedLoss(LossSpec("soft_cross_entropy", elements=positions), per_sample, None)


def _binary_cross_entropy(
    loss: nn.BCEWithLogitsLoss, output: Tensor, targets: Tensor
) -> ResolvedLoss:
    _check_same_shape("BCEWithLogitsLoss", output, targets)
    weight, pos_weight = loss.weight, loss.pos_weight

    def per_sample(outputs: Any, targets: Tensor) -> Tensor:
        terms = F.binary_cross_entropy_with_logits(
            prediction(outputs), targets, weight, reduction="none", pos_weight=pos_weight
        )
        return _sum_positions(terms)

    def correct(outputs: Any, targets: Tensor) -> Tensor:
        return _sum_positions(((prediction(outputs) > 0) == (targets > 0.5)).long())

    spec = LossSpec("binary_cross_entropy", elements=output[0].numel())
    return ResolvedLoss(spec, per_sample, correct)


def _element_wise(
    kind: str, output: Tensor, targets: Tensor, terms: Callable[[Tensor, Tensor], Tensor]
) -> ResolvedLoss:
    _check_same_shape(kind, output, targets)

    def per_sample(outputs: Any, targets: Tensor) -> Tensor:
        return _sum_positions(terms(prediction(outputs), targets))

    return ResolvedLoss(LossSpec(kind, elements=output[0].numel()), per_sample, None)


def _mean_squared_error(loss: nn.MSELoss, output: Tensor, targets: Tensor) -> ResolvedLoss:
    def terms(prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction - target) ** 2

    return _element_wise("mean_squared_error", output, targets, terms)


def _mean_absolute_error(loss: nn.L1Loss, output: Tensor, targets: Tensor) -> ResolvedLoss:
    def terms(prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction - target).abs()

    return _element_wise("mean_absolute_error", output, targets, terms)


def _huber(loss: nn.HuberLoss, output: Tensor, targets: Tensor) -> ResolvedLoss:
    delta = float(loss.delta)

    def terms(prediction: Tensor, target: Tensor) -> Tensor:
        distance = (prediction - target).abs()
        near, far = 0.5 * distance * distance, delta * (distance - 0.5 * delta)
        return torch.where(distance < delta, near, far)

    return _element_wise("huber", output, targets, terms)


def _smooth_l1(loss: nn.SmoothL1Loss, output: Tensor, targets: Tensor) -> ResolvedLoss:
    beta = float(loss.beta)

    def terms(prediction: Tensor, target: Tensor) -> Tensor:
        distance = (prediction - target).abs()
        if beta == 0:
            return distance
        near = 0.5 / beta * distance * distance
        return torch.where(distance < beta, near, distance - 0.5 * beta)

    return _element_wise("huber", output, targets, terms)


def _custom(loss: Loss, outputs: Any, targets: Any) -> ResolvedLoss:
    """A user's callable: one loss per sample, or a mean over samples that proves to be one."""
    name = getattr(loss, "__name__", type(loss).__name__)
    with torch.no_grad():
        result = loss(outputs, targets)
    batch = len(prediction(outputs))
    if not isinstance(result, Tensor) or result.shape not in ((), (batch,)):
        found = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise ExportError(
            f"the loss {name} returned {found}: expected one loss per sample, shape ({batch},), "
            "or a scalar that is their mean"
        )
    if result.shape == (batch,):
        return ResolvedLoss(LossSpec("custom"), loss, None)
    per_sample = _per_sample_of_mean(loss)
    try:
        with torch.no_grad():
            mean = per_sample(outputs, targets).mean()
    except Exception as error:
        raise ExportError(
            f"the loss {name} returns a scalar and cannot be taken sample by sample ({error}); "
            f"return one loss per sample, shape ({batch},), instead"
        ) from error
    if not torch.allclose(mean, result, rtol=1e-4, atol=1e-5):
        raise ExportError(
            f"the loss {name} returns a scalar that is not the mean over samples "
            f"({float(result):.6g} for the batch, {float(mean):.6g} as a mean of single samples), "
            "so partial batches and micro-batches could not be exact; return one loss per sample, "
            f"shape ({batch},)"
        )
    return ResolvedLoss(LossSpec("custom"), per_sample, None)


def _per_sample_of_mean(loss: Loss) -> PerSample:
    """Apply a batch-mean loss to every sample alone, as a batch of one."""

    def per_sample(outputs: Any, targets: Any) -> Tensor:
        def of_one(output: Any, target: Any) -> Tensor:
            lift = torch.utils._pytree.tree_map
            return loss(lift(lambda t: t.unsqueeze(0), output), target.unsqueeze(0))

        return torch.vmap(of_one)(outputs, targets)

    return per_sample
