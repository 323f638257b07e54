"""What each more byte, or joule, buys: the Pareto set of plans, and selections made by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from edgetune.errors import BudgetError
from edgetune.nouns.budget import Budget
from edgetune.nouns.cost import StepCost
from edgetune.nouns.frontier import Axis, FrontierPoint
from edgetune.nouns.selection import Selection
from edgetune.planning.choose import Choice, Effort, choose, total_importance
from edgetune.planning.named_selections import named_selections
from edgetune.planning.program import members
from edgetune.planning.step_cost import StepCosts

DEFAULT_POINTS = 12
_ROUNDING = 1e-9


def frontier(
    variants: Sequence[StepCosts],
    scores: Mapping[str, float],
    axis: Axis,
    budget: Budget,
    effort: Effort,
    points: int = DEFAULT_POINTS,
) -> tuple[FrontierPoint, ...]:
    """The best plans for budgets spread over `axis`, other budgets kept, dominated ones dropped.

    Cheapest first, from the forward pass alone to what training everything takes; then the
    selections made by hand, each run in the way that takes least of `axis`. Raises BudgetError when
    nothing can be trained at all.
    """
    by_hand = [
        _by_hand(name, Selection(chosen), variants, scores, axis)
        for name, chosen in named_selections(_whole(variants[0])).items()
    ]
    least = min(_amount(costs.cost(0), axis) for costs in variants)
    most = min(_amount(costs.cost(_everything(costs, scores)), axis) for costs in variants)
    spread = {least + (most - least) * step / points for step in range(1, points)} | {most}
    best = {}
    for bound in sorted(spread | {point.amount for point in by_hand}):
        within = _bounded(budget, axis, bound)
        with suppress(BudgetError):  # below what the cheapest candidate takes
            best[bound] = _point(choose(variants, scores, within, effort), axis)
    if not best:
        choose(variants, scores, _bounded(budget, axis, None), effort)  # says what forbids it
    compared = [replace(p, planned=_importance(best.get(p.amount))) for p in by_hand]
    return (*_undominated(list(best.values())), *compared)


def _whole(costs: StepCosts) -> list[str]:
    return [c.name for c in costs.graph.candidates if c.share is None]


def _everything(costs: StepCosts, scores: Mapping[str, float]) -> int:
    """The best candidate of every parameter that has one with a score, as a bitmask."""
    candidates = costs.graph.candidates
    best = (
        max(members(group), key=lambda place: scores.get(candidates[place].name, 0.0))
        for group in costs.needs.of_parameter.values()
    )
    return sum(1 << place for place in best if scores.get(candidates[place].name, 0.0) > 0)


def _by_hand(
    name: str,
    selection: Selection,
    variants: Sequence[StepCosts],
    scores: Mapping[str, float],
    axis: Axis,
) -> FrontierPoint:
    costed = [(costs.cost(costs.bits_of(selection)), costs) for costs in variants]
    cost, costs = min(costed, key=lambda item: (_amount(item[0], axis), item[0].seconds or 0.0))
    importance = math.fsum(max(scores.get(n, 0.0), 0.0) for n in selection.trainable)
    return FrontierPoint(
        name,
        _amount(cost, axis),
        importance / (total_importance(costs, scores) or 1.0),
        len(selection.trainable),
        costs.graph.batch,
        cost,
        gap=None,
    )


def _importance(point: FrontierPoint | None) -> float | None:
    return None if point is None else point.importance


def _point(choice: Choice, axis: Axis) -> FrontierPoint:
    certificate = choice.certificate
    return FrontierPoint(
        "",
        _amount(choice.cost, axis),
        certificate.objective / (certificate.everything or 1.0),
        len(choice.selection.trainable),
        choice.costs.graph.batch,
        choice.cost,
        certificate.gap,
    )


def _undominated(points: Sequence[FrontierPoint]) -> list[FrontierPoint]:
    """The Pareto set, cheapest first: each costs more and brings more than the one before."""
    kept: list[FrontierPoint] = []
    for point in sorted(points, key=lambda p: (p.amount, -p.importance)):
        if not kept or point.importance > kept[-1].importance * (1 + _ROUNDING):
            kept.append(point)
    return kept


def _amount(cost: StepCost, axis: Axis) -> float:
    if axis == "memory":
        return cost.peak_bytes
    if cost.joules is None:
        raise BudgetError(
            "the profile cannot predict energy: it needs its load power, rates and memory bandwidth"
        )
    return cost.joules


def _bounded(budget: Budget, axis: Axis, bound: float | None) -> Budget:
    """`budget` with another bound on `axis`, None for no bound."""
    if axis == "memory":
        return replace(budget, memory_bytes=None if bound is None else int(bound))
    return replace(budget, energy_joules=None if bound is None else bound * (1 + _ROUNDING))
