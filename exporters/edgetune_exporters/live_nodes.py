"""Which nodes of an ONNX graph its results are made by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from onnx import NodeProto


def live_nodes(nodes: Sequence[NodeProto], results: Iterable[str]) -> list[NodeProto]:
    """Those of `nodes`, which are in topological order, that a tensor of `results` depends on."""
    wanted = set(results)
    live = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            live.append(node)
            wanted |= inputs_of(node)
    return live[::-1]


def inputs_of(node: NodeProto) -> set[str]:
    """The values that a node reads, those that its subgraphs capture included."""
    return {name for name in node.input if name} | captured_by_subgraphs(node)


def captured_by_subgraphs(node: NodeProto) -> set[str]:
    """Names that the bodies of an If, Loop or Scan read; names of their own do no harm here."""
    names: set[str] = set()
    for attribute in node.attribute:
        bodies = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
        for inner in (inner for body in bodies for inner in body.node):
            names |= inputs_of(inner)
    return names
