"""Power: pauses between micro-batches, so that the mean over a window of time stays below a cap."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from edgetune.guards.guard import BudgetName, Moment, Pause, Stop
from edgetune.nouns.energy import EnergyReading
from edgetune.units import format_watts

WINDOW_SECONDS = 10.0
WINDOW_PIECES = 10
"""The cap is one of the mean over ten seconds, or over ten times the longest micro-batch: a piece
of work is not interrupted, so over less no pauses could hold it."""

WORK_SECONDS = 1.0
"""A pause lasts until so much work fits below the cap: a meter that is read ten times a second does
not see single steps, so it could not tell work from pauses that alternate faster."""

_PAUSE_SECONDS = 0.1
_POINTS = 200  # of a window are kept


class PowerWindow:
    """What was used in the last while, and the power of work alone.

    used: the energy since this call of `fit` began.
    """

    def __init__(self, used: Callable[[], EnergyReading]) -> None:
        self.working_watts = 0.0
        """Mean power while the run was not paused; 0 before it has worked."""
        self.longest_piece = 0.0
        """The longest time between two moments at work, in seconds."""
        self._used = used
        self._points: deque[tuple[float, float]] = deque()  # (seconds, joules used until then)
        self._last = (0.0, 0.0)
        self._worked_joules = self._worked_seconds = 0.0

    @property
    def seconds(self) -> float:
        """How long the window is."""
        return max(WINDOW_SECONDS, WINDOW_PIECES * self.longest_piece)

    def look(self, moment: Moment) -> EnergyReading:
        """Take notice of what was used until `moment`."""
        reading = self._used()
        seconds, joules = moment.seconds - self._last[0], reading.joules - self._last[1]
        if moment.paused_by is None and moment.pieces:
            self._worked_joules += joules
            self._worked_seconds += seconds
            self.longest_piece = max(self.longest_piece, seconds)
            if self._worked_seconds > 0:
                self.working_watts = self._worked_joules / self._worked_seconds
        self._last = moment.seconds, reading.joules
        points = self._points
        if len(points) > 1 and points[-1][0] - points[-2][0] < self.seconds / _POINTS:
            points.pop()
        points.append(self._last)
        while len(points) > 2 and points[1][0] <= moment.seconds - self.seconds:
            points.popleft()
        return reading

    def recent(self, seconds: float) -> tuple[float, float]:
        """(joules, seconds) of the last `seconds`, or of as many as there are."""
        now, joules = self._points[-1]
        start = max(now - seconds, self._points[0][0])
        before = self._points[0]
        for after in self._points:
            if after[0] >= start:
                break
            before = after
        passed = after[0] - before[0]
        share = (start - before[0]) / passed if passed > 0 else 1.0
        return joules - (before[1] + (after[1] - before[1]) * share), now - start


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
        window = self.window
        reading = window.look(moment)
        resting = moment.paused_by == self.budget
        ahead = max(window.longest_piece, WORK_SECONDS if resting else 0.0)
        joules, seconds = window.recent(window.seconds - ahead)
        work = window.working_watts
        if joules + work * ahead <= self.cap_watts * (seconds + ahead):
            return None
        if not resting or moment.paused_seconds <= window.seconds:
            return Pause(_PAUSE_SECONDS)
        mean = joules / seconds
        reason = (
            f"the device draws {format_watts(mean)} at rest and {format_watts(work)} at work "
            f"({reading.kind}, {reading.scope}: {reading.source}), so no pauses keep the mean over "
            f"{window.seconds:.3g} s below {format_watts(self.cap_watts)}; raise --power"
        )
        return Stop("power", mean, self.cap_watts, "W", reason)
