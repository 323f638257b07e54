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
    models[GRADIENTS] = subgraph(
        lowered,
        "gradients",
        tail,
        tail_inputs,
        scores,
        extra_nodes=[_add_up(c.gradient, c.parameter) for c in graph.selected(selection)],
        extra_inputs=[value_info(lowered, name, ACCUMULATED + name) for name in trainable],
        extra_outputs=[value_info(lowered, name, NEXT + ACCUMULATED + name) for name in trainable],
    )
    forward = {operation.name for operation in needed_operations(graph, scores)}
    models[EVALUATE] = subgraph(
        lowered, "evaluate", forward.intersection(tail), tail_inputs, scores
    )
    models[PREDICT] = predict_graph(step, selection)
    models[UPDATE] = update_graph(optimizer, [(n, lowered.types[n][1]) for n in trainable])
    return models


def _add_up(gradient: str, name: str) -> onnx.NodeProto:
    total = NEXT + ACCUMULATED + name
    return helper.make_node("Add", [ACCUMULATED + name, gradient], [total], name=total)
