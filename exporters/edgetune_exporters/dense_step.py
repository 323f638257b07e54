"""From a user's model to the dense step: captured, differentiated, lowered, and costed."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from onnx import helper
from torch import Tensor

from edgetune.errors import ExportError, SelectionError, raise_all
from edgetune.nouns.selection import Selection, select_by_patterns
from edgetune.nouns.signature import ArraySpec, Signature
from edgetune.nouns.step_graph import StepGraph
from edgetune_exporters.capture import CapturedModel, capture
from edgetune_exporters.factory import TARGETS, Example, first_samples
from edgetune_exporters.joint import trace_step
from edgetune_exporters.losses import ResolvedLoss, resolve_loss
from edgetune_exporters.lowering.lower import LoweredStep, lower
from edgetune_exporters.step_graph import step_graph


@dataclass(frozen=True)
class DenseStep:
    """Everything about a model that does not depend on what is trained.

    targets: the sample targets by name. lowered: forward, loss and every gradient in ONNX.
    graph: the same as the planner sees it.
    """

    example: Example
    model: CapturedModel
    loss: ResolvedLoss
    targets: Mapping[str, Tensor]
    lowered: LoweredStep
    graph: StepGraph
    signature: Signature

    @property
    def parameter_count(self) -> int:
        return sum(value.numel() for value in self.model.parameters.values())


def dense_step(example: Example, micro_batch: int) -> DenseStep:
    """Build the dense step for micro-batches of `micro_batch` samples. Raises ExportError."""
    model, loss, targets = _captured(example, micro_batch)
    joint = trace_step(model, targets, loss, gradients=True)
    lowered = lower(joint, model.parameters, model.constants)
    graph = step_graph(lowered, (TARGETS,))
    signature = _signature(model, targets, lowered, graph)
    return DenseStep(example, model, loss, targets, lowered, graph, signature)


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


def select(step: DenseStep, patterns: list[str]) -> Selection:
    """The parameters matching any pattern that the loss depends on. Raises SelectionError."""
    _refuse_folded(step, patterns)
    selection = select_by_patterns(patterns, list(step.model.parameters))
    known = {candidate.name for candidate in step.graph.candidates}
    without = [name for name in selection.trainable if name not in known]
    if without:
        raise SelectionError(
            f"the loss does not depend on {', '.join(without)}: leave them out of --train"
        )
    return selection
