"""Bytes alive at every moment of a step: of one selection, of a fractional one, or as terms.

The memory of a selection is the largest load over all moments and all boundaries (see
held_features). Each load is a coverage function, a sum of bytes that count when any of some
candidates is selected; so memory grows with the selection, and `load(A or B) <= load(A) + load(B)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgetune.planning.buffers import Buffer
from edgetune.planning.held_features import Boundary, Held

Loads = npt.NDArray[np.float64]
_STRETCHES = 32  # of a step: whose worst moments are told at once

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
        self._buffers = tuple(buffers)
        self._boundaries = tuple(boundaries) or (Boundary(0, ()),)
        self._changes = _Changes(count, self._buffers, self._boundaries)
        self._segments = [segment for buffer in buffers for segment in buffer.life]
        self._owners = [buffer.name for buffer in buffers for _ in buffer.life]
        self._sizes = {buffer.name: buffer.bytes for buffer in buffers}
        self._starts = np.array([segment.start for segment in self._segments])
        self._stops = np.array([segment.stop for segment in self._segments])
        self._stretches = np.array_split(np.arange(count), min(count, _STRETCHES))

    def worst(self, level: Level) -> list[Moment]:
        """The worst moment of each of some stretches of a step, from whichever boundary it is."""
        numbers, loads = self._changes.loads(level)
        highest = loads.max(axis=0)
        found = []
        for stretch in self._stretches:
            at = int(stretch[highest[stretch].argmax()])
            found.append(Moment(numbers[loads[:, at].argmax()], at, float(highest[at])))
        return found

    def exceeding(self, level: Level, room: float) -> list[Moment]:
        """Moments at which more than `room` bytes are alive; none only when there is none.

        The worst of each stretch, and the worst of all from every boundary: what keeps it from one
        boundary mostly exceeds it from the next.
        """
        over = [moment for moment in self.worst(level) if moment.bytes > room]
        if not over:
            return []
        worst = max(over, key=lambda moment: moment.bytes)
        places = (replace(worst, boundary=number) for number in range(len(self._boundaries)))
        return list(dict.fromkeys((worst, *places, *over)))

    def loads(self, level: Level) -> list[tuple[int, Loads]]:
        """(boundary, bytes at each moment), of a selection given as `selection_level` does."""
        return list(zip(*self._changes.loads(level), strict=True))

    def terms_at(self, moment: Moment) -> dict[int, int]:
        """Bytes alive at `moment` by the candidates any of which keeps them alive."""
        users = {
            self._owners[i]: self._segments[i].users
            for i in np.flatnonzero(
                (self._starts <= moment.operation) & (moment.operation < self._stops)
            )
        }
        for held in self._boundaries[moment.boundary].held:
            users[held.buffer.name] = users.get(held.buffer.name, 0) | held.users
        terms: dict[int, int] = {}
        for name, mask in users.items():
            if mask:
                terms[mask] = terms.get(mask, 0) + self._sizes[name]
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
    if held is not None:
        users |= held.users
    return users


class _Changes:
    """All lives as one array of changes, so that the loads of a selection are one sum.

    A change is bytes that come, or go, at a moment, seen from one boundary or from all, to the
    extent to which each of two sets of candidates is selected.
    """

    def __init__(
        self, count: int, buffers: Sequence[Buffer], boundaries: Sequence[Boundary]
    ) -> None:
        self._count = count
        self._candidates = [boundary.candidates for boundary in boundaries]
        self._masks: dict[int, int] = {}  # their numbers
        changes = [
            self._life(0, s.start, s.stop, s.bytes, s.users) for b in buffers for s in b.life
        ]
        for row, boundary in enumerate(boundaries, 1):
            for held in boundary.held:
                changes += self._held(row, held)
        table = np.array([change for life in changes for change in life], np.int64).reshape(-1, 5)
        self._place, self._bytes = table[:, 0] * (count + 1) + table[:, 1], table[:, 2]
        self._users = table[:, 3:]

    def _life(
        self, row: int, start: int, stop: int, count: int, users: int, also: int = 0
    ) -> list[tuple[int, ...]]:
        masks = [self._masks.setdefault(m, len(self._masks)) for m in (users, also or users)]
        return [(row, start, count, *masks), (row, stop, -count, *masks)]

    def _held(self, row: int, held: Held) -> Iterator[list[tuple[int, ...]]]:
        """What `held` adds to the buffer's own life: nothing where it is alive anyway."""
        count = held.buffer.bytes
        yield self._life(row, 0, self._count, count, held.users)
        for part in held.buffer.life:
            yield self._life(row, part.start, part.stop, -count, held.users, part.users)

    def loads(self, level: Level) -> tuple[list[int], Loads]:
        """The boundaries that a selection may have, and from each the bytes at every moment."""
        numbers = [n for n, mask in enumerate(self._candidates) if not n or level(mask)]
        extent = np.array([level(mask) for mask in self._masks])
        amounts = self._bytes * extent[self._users].min(axis=1)
        rows = len(self._candidates) + 1  # the first is seen from all
        changes = np.bincount(self._place, amounts, rows * (self._count + 1)).reshape(rows, -1)
        seen = changes[0] + changes[[number + 1 for number in numbers]]
        return numbers, np.cumsum(seen, axis=1)[:, :-1]
