"""What a step costs when its frozen prefix computes in 8 bits.

A forward operation is in the prefix until a candidate that it depends on is selected. So its cost
in 8 bits is always paid, and what fp32 costs more is paid when any of those candidates is selected:
costs stay coverage functions of the selection, and their laws hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgetune.nouns.step_graph import Operation, StepGraph
from edgetune.planning.needs import Needs

_FEWER_BYTES = 4  # of fp32 in those of int8
# QuantizeLinear and DequantizeLinear of data, weight and bias, until the runtime fuses them.
NODES_AROUND = 4


@dataclass(frozen=True)
class Int8Prefix:
    """Which operations compute in 8 bits while they are frozen.

    leaving: by index of such an operation, the candidates any of which makes it fp32, because then
        it depends on what is trained. weights: by tensor, the indices of those that read it in 8
        bits. results: the tensors that are handed on in 8 bits.
    """

    leaving: Mapping[int, int]
    weights: Mapping[str, tuple[int, ...]]
    results: frozenset[str]

    def bytes_of(self, name: str, graph: StepGraph) -> int:
        """Size of a tensor as the prefix holds it."""
        size = graph.tensor_bytes[name]
        small = name in self.results or name in self.weights
        return size // _FEWER_BYTES if small else size

    def workspace_bytes(self, index: int, graph: StepGraph) -> int:
        """What the kernel of an operation of the forward takes besides its fp32 workspace.

        In 8 bits: its data, rounded, and one image of 32-bit sums. In fp32: its inputs, expanded.
        """
        operation = graph.operations[index]
        data = [n for n in operation.inputs if n not in self.weights]
        if index in self.leaving:
            rounded = sum(
                graph.tensor_bytes[n] // _FEWER_BYTES for n in data if n not in self.results
            )
            return rounded + sum(graph.tensor_bytes[n] for n in operation.outputs) // graph.batch
        return sum(graph.tensor_bytes[n] for n in data if n in self.results)


NOTHING_IN_INT8 = Int8Prefix({}, {}, frozenset())


def int8_prefix(graph: StepGraph, needs: Needs) -> Int8Prefix:
    """The prefix of `graph` in 8 bits: every forward operation that can be, until it is trained."""
    leaving: dict[int, int] = {}
    weights: dict[str, tuple[int, ...]] = {}
    results: set[str] = set()
    for index, operation in enumerate(graph.operations):
        capable = operation.int8_weight or operation.int8_result
        if not capable or not needs.is_forward(index):
            continue
        leaving[index] = needs.trained_by(index)
        if operation.int8_weight:
            for name in _weights_of(operation, graph):
                weights[name] = (*weights.get(name, ()), index)
        if operation.int8_result:
            results.update(operation.outputs)
    return Int8Prefix(leaving, weights, frozenset(results))


def _weights_of(operation: Operation, graph: StepGraph) -> list[str]:
    return [name for name in operation.inputs if name in graph.parameters]
