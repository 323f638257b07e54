"""Energy foreseen: a run that departs from its plan ends while something is left."""

from __future__ import annotations

import pytest

from edgetune.guards.forecast import Forecast, ForecastGuard
from edgetune.guards.guard import Moment, Stop, Work
from edgetune.nouns.energy import EnergyReading

AHEAD = Forecast(steps=100, first_steps=10, planned_joules=1.0)


def verdict(
    joules: float, steps: int, limit: float = 100.0, work: Work = "step", ahead: Forecast = AHEAD
) -> Stop | None:
    reading = EnergyReading(joules, 1.5, 20.0, "wall", "a meter", 99, "measured")
    guard = ForecastGuard(limit, lambda: reading, ahead)
    return guard.check(Moment(seconds=20.0, next=work, steps=steps, pieces=steps))


@pytest.mark.parametrize(
    ("joules", "steps", "limit", "work", "stops"),
    [
        pytest.param(15.0, 10, 100.0, "step", True, id="half-as-much-again"),
        pytest.param(15.0, 10, 150.0, "step", False, id="that-lasts-all-the-same"),
        pytest.param(12.0, 10, 100.0, "step", False, id="a-fifth-more-is-no-departure"),
        pytest.param(12.1, 10, 100.0, "step", True, id="more-than-a-fifth"),
        pytest.param(9.0, 10, 50.0, "step", False, id="a-budget-below-the-plan"),
        pytest.param(13.5, 9, 100.0, "step", False, id="not-before-the-first-steps"),
        pytest.param(15.0, 10, 100.0, "micro-batch", False, id="not-within-a-step"),
        pytest.param(15.0, 10, 100.0, "update", False, id="what-is-computed-is-used"),
        pytest.param(148.0, 99, 149.0, "step", True, id="the-last-step"),
    ],
)
def test_a_run_ends_when_its_steps_depart_from_the_plan_and_will_not_last(
    joules: float, steps: int, limit: float, work: Work, stops: bool
) -> None:
    assert isinstance(verdict(joules, steps, limit, work), Stop) is stops


def test_the_stop_says_what_is_left_and_what_would_be_needed() -> None:
    stop = verdict(15.0, 10)
    assert stop is not None
    assert (stop.budget, stop.measured, stop.allowed, stop.unit) == ("energy", 15.0, 100.0, "J")
    assert stop.needs == pytest.approx(135.0)
    assert stop.reason == (
        "a step takes 1.50 J, the plan says 1.00 J: the 90 steps that are left need 135.00 J, and "
        "85.00 J of 100.00 J are left (measured, wall, +- 1.50 J: a meter)"
    )


def test_nothing_is_judged_before_a_step_is_done() -> None:
    ahead = Forecast(steps=100, first_steps=0, planned_joules=1.0)
    assert verdict(15.0, 0, ahead=ahead) is None
    assert verdict(15.0, 1, ahead=ahead) is not None
