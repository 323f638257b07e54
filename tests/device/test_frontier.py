"""Frontiers: the best plans from the cheapest to everything, beside selections made by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from edgetune.cli.frontier_table import describe_frontier
from edgetune.errors import BudgetError
from edgetune.nouns.budget import Budget
from edgetune.nouns.frontier import AXES, Axis, FrontierPoint
from edgetune.nouns.optimizer import Optimizer
from edgetune.planning.budget_check import violations
from edgetune.planning.choose import Effort, choose
from edgetune.planning.frontier import frontier
from edgetune.planning.step_cost import StepCosts
from tests.device.planned_cases import Case, random_case
from tests.device.step_graphs import PROFILE, profile
from tests.device.test_split import by_hand

POINTS = 5
SEEDS = range(12)


UNBOUNDED = Budget()


def drawn(case: Case, axis: Axis, budget: Budget = UNBOUNDED) -> tuple[FrontierPoint, ...]:
    return frontier(case.variants, case.scores, axis, budget, Effort(), POINTS)


def planned(points: tuple[FrontierPoint, ...]) -> list[FrontierPoint]:
    return [point for point in points if not point.name]


def by_name(points: tuple[FrontierPoint, ...]) -> dict[str, FrontierPoint]:
    return {point.name: point for point in points if point.name}


def scored_cases() -> list[Case]:
    return [case for case in map(random_case, SEEDS) if any(case.scores.values())]


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("case", scored_cases())
def test_each_point_costs_more_and_brings_more_than_the_one_before(case: Case, axis: Axis) -> None:
    points = planned(drawn(case, axis))
    assert points
    for cheaper, dearer in pairwise(points):
        assert cheaper.amount < dearer.amount
        assert cheaper.importance < dearer.importance
    assert points[-1].importance == pytest.approx(1.0)
    assert all(point.gap == 0 for point in points)
    for point in points:
        taken = point.cost.peak_bytes if axis == "memory" else point.cost.joules
        assert point.amount == taken


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("case", scored_cases())
def test_what_is_made_by_hand_is_never_better_than_the_plan_at_equal_cost(
    case: Case, axis: Axis
) -> None:
    points = drawn(case, axis)
    named = by_name(points)
    assert "everything" in named
    for point in named.values():
        assert point.planned is not None
        assert point.importance <= point.planned + 1e-9
        reached = [p.importance for p in planned(points) if p.amount <= point.amount * (1 + 1e-9)]
        assert max(reached, default=0.0) == pytest.approx(point.planned)
        assert point.gap is None


def test_the_point_at_a_budget_is_the_plan_within_it() -> None:
    case = random_case(1)
    for point in planned(drawn(case, "memory")):
        budget = Budget(memory_bytes=int(point.amount))
        choice = choose(case.variants, case.scores, budget)
        share = choice.certificate.objective / choice.certificate.everything
        assert share == pytest.approx(point.importance)


def test_other_budgets_are_kept() -> None:
    case = random_case(1)
    free = planned(drawn(case, "memory"))[-1]
    assert free.cost.seconds is not None
    budget = Budget(step_seconds=0.9 * free.cost.seconds)
    points = drawn(case, "memory", budget)
    assert all(violations(point.cost, budget) == [] for point in planned(points))
    assert planned(points)[-1].importance < free.importance


def test_where_nothing_can_be_trained_the_error_says_which_budget() -> None:
    with pytest.raises(BudgetError, match=r"nothing can be trained on made-up .* --step-seconds"):
        drawn(random_case(1), "memory", Budget(step_seconds=1e-9))


def test_a_frontier_of_unknown_energy_is_refused_and_one_of_memory_is_not() -> None:
    unknown = StepCosts(by_hand(), 1, Optimizer("sgd"), profile(load_watts=None))
    case = replace(random_case(1), variants=(unknown,), scores={"w1": 1.0, "w2": 2.0})
    with pytest.raises(BudgetError, match="cannot predict energy: it needs its load power"):
        drawn(case, "energy")
    assert planned(drawn(case, "memory"))[-1].importance == 1.0


def test_the_tables_show_both_kinds_of_points() -> None:
    costs = StepCosts(by_hand(), 1, Optimizer("sgd"), PROFILE)
    cheap = replace(costs.cost(0b10), seconds=29.84)
    dear = replace(cheap, seconds=39.36)
    points = (
        FrontierPoint("", 100 * 2**20, 0.25, 1, 2, cheap, 0.0),
        FrontierPoint("", 300 * 2**20, 1.0, 12, 1, dear, 0.013),
        FrontierPoint("head", 110 * 2**20, 0.125, 1, 2, replace(cheap, seconds=None), None, 0.25),
        FrontierPoint("everything", 320 * 2**20, 1.0, 12, 1, dear, None, None),
    )
    assert describe_frontier(points, "memory", "fisher").splitlines() == [
        "frontier     what more memory buys, by fisher",
        "memory     importance  tensors  micro-batch  step     gap",
        "100.0 MiB  25.0 %      1        2            29.84 s  0",
        "300.0 MiB  100.0 %     12       1            39.36 s  1.3 %",
        "",
        "by hand     memory     importance  tensors  micro-batch  step     "
        "the best plan at equal memory",
        "head        110.0 MiB  12.5 %      1        2            unknown  25.0 % (+12.5)",
        "everything  320.0 MiB  100.0 %     12       1            39.36 s  "
        "none keeps the other budgets",
    ]
    assert "what more energy buys, by your scores" in describe_frontier(points, "energy", "user")
