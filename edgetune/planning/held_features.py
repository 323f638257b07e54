"""The frozen prefix's results, which the host holds from step to step.

The prefix and the tail are two graphs. What the first hands to the second lies in memory of its own
that is there before the first runs, and stays after its last reader in the second. Which tensors
these are depends on where the first trained tensor is read. `Boundary` says so for one such place;
the memory of a selection is the largest over the places of its candidates, which is never below the
true one (that of its earliest place), and grows with the selection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgetune.nouns.step_graph import StepGraph
from edgetune.planning.buffers import Buffer
from edgetune.planning.needs import Needs
from edgetune.planning.split import is_light


@dataclass(frozen=True)
class Held:
    """A buffer that is held throughout when any of `users` is selected."""

    buffer: Buffer
    users: int


@dataclass(frozen=True)
class Boundary:
    """A place where the trained part may begin: the readers of some parameters.

    candidates: those of these parameters. held: what crosses there.
    """

    candidates: int
    held: tuple[Held, ...]


@dataclass(frozen=True)
class _Place:
    candidates: int
    above: int  # candidates that the readers' other inputs depend on


def boundaries_of(
    graph: StepGraph, needs: Needs, buffers: Sequence[Buffer]
) -> tuple[Boundary, ...]:
    """One boundary for each set of parameters that the same operations depend on."""
    places = _places(graph, needs)
    remade = _made_of_inputs_alone(graph)
    crossing = [
        b
        for b in buffers
        if needs.on_data[b.made_at]
        and not needs.depends_on[b.made_at] & needs.labels
        and b.name not in remade
    ]
    found = []
    for place in places:
        parallel = [other for other in places if _parallel(place, other)]
        held = []
        for buffer in crossing:
            users = _holders(buffer, place, parallel, needs)
            if users:
                held.append(Held(buffer, users))
        found.append(Boundary(place.candidates, tuple(held)))
    return tuple(found)


def _places(graph: StepGraph, needs: Needs) -> list[_Place]:
    """Parameters grouped by the forward operations that depend on them."""
    dependents: dict[str, list[int]] = {name: [] for name in needs.of_parameter}
    for index in range(len(graph.operations)):
        if needs.on_data[index]:
            mask = needs.depends_on[index]
            for name, candidates in needs.of_parameter.items():
                if mask & candidates:
                    dependents[name].append(index)
    grouped: dict[tuple[int, ...], int] = {}
    for name, operations in dependents.items():
        key = tuple(operations)
        grouped[key] = grouped.get(key, 0) | needs.of_parameter[name]
    return [
        _Place(candidates, needs.trained_by(operations[0]) & ~candidates)
        for operations, candidates in grouped.items()
        if operations
    ]


def _parallel(place: _Place, other: _Place) -> bool:
    """Whether neither place depends on the other's parameters."""
    return (
        other is not place
        and not other.candidates & place.above
        and not place.candidates & other.above
    )


def _holders(buffer: Buffer, place: _Place, parallel: Sequence[_Place], needs: Needs) -> int:
    """The candidates for whose sake `buffer` crosses at `place`."""
    made_of = needs.depends_on[buffer.made_at]
    if made_of & place.candidates:
        return 0
    users = 0
    for use in buffer.uses:
        reader = needs.depends_on[use.operation]
        needed_by = needs.needed_by[use.operation]
        if reader & needs.labels and not needed_by & needs.always:
            users |= needed_by & ~place.above  # the backward of what comes after this place
        elif reader & (place.candidates | needs.labels):
            users |= place.candidates
        else:
            for other in parallel:
                if reader & other.candidates and not made_of & other.candidates:
                    users |= other.candidates
    return users


def _made_of_inputs_alone(graph: StepGraph) -> set[str]:
    """Tensors that light operations make of inputs and weights: the tail makes them again."""
    made = {name for operation in graph.operations for name in operation.outputs}
    found: set[str] = set()
    for operation in graph.operations:
        if is_light(graph, operation) and all(
            n in found or n not in made for n in operation.inputs
        ):
            found.update(operation.outputs)
    return found
