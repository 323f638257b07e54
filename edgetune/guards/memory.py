"""Memory: ends the run while there is still room, because the kernel gives no second chance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from edgetune.guards.guard import BudgetName, Moment, Stop
from edgetune.guards.memory_room import MemoryFiles, Neighbours, ProcessMemory, Room
from edgetune.units import format_bytes

MARGIN_BYTES = 4 * 2**20
"""Beside a limit that kills: what the kernel counts late (resident memory, per core), page tables,
and the pages of the checkpoint's file on their way to the disk."""

_SLACK_BYTES = 2**20
"""By so much resident memory goes up and down between equal steps without meaning anything."""


class StepPeak:
    """What the process will hold at the most in the next step.

    Until one whole step is done, that is the plan's prediction; then what the process's peak has
    become by doing it, and what it has held since on top. That may be the block in which the next
    step's tensors lie; so the prediction bounds a process that has kept to it.

    predicted_bytes: the plan's, of the whole process with its data; None where there is none. When
    it changes (another micro-batch), what was measured is of the past.
    """

    def __init__(self, predicted_bytes: Callable[[], int | None]) -> None:
        self._predicted_bytes = predicted_bytes
        self._predicted = predicted_bytes()
        self._first_step: int | None = None  # from which on the prediction is of this micro-batch
        self._highest = 0
        self._measured: tuple[int, int] | None = None  # the peak, and what was resident after it

    def expected_bytes(self, now: ProcessMemory, steps: int) -> tuple[int, bool]:
        """The expected peak, and whether it rests on a measurement."""
        predicted = self._predicted_bytes()
        if self._first_step is None or predicted != self._predicted:
            self._first_step, self._predicted = steps, predicted
            self._highest, self._measured = now.peak_bytes, None
        if now.peak_bytes > self._highest:
            self._highest = now.peak_bytes
            self._measured = now.peak_bytes, now.resident_bytes
        if steps == self._first_step:
            risen = self._highest if self._measured else now.resident_bytes
            return max(predicted or 0, risen), False
        if self._measured is None:  # it was higher before: while loading, or with larger batches
            bound = self._highest if predicted is None else min(self._highest, predicted)
            self._measured = max(bound, now.resident_bytes), now.resident_bytes
        peak, resident_then = self._measured
        expected = peak + max(now.resident_bytes - resident_then - _SLACK_BYTES, 0)
        if predicted is not None and peak <= predicted:
            expected = min(expected, predicted)
        return expected, True


@dataclass(frozen=True)
class MemoryGuard:
    """Stops when the next step would exceed the process's budget, or what a cgroup or the machine
    has left.

    limit_bytes: resident memory that the process may hold; None leaves that to the system.
    limit_from: who says so. checkpoint_bytes: what writing a checkpoint takes, which stays free.
    advice: what could make it fit.
    """

    peak: StepPeak
    files: MemoryFiles
    limit_bytes: int | None = None
    limit_from: str = ""
    checkpoint_bytes: int = 2**20
    advice: str = ""
    neighbours: Neighbours = field(default_factory=Neighbours)
    budget: BudgetName = "memory"
    every_seconds: float = 0.0

    def check(self, moment: Moment) -> Stop | None:
        """Stop, or None."""
        now = self.files.process()
        if now is None:
            return None
        expected, measured = self.peak.expected_bytes(now, moment.steps)
        more = max(expected - now.resident_bytes, 0)
        basis = "as steps before it did" if measured else "as far as is planned"
        if self.limit_bytes is not None and expected > self.limit_bytes:
            room = Room("the process", self.limit_bytes, now.resident_bytes)
            return self._stop(room, more, basis, f" ({self.limit_from})")
        # What was predicted has its margin in it.
        needed = max(more + (MARGIN_BYTES if measured else 0), self.checkpoint_bytes + MARGIN_BYTES)
        narrow: tuple[int, Room, int] | None = None
        for room in self.files.rooms():
            growth = self.neighbours.growth_bytes(room, now.resident_bytes)
            short = needed + growth - room.free_bytes
            if short > 0 and (narrow is None or short > narrow[0]):
                narrow = short, room, growth
        if narrow is None:
            return None
        _, room, growth = narrow
        others = f", while others grow by {format_bytes(growth)}" if growth else ""
        return self._stop(room, more, f"{basis}{others}", "")

    def _stop(self, room: Room, more: int, basis: str, limit_from: str) -> Stop:
        reason = (
            f"{room.where} holds {format_bytes(room.used_bytes)}, and the next step would take "
            f"{format_bytes(more)} more, {basis}; the limit is {format_bytes(room.limit_bytes)}"
            f"{limit_from}{self.advice}"
        )
        return Stop("memory", room.used_bytes, room.limit_bytes, "B", reason, more)
