"""From a user's model to the dense step: captured, differentiated, lowered, and costed."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from onnx import helper
from torch import Tensor

from edgetune.errors import ExportError, SelectionError, raise_all
from edgetune.nouns.candidate import Candidate
from edgetune.nouns.selection import Selection, select_by_patterns
from edgetune.nouns.signature import ArraySpec, Signature
from edgetune.nouns.step_graph import StepGraph
from edgetune_exporters.capture import CapturedModel, capture
from edgetune_exporters.factory import TARGETS, Example, first_samples
from edgetune_exporters.joint import JointGraph, trace_step
from edgetune_exporters.losses import ResolvedLoss, resolve_loss
from edgetune_exporters.lowering.lower import LoweredStep, lower
from edgetune_exporters.recompute import with_recomputation
from edgetune_exporters.shares import DENOMINATORS, share_axes, shares_of
from edgetune_exporters.slicing.share_gradients import with_share_gradients
from edgetune_exporters.step_graph import step_graph

ChooseIndices = Callable[[str, int, int], Sequence[int]]


@dataclass(frozen=True)
class DenseStep:
    """Everything about a model that does not depend on what is trained.

    targets: the sample targets by name. joint: forward, loss and every gradient as PyTorch computes
    them. lowered: the same in ONNX.
    graph: the same as the planner sees it. recomputes: whether light activations are made again in
    the backward.
    """

    example: Example
    model: CapturedModel
    loss: ResolvedLoss
    targets: Mapping[str, Tensor]
    joint: JointGraph
    lowered: LoweredStep
    graph: StepGraph
    signature: Signature
    recomputes: bool = False

    @property
    def parameter_count(self) -> int:
        return sum(value.numel() for value in self.model.parameters.values())


def dense_step(
    example: Example, micro_batch: int, choose_indices: ChooseIndices | None = None
) -> DenseStep:
    """Build the dense step for micro-batches of `micro_batch` samples.

    choose_indices: which `count` slices of a parameter's axis a share takes, ascending; None for
    whole tensors only. Raises ExportError.
    """
    model, loss, targets = _captured(example, micro_batch)
    joint = trace_step(model, targets, loss, gradients=True)
    lowered = lower(joint, model.parameters, model.constants)
    candidates: tuple[Candidate, ...] = ()
    if choose_indices is not None:
        shares = shares_of(share_axes(model), DENOMINATORS, choose_indices)
        lowered, candidates = with_share_gradients(lowered, shares)
    graph = step_graph(lowered, (TARGETS,), candidates)
    signature = _signature(model, targets, lowered, graph)
    return DenseStep(example, model, loss, targets, joint, lowered, graph, signature)


def recomputing(step: DenseStep) -> DenseStep:
    """The same step with light activations made again in the backward instead of kept."""
    lowered = with_recomputation(step.lowered, step.graph)
    shares = tuple(c for c in step.graph.candidates if c.share is not None)
    graph = step_graph(lowered, (TARGETS,), shares)
    return replace(step, lowered=lowered, graph=graph, recomputes=True)


def lowered_forward(example: Example, batch: int) -> LoweredStep:
    """Forward and loss alone, for `batch` samples. Raises ExportError."""
    model, loss, targets = _captured(example, batch)
    joint = trace_step(model, targets, loss, gradients=False)
    return lower(joint, model.parameters, model.constants)


def _captured(
    example: Example, batch: int
) -> tuple[CapturedModel, ResolvedLoss, dict[str, Tensor]]:
    sample = first_samples(example, batch)
    model = capture(sample.model, sample.inputs)
    if TARGETS in model.inputs:
        raise ExportError(f"the model has an input called {TARGETS!r}: rename it")
    loss = resolve_loss(sample.loss, model.outputs(), sample.targets)
    return model, loss, {TARGETS: sample.targets}


def _signature(
    model: CapturedModel, targets: Mapping[str, Tensor], lowered: LoweredStep, graph: StepGraph
) -> Signature:
    outputs = tuple(
        ArraySpec(
            name,
            str(helper.tensor_dtype_to_np_dtype(lowered.types[name][0])),
            lowered.types[name][1][1:],
        )
        for name in graph.outputs
    )
    return Signature(_specs(model.inputs), _specs(targets), outputs)


def _specs(tensors: Mapping[str, Tensor]) -> tuple[ArraySpec, ...]:
    return tuple(
        ArraySpec(name, str(np.dtype(value.numpy().dtype)), tuple(value.shape[1:]))
        for name, value in tensors.items()
    )


def _refuse_folded(step: DenseStep, patterns: list[str]) -> None:
    """Say where a BatchNorm's parameters went when a pattern names nothing but them."""
    problems = []
    for pattern in patterns:
        if any(fnmatch.fnmatchcase(name, pattern) for name in step.model.parameters):
            continue
        for folded in step.model.folded:
            gone = (f"{folded.batch_norm}.weight", f"{folded.batch_norm}.bias")
            if any(fnmatch.fnmatchcase(name, pattern) for name in gone):
                problems.append(
                    f"the pattern {pattern!r} means the BatchNorm {folded.batch_norm}, which "
                    f"became part of a convolution: train {folded.weight} and {folded.bias} instead"
                )
    raise_all(SelectionError, "cannot select what to train", problems)


def select(step: DenseStep, patterns: Sequence[str]) -> Selection:
    """What matches any pattern: parameters, and shares by patterns with a colon (`*:in/4`).

    Raises SelectionError for a pattern that matches nothing, a parameter that the loss does not
    depend on, and one that is selected twice.
    """
    whole = [pattern for pattern in patterns if ":" not in pattern]
    _refuse_folded(step, whole)
    names: set[str] = set()
    if whole:
        names.update(select_by_patterns(whole, list(step.model.parameters)).trainable)
    known = {candidate.name for candidate in step.graph.candidates}
    without = [name for name in step.model.parameters if name in names - known]
    if without:
        raise SelectionError(
            f"the loss does not depend on {', '.join(without)}: leave them out of --train"
        )
    shares = [c.name for c in step.graph.candidates if c.share is not None]
    of_shares = [pattern for pattern in patterns if ":" in pattern]
    if of_shares:
        names.update(select_by_patterns(of_shares, shares).trainable)
    chosen = [candidate for candidate in step.graph.candidates if candidate.name in names]
    _refuse_twice(chosen)
    return Selection.of(chosen)


def _refuse_twice(chosen: Sequence[Candidate]) -> None:
    by_parameter: dict[str, list[str]] = {}
    for candidate in chosen:
        by_parameter.setdefault(candidate.parameter, []).append(candidate.name)
    problems = [
        f"{', '.join(names)} are parts of one parameter: select one of them"
        for names in by_parameter.values()
        if len(names) > 1
    ]
    raise_all(SelectionError, "cannot select what to train", problems)
