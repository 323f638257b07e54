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
from edgetune.planning.solve import EQUAL, Search
from edgetune.planning.step_cost import StepCosts

_NEARLY = 1e-5  # bounds of relaxations this close, relatively, are those of one optimum


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
        by one, and no further than an answer can still improve. No selection takes less time in
        another than in the first.
    scores: importance by candidate name, greater is better; what has none, or none above zero, is
        not selected. Raises BudgetError when not even the cheapest candidate fits: which budget, by
        how much, and the smallest value that would admit something.
    """
    race = _Race(scores, budget, effort)
    for costs in variants:
        require_predictions(costs.cost(0), budget, costs.profile)
        race.enter(costs)
        if race.is_decided():
            break
    best = race.winner()
    if best is None or not best.search.selected:
        raise BudgetError(nothing_fits(race.tried, scores, budget))
    return _choice(best, race.bound, scores)


@dataclass(frozen=True, eq=False)
class _Entry:
    """A way to run the step, and the search for what is best in it."""

    costs: StepCosts
    search: Search


class _Race:
    """The variants' searches against each other: only what could still win is searched to the end.

    The relaxation of each is solved as it enters, which is quick. The integral programs follow, the
    most promising first, each from the best selection so far.
    """

    def __init__(self, scores: Mapping[str, float], budget: Budget, effort: Effort) -> None:
        self.tried: list[StepCosts] = []
        self.bound = 0.0  # no variant has a selection within the budget that scores more
        self._entries: list[_Entry] = []
        self._scores, self._budget, self._gap = scores, budget, effort.gap
        limit = effort.time_limit_seconds
        self._deadline = None if limit is None else time.monotonic() + limit
        self._roomy: Search | None = None

    def enter(self, costs: StepCosts) -> None:
        """One more variant; it is only tried where not even its forward pass fits."""
        self.tried.append(costs)
        if not violations(costs.cost(0), self._budget):
            self._entries.append(_Entry(costs, self._search(costs, self._budget)))

    def _search(self, costs: StepCosts, budget: Budget) -> Search:
        return Search(*program_of(costs, self._scores, budget), self._deadline)

    def is_decided(self) -> bool:
        """Whether no later variant, with less memory and no less time, can do better.

        None does better than the first one would with all the memory of the world.
        """
        if not self._entries:
            return False
        if self._budget.memory_bytes is None:
            return True
        if self._roomy is None:
            unbounded = replace(self._budget, memory_bytes=None)
            runs = (costs for costs in self.tried if not violations(costs.cost(0), unbounded))
            self._roomy = self._search(next(runs), unbounded)
        latest, roomy = self._entries[-1].search, self._roomy
        if latest.bound >= roomy.bound * (1 - _NEARLY):  # else memory is what holds it back
            latest.optimise(self._gap)
            roomy.start_from(latest.selected)
            roomy.optimise(self._gap, latest.objective)
        best = max(entry.search.objective for entry in self._entries)
        if self._is_over() and best > 0:
            self.bound = roomy.bound
            return True
        return roomy.bound - best <= max(self._gap, EQUAL) * roomy.bound

    def _is_over(self) -> bool:
        return self._deadline is not None and time.monotonic() > self._deadline

    def winner(self) -> _Entry | None:
        """The best, and of equal ones the fastest; None when no variant fits at all."""
        best: _Entry | None = None
        for entry in sorted(self._entries, key=lambda entry: -entry.search.bound):
            if best is not None and entry.costs.graph.candidates == best.costs.graph.candidates:
                entry.search.start_from(best.search.selected)
            entry.search.optimise(self._gap, best.search.objective if best else 0.0)
            if best is None or entry.search.objective > best.search.objective:
                best = entry
        if best is None:
            return None
        least = best.search.objective * (1 - EQUAL)
        equal = [entry for entry in self._entries if entry.search.objective >= least]
        for entry in equal:
            entry.search.break_ties()
        self.bound = max(self.bound, *(entry.search.bound for entry in self._entries))
        return min(equal, key=lambda e: e.costs.cost(e.search.selected).seconds or 0.0)


def _choice(best: _Entry, bound: float, scores: Mapping[str, float]) -> Choice:
    costs, solution = best.costs, best.search.solution()
    candidates = [costs.graph.candidates[i] for i in members(solution.selected)]
    selection = Selection.of(candidates)
    if bound - solution.objective <= EQUAL * bound:
        bound = solution.objective
    certificate = Certificate(
        method="exact",
        objective=solution.objective,
        everything=total_importance(costs, scores),
        bound=bound,
        gap=(bound - solution.objective) / bound if bound > 0 else 0.0,
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
