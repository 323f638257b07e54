"""Kept activations computed again in the backward, where that costs little and frees memory.

A light forward operation whose inputs are kept for the backward anyway is repeated right before the
backward reads its result, which then need not be kept (Chen et al., "Training Deep Nets with
Sublinear Memory Cost", 2016, restricted to operations without products and reductions). The runtime
must not merge the two again: common-subexpression elimination is off for gradient graphs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import onnx

from edgetune.nouns.step_graph import StepGraph
from edgetune.planning.split import is_light
from edgetune_exporters.lowering.lower import LoweredStep

AGAIN = "again:"


def with_recomputation(lowered: LoweredStep, graph: StepGraph) -> LoweredStep:
    """`lowered` with repeated operations; graph: the same as the planner sees it.

    A repeated node and its results have the names of the originals behind `again:`.
    """
    backward = _backward(graph)
    gathered = {node.name for node in lowered.model.graph.node if node.op_type == "Gather"}
    repeated = _worth_repeating(graph, backward, gathered)
    nodes = _with_repetitions(lowered.model.graph.node, repeated, backward)
    model = onnx.ModelProto()
    model.CopyFrom(lowered.model)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    types = {AGAIN + name: lowered.types[name] for name in repeated}
    return replace(lowered, model=model, types={**lowered.types, **types})


def _backward(graph: StepGraph) -> set[str]:
    """Names of the operations from the loss on; masks that autograd makes late are among them."""
    labels = set(graph.labels)
    reads_labels = [not labels.isdisjoint(operation.inputs) for operation in graph.operations]
    return {operation.name for operation in graph.operations[reads_labels.index(True) :]}


def _worth_repeating(graph: StepGraph, backward: set[str], gathered: set[str]) -> set[str]:
    """Results of forward operations that can be had again from what the backward keeps anyway.

    Not what is gathered: a share of an activation is kept so that the whole need not be.
    """
    made = {name for operation in graph.operations for name in operation.outputs}
    kept = {n for o in graph.operations if o.name in backward for n in o.inputs}
    repeated: set[str] = set()
    on_data = set(graph.inputs)
    for operation in graph.operations:
        if operation.name in backward or on_data.isdisjoint(operation.inputs):
            continue
        on_data.update(operation.outputs)
        available = all(n in kept or n in repeated or n not in made for n in operation.inputs)
        is_view = operation.operator_class == "view"
        cheap = is_view or (is_light(graph, operation) and operation.name not in gathered)
        if available and cheap and len(operation.outputs) == 1:
            repeated.add(operation.outputs[0])
    return repeated


def _with_repetitions(
    nodes: Iterable[onnx.NodeProto], repeated: set[str], backward: set[str]
) -> list[onnx.NodeProto]:
    """Each repetition stands right before the first backward operation that reads it."""
    makers = {node.output[0]: node for node in nodes if node.output[0] in repeated}
    placed: set[str] = set()
    ordered: list[onnx.NodeProto] = []

    def repeat(name: str) -> None:
        if name not in placed:
            placed.add(name)
            for source in makers[name].input:
                if source in repeated:
                    repeat(source)
            copy = _reading_repetitions(makers[name], repeated)
            copy.name, copy.output[0] = AGAIN + copy.name, AGAIN + name
            ordered.append(copy)

    for node in nodes:
        if node.name in backward:
            for name in node.input:
                if name in repeated:
                    repeat(name)
            node = _reading_repetitions(node, repeated)  # noqa: PLW2901  (the same node, rewired)
        ordered.append(node)
    return ordered


def _reading_repetitions(node: onnx.NodeProto, repeated: set[str]) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [AGAIN + name if name in repeated else name for name in node.input]
    return copy
