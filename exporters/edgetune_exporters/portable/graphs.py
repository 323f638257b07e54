"""The graphs of a portable bundle for one selection."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import helper

from edgetune.nouns.bundle_names import (
    ACCUMULATED,
    EVALUATE,
    FEATURES,
    GRADIENTS,
    NEXT,
    PREDICT,
    UPDATE,
)
from edgetune.nouns.optimizer import Optimizer
from edgetune.nouns.selection import Selection
from edgetune.planning.split import needed_operations, split_step
from edgetune_exporters.dense_step import DenseStep
from edgetune_exporters.portable.predict_graph import predict_graph
from edgetune_exporters.portable.subgraph import subgraph, value_info
from edgetune_exporters.portable.update_graph import update_graph


def portable_graphs(
    step: DenseStep, selection: Selection, optimizer: Optimizer
) -> Mapping[str, onnx.ModelProto]:
    """Models by file name; features.onnx is missing when nothing below the selection is frozen.

    What is emitted follows `split_step`, the same split that the planner simulated.
    """
    lowered, graph = step.lowered, step.graph
    split = split_step(graph, selection)
    trainable = selection.trainable
    constants = [operation.name for operation in split.constants]
    models = {}
    if split.features:
        prefix = [*constants, *(operation.name for operation in split.prefix)]
        models[FEATURES] = subgraph(lowered, "features", prefix, graph.inputs, split.features)
    tail_inputs = (*split.features, *graph.inputs, *graph.labels, *trainable)
    scores = tuple(name for name in (graph.loss, graph.correct) if name)
    tail = [*constants, *(operation.name for operation in split.tail)]
    chosen = graph.selected(selection)
    sums = {ACCUMULATED + candidate.parameter: candidate.gradient for candidate in chosen}
    models[GRADIENTS] = subgraph(
        lowered,
        "gradients",
        tail,
        tail_inputs,
        scores,
        extra_nodes=[_add_up(gradient, total) for total, gradient in sums.items()],
        extra_inputs=[value_info(lowered, gradient, total) for total, gradient in sums.items()],
        extra_outputs=[
            value_info(lowered, gradient, NEXT + total) for total, gradient in sums.items()
        ],
    )
    forward = {operation.name for operation in needed_operations(graph, scores)}
    models[EVALUATE] = subgraph(
        lowered, "evaluate", forward.intersection(tail), tail_inputs, scores
    )
    models[PREDICT] = predict_graph(step, selection)
    tensors = [(name, lowered.types[name][1]) for name in trainable]
    models[UPDATE] = update_graph(optimizer, tensors, selection.shares)
    return models


def _add_up(gradient: str, total: str) -> onnx.NodeProto:
    return helper.make_node("Add", [total, gradient], [NEXT + total], name=NEXT + total)
