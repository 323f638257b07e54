"""Asks all guards, and waits where one says so."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from edgetune.guards.guard import BudgetName, Guard, Moment, Pause, Stop, Work
from edgetune.nouns.energy import EnergyReading

_SECONDS_BETWEEN_LOOKS = 0.2
"""During a pause, how often it is seen that somebody wants the run to end."""


class Watch:
    """The guards of a run. One that is for ever content without any.

    clock: seconds that never go back. sleep: waits for so many seconds. energy: what the run has
    used so far, None without a meter.
    """

    def __init__(
        self,
        guards: Sequence[Guard] = (),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        energy: Callable[[], EnergyReading] | None = None,
    ) -> None:
        self.energy = energy
        self.paused_seconds: dict[BudgetName, float] = {}
        """How long the run has been paused so far, by the budget that it was paused for."""
        self.cut_short = False
        """Whether the last pause ended because somebody wants the run to end."""
        self._guards = tuple(guards)
        self._clock, self._sleep = clock, sleep
        self._started = clock()
        self._asked: dict[int, float] = {}
        self._pieces = 0
        self._last: Work | None = None

    def start(self) -> None:
        """The run begins now."""
        self._started = self._clock()
        self.paused_seconds, self._asked, self.cut_short = {}, {}, False
        self._pieces, self._last = 0, None

    def check(
        self, work: Work, steps: int, interrupted: Callable[[], bool] = lambda: False
    ) -> Stop | None:
        """Return when the next piece of `work` may begin, or with what ends the run.

        steps: done so far. interrupted: ends a pause, which is then `cut_short`.
        """
        paused_by: BudgetName | None = None
        since = self._clock()
        self.cut_short = False
        self._pieces += self._last not in (None, "update")
        self._last = work
        while True:
            now = self._clock()
            moment = Moment(
                seconds=now - self._started,
                next=work,
                steps=steps,
                pieces=self._pieces,
                paused_by=paused_by,
                paused_seconds=now - since,
            )
            pausing: tuple[BudgetName, Pause] | None = None
            for place, guard in enumerate(self._guards):
                if not self._is_due(place, guard, now, paused_by):
                    continue
                self._asked[place] = now
                verdict = guard.check(moment)
                if isinstance(verdict, Stop):
                    return verdict
                if verdict is not None and pausing is None:
                    pausing = guard.budget, verdict
            if pausing is None:
                return None
            budget, pause = pausing
            if budget != paused_by:
                paused_by, since = budget, now
            self._wait(budget, pause.seconds, interrupted)
            if self.cut_short:
                return None

    def _is_due(self, place: int, guard: Guard, now: float, paused_by: BudgetName | None) -> bool:
        last = self._asked.get(place)
        return last is None or guard.budget == paused_by or now - last >= guard.every_seconds

    def _wait(self, budget: BudgetName, seconds: float, interrupted: Callable[[], bool]) -> None:
        begun = self._clock()
        while (left := begun + seconds - self._clock()) > 0 and not self.cut_short:
            self._sleep(min(left, _SECONDS_BETWEEN_LOOKS))
            self.cut_short = interrupted()
        spent = self._clock() - begun
        self.paused_seconds[budget] = self.paused_seconds.get(budget, 0.0) + spent
