"""The best choice of what to train within a budget, and the proof that it is.

One exact program per way of running the step (micro-batch, recomputation); the best answer wins,
and of equal ones that with the least energy.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from edgetune.errors import BudgetError
from edgetune.nouns.budget import Budget
from edgetune.nouns.cost import StepCost
from edgetune.nouns.plan import Certificate
from edgetune.nouns.selection import Selection
from edgetune.planning.budget_check import nothing_fits, require_predictions, violations
from edgetune.planning.limits import program_of
from edgetune.planning.program import members
from edgetune.planning.solve import Solution, solve
from edgetune.planning.step_cost import StepCosts


@dataclass(frozen=True)
class Choice:
    """What was chosen, how it is run, at which cost, and how good it is known to be."""

    costs: StepCosts
    selection: Selection
    cost: StepCost
    certificate: Certificate


@dataclass(frozen=True)
class Effort:
    """How hard to try: stop at a relative gap, or when the time is over; then the gap is honest."""

    gap: float = 0.0
    time_limit_seconds: float | None = None


def choose(
    variants: Iterable[StepCosts],
    scores: Mapping[str, float],
    budget: Budget,
    effort: Effort = Effort(),
) -> Choice:
    """Choose the candidates of the highest summed importance whose step stays within `budget`.

    variants: ways to run the same step, from the fastest to that with the least memory; drawn one
        by one, and no further than an answer can still improve.
    scores: importance by candidate name, greater is better; what has none, or none above zero, is
        not selected. Raises BudgetError when not even the cheapest candidate fits: which budget, by
        how much, and the smallest value that would admit something.
    """
    tried: list[StepCosts] = []
    found: list[tuple[StepCosts, Solution]] = []
    deadline = _deadline(effort)
    for costs in variants:
        require_predictions(costs.cost(0), budget, costs.profile)
        tried.append(costs)
        if violations(costs.cost(0), budget):
            continue  # not even the forward pass
        solution = _solved(costs, scores, budget, effort.gap, deadline)
        found.append((costs, solution))
        if not _could_improve(costs, solution, scores, budget, deadline):
            break
    found.sort(key=lambda item: -item[1].objective)
    if not found or not found[0][1].selected:
        raise BudgetError(nothing_fits(tried, scores, budget))
    best = [item for item in found if item[1].objective >= found[0][1].objective * (1 - 1e-9)]
    costs, solution = min(best, key=lambda item: item[0].cost(item[1].selected).seconds or 0.0)
    bound = max(solution.bound for _, solution in found)
    return _choice(costs, solution, bound, scores)


def _deadline(effort: Effort) -> float | None:
    limit = effort.time_limit_seconds
    return None if limit is None else time.monotonic() + limit


def _solved(
    costs: StepCosts,
    scores: Mapping[str, float],
    budget: Budget,
    gap: float,
    deadline: float | None,
) -> Solution:
    program, memory = program_of(costs, scores, budget)
    left = None if deadline is None else max(deadline - time.monotonic(), 0.1)
    return solve(program, memory, gap, left)


def _could_improve(
    costs: StepCosts,
    solution: Solution,
    scores: Mapping[str, float],
    budget: Budget,
    deadline: float | None,
) -> bool:
    """Whether a way with less memory, and no less time, could be better."""
    if budget.memory_bytes is None:
        return False
    unbounded = replace(budget, memory_bytes=None)
    best = _solved(costs, scores, unbounded, 0.0, deadline).bound
    return best > solution.objective * (1 + 1e-9)


def _choice(
    costs: StepCosts, solution: Solution, bound: float, scores: Mapping[str, float]
) -> Choice:
    candidates = [costs.graph.candidates[i] for i in members(solution.selected)]
    selection = Selection.of(candidates)
    gap = (bound - solution.objective) / bound if bound > 0 else 0.0
    certificate = Certificate(
        method="exact",
        objective=solution.objective,
        everything=total_importance(costs, scores),
        bound=bound,
        gap=max(gap, 0.0),
        binding=tuple(solution.binding),
        prices=dict(solution.prices),
    )
    return Choice(costs, selection, costs.cost(solution.selected), certificate)


def total_importance(costs: StepCosts, scores: Mapping[str, float]) -> float:
    """The summed scores of the best candidate of every parameter."""
    best: dict[str, float] = {}
    for candidate in costs.graph.candidates:
        score = max(scores.get(candidate.name, 0.0), 0.0)
        best[candidate.parameter] = max(best.get(candidate.parameter, 0.0), score)
    return math.fsum(best.values())
