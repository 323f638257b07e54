"""For every operation of the dense step, the candidates that need it.

Sets of candidates are bitmasks: bit i stands for `graph.candidates[i]`, and one more bit, `always`,
for the loss, which every step computes. An operation runs in the step of a selection exactly when
its mask meets the selection's (which has `always` set).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgetune.nouns.step_graph import Operation, StepGraph


@dataclass(frozen=True)
class Needs:
    """Who needs what, and what depends on whom.

    needed_by: for each operation, the candidates whose step contains it.
    depends_on: for each operation, the candidates whose parameter its results depend on; `labels`
        is a bit of its own.
    on_data: for each operation, whether its results depend on inputs or labels; the others depend
        on weights alone.
    of_parameter: the candidates of each parameter.
    """

    always: int
    labels: int
    needed_by: tuple[int, ...]
    depends_on: tuple[int, ...]
    on_data: tuple[bool, ...]
    of_parameter: dict[str, int]

    def trained_by(self, index: int) -> int:
        """The candidates that operation `index` depends on, labels aside."""
        return self.depends_on[index] & ~self.labels

    def is_forward(self, index: int) -> bool:
        """Whether an operation computes on data, but not on labels, for the sake of the loss."""
        return bool(
            self.on_data[index]
            and not self.depends_on[index] & self.labels
            and self.needed_by[index] & self.always
        )


def needs_of(graph: StepGraph) -> Needs:
    """Reachability in the dense step, forwards and backwards."""
    count = len(graph.candidates)
    always, labels = 1 << count, 1 << (count + 1)
    of_parameter: dict[str, int] = {}
    for bit, candidate in enumerate(graph.candidates):
        of_parameter[candidate.parameter] = of_parameter.get(candidate.parameter, 0) | 1 << bit
    wanted = {candidate.gradient: 1 << bit for bit, candidate in enumerate(graph.candidates)}
    wanted.update({name: always for name in (graph.loss, graph.correct) if name})
    sources = {**of_parameter, **dict.fromkeys(graph.labels, labels)}
    data = {*graph.inputs, *graph.labels}
    depends_on = []
    on_data = []
    for operation in graph.operations:
        found = _union(sources, operation.inputs)
        depends_on.append(found)
        sources.update(dict.fromkeys(operation.outputs, found))
        on_data.append(not data.isdisjoint(operation.inputs))
        if on_data[-1]:
            data.update(operation.outputs)
    return Needs(
        always,
        labels,
        _needed_by(graph.operations, wanted),
        tuple(depends_on),
        tuple(on_data),
        of_parameter,
    )


def _needed_by(operations: Sequence[Operation], wanted: dict[str, int]) -> tuple[int, ...]:
    found = []
    for operation in reversed(operations):
        users = _union(wanted, operation.outputs)
        found.append(users)
        for name in operation.inputs:
            wanted[name] = wanted.get(name, 0) | users
    return tuple(reversed(found))


def _union(masks: dict[str, int], names: Sequence[str]) -> int:
    union = 0
    for name in names:
        union |= masks.get(name, 0)
    return union
