"""Energy: ends the run before the step that would exceed what it may use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgetune.guards.guard import BudgetName, Moment, Stop, needed
from edgetune.nouns.energy import EnergyReading
from edgetune.units import format_joules


@dataclass(frozen=True)
class EnergyGuard:
    """Stops when `limit_joules` would not last for one more step, or what is left of this one.

    used: the energy since this call of `fit` began, validation and pauses included.
    planned_joules: of one step, which is believed until one is done; None is unknown.
    A sensor that is lost is no reason to stop: the reading guesses, and its bound says so.
    """

    limit_joules: float
    used: Callable[[], EnergyReading]
    planned_joules: float | None = None
    budget: BudgetName = "energy"
    every_seconds: float = 0.0

    def check(self, moment: Moment) -> Stop | None:
        """Stop, or None."""
        reading = self.used()
        needs = needed(moment, reading.joules, self.planned_joules)
        if reading.joules + needs <= self.limit_joules:
            return None
        reason = (
            f"{format_joules(reading.joules)} of {format_joules(self.limit_joules)} are used, and "
            f"what comes next takes {format_joules(needs)} ({reading.kind}, {reading.scope}, "
            f"+- {format_joules(reading.error_bound_joules)}: {reading.source}); continue with "
            "--resume and a new --energy"
        )
        return Stop("energy", reading.joules, self.limit_joules, "J", reason, needs)
