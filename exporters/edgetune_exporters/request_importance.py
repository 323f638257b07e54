"""The importance that a request asks for."""

from __future__ import annotations

from pathlib import Path

from edgetune.errors import UsageError
from edgetune.nouns.plan_request import PlanRequest
from edgetune.nouns.step_graph import StepGraph
from edgetune_exporters.dense_step import dense_step
from edgetune_exporters.factory import Example
from edgetune_exporters.importance.measure import measure_importance, user_importance
from edgetune_exporters.importance.scores import Importance


def request_importance(example: Example, request: PlanRequest) -> Importance:
    """Measure importance by the request's criterion. Raises UsageError, DataError, ExportError."""
    samples, seed = request.calibration_samples, request.seed
    if request.criterion == "user":
        if request.scores_file is None:
            raise UsageError("user scores need a file: give --scores FILE.json")
        return user_importance(example, Path(request.scores_file), samples, seed)
    macs = None
    if request.criterion == "tinytrain":
        macs = multiply_accumulates(dense_step(example, 1).graph)
    return measure_importance(
        example, request.criterion, samples, seed, optimizer=request.optimizer, macs=macs
    )


def multiply_accumulates(graph: StepGraph) -> dict[str, float]:
    """Multiply-accumulates per sample of the forward operations that read each parameter."""
    found = dict.fromkeys(graph.parameters, 0.0)
    labels = set(graph.labels)
    for operation in graph.operations:
        if not labels.isdisjoint(operation.inputs):
            break  # the forward ends where the loss begins
        for name in operation.inputs:
            if name in found:
                found[name] += operation.flops / 2 / graph.batch
    return found
