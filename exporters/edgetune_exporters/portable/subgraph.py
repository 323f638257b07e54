"""Cuts one graph of a bundle out of the dense step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx
from onnx import helper

from edgetune_exporters.lowering.emitter import model_of
from edgetune_exporters.lowering.lower import LoweredStep


def subgraph(
    lowered: LoweredStep,
    name: str,
    operations: Iterable[str],
    inputs: Sequence[str],
    outputs: Sequence[str],
    extra_nodes: Sequence[onnx.NodeProto] = (),
    extra_inputs: Sequence[onnx.ValueInfoProto] = (),
    extra_outputs: Sequence[onnx.ValueInfoProto] = (),
) -> onnx.ModelProto:
    """A model of the dense step's `operations` (by node name), in the dense step's order.

    inputs: tensors that become graph inputs, trainable parameters among them; those that no
    operation reads are left out. Every other initializer that is read stays one.
    """
    chosen = set(operations)
    nodes = [_copy(node) for node in lowered.model.graph.node if node.name in chosen]
    _drop_unused_results(nodes, {*outputs, *(t for node in extra_nodes for t in node.input)})
    nodes = _after_their_sources(nodes, extra_nodes)
    read = {tensor for node in nodes for tensor in node.input}
    initializers = [
        tensor
        for tensor in lowered.model.graph.initializer
        if tensor.name in read and tensor.name not in inputs
    ]
    graph = helper.make_graph(
        nodes,
        name,
        [value_info(lowered, tensor) for tensor in inputs if tensor in read] + list(extra_inputs),
        [value_info(lowered, tensor) for tensor in outputs] + list(extra_outputs),
        initializers,
    )
    return model_of(graph)


def _after_their_sources(
    nodes: Sequence[onnx.NodeProto], extra: Sequence[onnx.NodeProto]
) -> list[onnx.NodeProto]:
    """`nodes` with each extra one right behind what makes its last input: gradients are added up
    at once, for the graph is executed in this order.
    """
    makers = {name: index for index, node in enumerate(nodes) for name in node.output}
    behind: dict[int, list[onnx.NodeProto]] = {}
    for node in extra:
        last = max((makers[name] for name in node.input if name in makers), default=len(nodes) - 1)
        behind.setdefault(last, []).append(node)
    ordered = []
    for index, node in enumerate(nodes):
        ordered += [node, *behind.get(index, ())]
    return ordered


def value_info(lowered: LoweredStep, tensor: str, name: str | None = None) -> onnx.ValueInfoProto:
    """Type of a tensor of the dense step, under its own or another name."""
    element_type, shape = lowered.types[tensor]
    return helper.make_tensor_value_info(name or tensor, element_type, list(shape))


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    """The node without the note on where it came from."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.ClearField("doc_string")
    return copy


def _drop_unused_results(nodes: Sequence[onnx.NodeProto], kept: set[str]) -> None:
    """Drop trailing results that nobody reads: MaxPool without indices has a faster kernel."""
    read = {tensor for node in nodes for tensor in node.input} | kept
    for node in nodes:
        while len(node.output) > 1 and node.output[-1] not in read:
            del node.output[-1]
