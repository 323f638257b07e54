"""Time: ends the run before the step that would not end in time."""

from __future__ import annotations

from dataclasses import dataclass

from edgetune.guards.guard import BudgetName, Moment, Stop, needed
from edgetune.units import format_seconds


@dataclass(frozen=True)
class TimeGuard:
    """Stops when the mean step, validation and pauses included, does not fit before
    `limit_seconds` of this call of `fit`.

    planned_seconds: of one step, which is believed until one is done; None is unknown.
    """

    limit_seconds: float
    planned_seconds: float | None = None
    budget: BudgetName = "time"
    every_seconds: float = 0.0

    def check(self, moment: Moment) -> Stop | None:
        """Stop, or None."""
        needs = needed(moment, moment.seconds, self.planned_seconds)
        if moment.seconds + needs <= self.limit_seconds:
            return None
        reason = (
            f"{format_seconds(moment.seconds)} of {format_seconds(self.limit_seconds)} are over, "
            f"and what comes next takes {format_seconds(needs)}; continue with --resume and a "
            "new --seconds"
        )
        return Stop("time", moment.seconds, self.limit_seconds, "s", reason, needs)
