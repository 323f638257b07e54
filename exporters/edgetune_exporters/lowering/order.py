"""The order of execution."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import onnx


def late_weights(nodes: Sequence[onnx.NodeProto], data: Collection[str]) -> list[onnx.NodeProto]:
    """`nodes` with everything that is computed of weights alone right before its first reader.

    data: names of the inputs that change from step to step. A turned copy of a trained weight then
    lives for one operation instead of from the forward to the backward. The order stays
    topological.
    """
    on_data = set(data)
    makers: dict[str, onnx.NodeProto] = {}
    ordered: list[onnx.NodeProto] = []
    placed: set[str] = set()

    def place(node: onnx.NodeProto) -> None:
        pending = [node]
        while pending:
            first = [makers[name] for name in pending[-1].input if name in makers]
            first = [maker for maker in first if maker.name not in placed]
            if first:
                pending += first
                continue
            done = pending.pop()
            if done.name not in placed:
                placed.add(done.name)
                ordered.append(done)

    for node in nodes:
        if on_data.isdisjoint(node.input):
            makers.update(dict.fromkeys(node.output, node))
        else:
            on_data.update(node.output)
            place(node)
    for node in nodes:  # what nothing on data reads
        if node.name not in placed:
            place(node)
    return ordered
