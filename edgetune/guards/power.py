"""Power: pauses between micro-batches, so that the mean over any ten seconds stays below a cap."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

from edgetune.guards.guard import BudgetName, Moment, Pause, Stop
from edgetune.meters.sampler import Mark
from edgetune.nouns.energy import EnergyReading
from edgetune.units import format_watts

WINDOW_SECONDS = 10.0
"""The cap is one of the mean over so long."""

WORK_SECONDS = 1.0
"""A pause lasts until so much work fits below the cap: a meter that is read ten times a second does
not see single steps, so it could not tell work from pauses that alternate faster."""

_PAUSE_SECONDS = 0.1
_MARKS = 50


class EnergySource(Protocol):
    """What a `Sampler` is to this rule."""

    def mark(self) -> Mark:
        """This moment."""

    def energy_since(self, mark: Mark) -> EnergyReading:
        """The energy since then."""


class PowerWindow:
    """The energy of the last WINDOW_SECONDS, and the power of work alone."""

    def __init__(self, source: EnergySource) -> None:
        self.working_watts = 0.0
        """Mean power while the run was not paused; 0 before it has worked."""
        self.longest_piece = 0.0
        """The longest time between two moments at work, in seconds."""
        self._source = source
        self._marks: deque[tuple[float, Mark]] = deque()
        self._last: tuple[float, Mark] | None = None
        self._worked_joules = self._worked_seconds = 0.0

    def at(self, moment: Moment) -> EnergyReading:
        """The energy of the window that ends now."""
        now, mark = moment.seconds, self._source.mark()
        if self._last is not None and moment.paused_by is None:
            passed = now - self._last[0]
            self._worked_joules += self._source.energy_since(self._last[1]).joules
            self._worked_seconds += passed
            self.longest_piece = max(self.longest_piece, passed)
            if self._worked_seconds > 0:
                self.working_watts = self._worked_joules / self._worked_seconds
        self._last = now, mark
        if not self._marks or now - self._marks[-1][0] >= WINDOW_SECONDS / _MARKS:
            self._marks.append((now, mark))
        while len(self._marks) > 1 and self._marks[1][0] <= now - WINDOW_SECONDS:
            self._marks.popleft()
        return self._source.energy_since(self._marks[0][1])


@dataclass(frozen=True)
class PowerGuard:
    """Pauses while the next work would bring the mean above `cap_watts`.

    Stops when a whole window of pausing is not enough: then the device draws as much at rest.
    """

    cap_watts: float
    window: PowerWindow
    budget: BudgetName = "power"
    every_seconds: float = 0.0

    def check(self, moment: Moment) -> Stop | Pause | None:
        """Stop, Pause, or None."""
        reading = self.window.at(moment)
        resting = moment.paused_by == self.budget
        ahead = max(self.window.longest_piece, WORK_SECONDS if resting else 0.0)
        joules = reading.joules + self.window.working_watts * ahead
        if joules <= self.cap_watts * (reading.seconds + ahead):
            return None
        if not resting or moment.paused_seconds <= WINDOW_SECONDS:
            return Pause(_PAUSE_SECONDS)
        mean, work = reading.mean_watts, self.window.working_watts
        reason = (
            f"the device draws {format_watts(mean)} at rest and {format_watts(work)} at work "
            f"({reading.kind}, {reading.scope}: {reading.source}), so no pauses keep the mean over "
            f"{WINDOW_SECONDS:g} s below {format_watts(self.cap_watts)}; raise --power"
        )
        return Stop("power", mean, self.cap_watts, "W", reason)
