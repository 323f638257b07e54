"""Costs against budgets: what is exceeded, by how much, and what would be enough."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgetune.errors import BudgetError
from edgetune.nouns.budget import Budget
from edgetune.nouns.cost import StepCost
from edgetune.nouns.profile import DeviceProfile
from edgetune.planning.step_cost import StepCosts
from edgetune.units import format_bytes, format_joules, format_seconds

_MIB = 2**20


@dataclass(frozen=True)
class _Use:
    """What a step takes of one budget. share: 1 is all of it. enough: the option that admits it."""

    share: float
    sentence: str
    enough: str


def violations(cost: StepCost, budget: Budget) -> list[str]:
    """The budgets that `cost` exceeds, each as a sentence."""
    return [use.sentence for use in _uses(cost, budget) if use.share > 1]


def require_predictions(cost: StepCost, budget: Budget, profile: DeviceProfile) -> None:
    """Raise BudgetError when `budget` bounds what the profile cannot predict."""
    missing = []
    energy = (budget.energy_joules, budget.run_energy_joules)
    if any(bound is not None for bound in energy) and cost.joules is None:
        missing.append("an energy budget needs its load power, rates and memory bandwidth")
    if budget.step_seconds is not None and cost.seconds is None:
        missing.append("a time budget needs its rates and memory bandwidth")
    if missing:
        raise BudgetError(
            f"the profile of {profile.id} cannot predict this: {' and '.join(missing)}; add the "
            "measured numbers to a copy of the profile and pass the file as --device"
        )


def nothing_fits(variants: Sequence[StepCosts], scores: Mapping[str, float], budget: Budget) -> str:
    """Why no candidate fits: which budget, by how much, and the smallest that would admit one.

    Costs grow with the selection, so the smallest selection is a single candidate.
    """
    inference = min((costs.cost(0) for costs in variants), key=lambda c: c.peak_bytes)
    device = variants[0].profile.id
    lines = []
    if budget.memory_bytes is not None and inference.peak_bytes > budget.memory_bytes:
        lines.append(
            f"{device} cannot even run the model within {format_bytes(budget.memory_bytes)}: the "
            f"forward pass alone takes {format_bytes(inference.peak_bytes)}"
        )
    alone = [
        (candidate.name, costs.cost(1 << index))
        for costs in variants
        for index, candidate in enumerate(costs.graph.candidates)
        if scores.get(candidate.name, 0.0) > 0
    ]
    if not alone:
        return "nothing can be selected: no candidate has a score above zero"
    name, cost = min(alone, key=lambda item: max(use.share for use in _uses(item[1], budget)))
    enough = [use.enough for use in _uses(cost, budget) if use.share > 1]
    lines.append(
        f"nothing can be trained on {device} within this budget: even for {name} alone, "
        f"{'; '.join(violations(cost, budget))}"
    )
    return f"{'. '.join(lines)}. The smallest that would admit something: {' '.join(enough)}"


def _uses(cost: StepCost, budget: Budget) -> list[_Use]:
    return list(_each_use(cost, budget)) or [_Use(0.0, "", "")]


def _each_use(cost: StepCost, budget: Budget) -> Iterable[_Use]:
    if budget.memory_bytes is not None:
        needed, allowed = format_bytes(cost.peak_bytes), format_bytes(budget.memory_bytes)
        yield _Use(
            cost.peak_bytes / budget.memory_bytes,
            f"the peak memory is {needed}, the budget {allowed}",
            f"--memory {-(-cost.peak_bytes // _MIB)}MiB",
        )
    joules, seconds = cost.joules or 0.0, cost.seconds or 0.0
    if budget.energy_joules is not None:
        yield _Use(
            joules / budget.energy_joules,
            f"a step takes {format_joules(joules)}, the budget is "
            f"{format_joules(budget.energy_joules)}",
            f"--energy-per-step {joules * 1.001:.4g}J",
        )
    if budget.run_energy_joules is not None and budget.run_steps is not None:
        run = joules * budget.run_steps
        yield _Use(
            run / budget.run_energy_joules,
            f"{budget.run_steps:,} steps take {format_joules(run)}, the budget is "
            f"{format_joules(budget.run_energy_joules)}",
            f"--energy-per-run {run * 1.001:.4g}J",
        )
    if budget.step_seconds is not None:
        yield _Use(
            seconds / budget.step_seconds,
            f"a step takes {format_seconds(seconds)}, the budget is "
            f"{format_seconds(budget.step_seconds)}",
            f"--step-seconds {seconds * 1.001:.4g}s",
        )
