"""Energy foreseen: ends a run that will not last while something is left to go on with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgetune.guards.guard import BudgetName, Moment, Stop
from edgetune.nouns.energy import EnergyReading
from edgetune.units import format_joules

DEPARTURE = 1.2
"""From so many times the plan's energy per step on the measured one departs from it."""


@dataclass(frozen=True)
class Forecast:
    """What is ahead of a run when a call of `fit` begins.

    steps: until its end. first_steps: so many are done before a mean is believed.
    planned_joules: of one step, by the plan.
    """

    steps: int
    first_steps: int
    planned_joules: float


@dataclass(frozen=True)
class ForecastGuard:
    """Stops when steps depart from the plan and `limit_joules` would not last for all of them.

    used: the energy since this call of `fit` began, validation and pauses included.
    """

    limit_joules: float
    used: Callable[[], EnergyReading]
    ahead: Forecast
    budget: BudgetName = "energy"
    every_seconds: float = 0.0

    def check(self, moment: Moment) -> Stop | None:
        """Stop, or None."""
        if moment.next != "step" or moment.steps < max(1, self.ahead.first_steps):
            return None
        reading, planned = self.used(), self.ahead.planned_joules
        mean = reading.joules / moment.steps
        left = self.ahead.steps - moment.steps
        if mean <= DEPARTURE * planned or reading.joules + left * mean <= self.limit_joules:
            return None
        reason = (
            f"a step takes {format_joules(mean)}, the plan says {format_joules(planned)}: the "
            f"{left:,} steps that are left need {format_joules(left * mean)}, and "
            f"{format_joules(max(0.0, self.limit_joules - reading.joules))} of "
            f"{format_joules(self.limit_joules)} are left ({reading.kind}, {reading.scope}, +- "
            f"{format_joules(reading.error_bound_joules)}: {reading.source})"
        )
        return Stop("energy", reading.joules, self.limit_joules, "J", reason, left * mean)
