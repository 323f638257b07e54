"""Bytes alive at every moment of a step: of one selection, of a fractional one, or as terms.

The memory of a selection is the largest load over all moments and all boundaries (see
held_features). Each load is a coverage function, a sum of bytes that count when any of some
candidates is selected; so memory grows with the selection, and `load(A or B) <= load(A) + load(B)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgetune.planning.buffers import Buffer
from edgetune.planning.held_features import Boundary, Held

Loads = npt.NDArray[np.float64]
Level = Callable[[int], float]  # to which extent any of these candidates is selected


@dataclass(frozen=True)
class Moment:
    """A moment of a step, seen from a boundary, and the bytes alive then."""

    boundary: int
    operation: int
    bytes: float


class Moments:
    """The loads of every moment as functions of the selection.

    count: number of operations. buffers: what is allocated in a step.
    """

    def __init__(
        self,
        count: int,
        buffers: Sequence[Buffer],
        boundaries: Sequence[Boundary],
    ) -> None:
        self._count = count
        self._buffers = tuple(buffers)
        self._boundaries = tuple(boundaries) or (Boundary(0, ()),)
        self._segments = tuple(s for b in buffers for s in b.life)

    def worst(self, level: Level) -> list[Moment]:
        """The worst moment of every boundary that the selection behind `level` may have."""
        return [
            Moment(boundary, int(load.argmax()), float(load.max()))
            for boundary, load in self.loads(level)
        ]

    def loads(self, level: Level) -> list[tuple[int, Loads]]:
        """(boundary, bytes at each moment), of a selection given as `selection_level` does."""
        base = np.zeros(self._count + 1)
        for segment in self._segments:
            _add(base, segment.start, segment.stop, segment.bytes * level(segment.users))
        found = []
        for number, boundary in enumerate(self._boundaries):
            if not number or level(boundary.candidates):
                load = base.copy()
                for held in boundary.held:
                    _add_held(load, held, level, self._count)
                found.append((number, np.cumsum(load)[: self._count]))
        return found

    def terms_at(self, moment: Moment) -> dict[int, int]:
        """Bytes alive at `moment` by the candidates any of which keeps them alive."""
        held = {h.buffer.name: h for h in self._boundaries[moment.boundary].held}
        terms: dict[int, int] = {}
        for buffer in self._buffers:
            users = alive_for(buffer, held.get(buffer.name), moment.operation)
            if users:
                terms[users] = terms.get(users, 0) + buffer.bytes
        return terms

    def alive_at(self, moment: Moment, selected: int) -> list[Buffer]:
        """The buffers alive at `moment` in the step of `selected`, the largest first."""
        held = {h.buffer.name: h for h in self._boundaries[moment.boundary].held}
        found = [
            b for b in self._buffers if alive_for(b, held.get(b.name), moment.operation) & selected
        ]
        return sorted(found, key=lambda buffer: (-buffer.bytes, buffer.name))


def selection_level(selected: int) -> Level:
    """1 for candidates of which any is in the bitmask `selected`, else 0."""
    return lambda users: 1.0 if users & selected else 0.0


def fractional_level(values: Sequence[float]) -> Level:
    """The largest of the candidates' values: bit i is selected to the extent of values[i]."""
    order = sorted(range(len(values)), key=lambda i: -values[i])
    ranked = [(1 << i, values[i]) for i in order if values[i] > 0]
    known: dict[int, float] = {}

    def level(users: int) -> float:
        if users not in known:
            known[users] = next((value for bit, value in ranked if users & bit), 0.0)
        return known[users]

    return level


def alive_for(buffer: Buffer, held: Held | None, operation: int) -> int:
    """The candidates any of which keeps `buffer` alive while `operation` runs."""
    users = 0
    for segment in buffer.life:
        if segment.start <= operation < segment.stop:
            users |= segment.users
    if held is not None and operation >= held.start:
        users |= held.users
    return users


def _add(changes: Loads, start: int, stop: int, amount: float) -> None:
    changes[start] += amount
    changes[stop] -= amount


def _add_held(changes: Loads, held: Held, level: Level, end: int) -> None:
    """What `held` adds to the buffer's own life: nothing where it is alive anyway."""
    extent = level(held.users)
    if not extent:
        return
    buffer = held.buffer
    _add(changes, held.start, end, buffer.bytes * extent)
    for segment in buffer.life:
        start = max(segment.start, held.start)
        if start < segment.stop:
            _add(changes, start, segment.stop, -buffer.bytes * min(extent, level(segment.users)))
