"""predict.onnx: inference with the trainable values as inputs."""

from __future__ import annotations

import onnx

from edgetune.errors import ExportError
from edgetune.nouns.selection import Selection
from edgetune.planning.split import needed_operations
from edgetune_exporters.dense_step import DenseStep, lowered_forward
from edgetune_exporters.lowering.lower import LoweredStep
from edgetune_exporters.portable.any_batch import BATCHES, for_any_batch
from edgetune_exporters.portable.subgraph import subgraph
from edgetune_exporters.step_graph import step_graph


def predict_graph(step: DenseStep, selection: Selection) -> onnx.ModelProto:
    """The inference graph, for any batch size where that can be, else for the step's own."""
    return _for_any_batch(step, selection) or _inference(step, step.lowered, selection)


def _for_any_batch(step: DenseStep, selection: Selection) -> onnx.ModelProto | None:
    try:
        lowered, other = (lowered_forward(step.example, batch) for batch in BATCHES)
    except ExportError:
        return None  # the model itself knows one batch size only
    return for_any_batch(
        _inference(step, lowered, selection),
        _inference(step, other, selection),
        (*step.graph.inputs, *step.graph.outputs),
    )


def _inference(step: DenseStep, lowered: LoweredStep, selection: Selection) -> onnx.ModelProto:
    graph = step_graph(lowered, tuple(step.targets))
    operations = [operation.name for operation in needed_operations(graph, graph.outputs)]
    inputs = (*graph.inputs, *selection.trainable)
    return subgraph(lowered, "predict", operations, inputs, graph.outputs)
