"""The choice of what to train within a budget.

A first planner: greedy by importance per added byte, then completed in order of importance, each
addition accepted only when the simulated cost stays within every budget. It has no bound; the
exact program takes its place behind the same function.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgetune.errors import BudgetError
from edgetune.nouns.budget import Budget
from edgetune.nouns.cost import StepCost
from edgetune.nouns.optimizer import Optimizer
from edgetune.nouns.plan import Certificate
from edgetune.nouns.profile import DeviceProfile
from edgetune.nouns.selection import Selection
from edgetune.nouns.step_graph import StepGraph
from edgetune.planning.step_cost import cost_of
from edgetune.units import format_bytes, format_joules, format_seconds


@dataclass(frozen=True)
class Choice:
    """What was chosen, at which cost, and how good it is known to be."""

    selection: Selection
    cost: StepCost
    certificate: Certificate


def choose(
    graph: StepGraph,
    scores: Mapping[str, float],
    budget: Budget,
    batch: int,
    optimizer: Optimizer,
    profile: DeviceProfile,
) -> Choice:
    """Choose tensors of high summed importance whose step stays within `budget`.

    scores: importance by parameter name, greater is better; parameters without one are not
    candidates. Raises BudgetError when not even the cheapest single tensor fits: which budget, by
    how much, and the smallest value that would admit something.
    """
    order = {name: index for index, name in enumerate(graph.parameters)}

    def cost_of_names(names: Sequence[str]) -> StepCost:
        ordered = tuple(sorted(names, key=order.__getitem__))
        return cost_of(graph, Selection(ordered), batch, optimizer, profile)

    candidates = [c.name for c in graph.candidates if c.share is None and c.name in scores]
    everything = cost_of_names(candidates)
    require_predictions(everything, budget, profile)
    if not violations(everything, budget):
        return _choice(candidates, everything, scores, order)
    alone = {name: cost_of_names([name]) for name in candidates}
    fitting = [name for name in candidates if not violations(alone[name], budget)]
    if not fitting:
        raise BudgetError(_nothing_fits(alone, budget, profile))
    least = min(cost.peak_bytes for cost in alone.values())
    by_density = sorted(
        fitting, key=lambda n: (-scores[n] / (alone[n].peak_bytes - least + 1024), order[n])
    )
    by_score = sorted(fitting, key=lambda n: (-scores[n], order[n]))
    by_depth = sorted(fitting, key=lambda n: -order[n])
    found = []
    for ranking in (by_density, by_score, by_depth):
        chosen: list[str] = []
        for name in ranking:
            if not violations(cost_of_names([*chosen, name]), budget):
                chosen.append(name)
        found.append(_choice(chosen, cost_of_names(chosen), scores, order))
    return max(found, key=lambda choice: choice.certificate.objective)


def _choice(
    names: Sequence[str], cost: StepCost, scores: Mapping[str, float], order: Mapping[str, int]
) -> Choice:
    selection = Selection(tuple(sorted(names, key=order.__getitem__)))
    total = sum(scores[name] for name in selection.trainable)
    return Choice(selection, cost, Certificate("greedy", total))


def violations(cost: StepCost, budget: Budget) -> list[str]:
    """The budgets that `cost` exceeds, each as a sentence."""
    found = []
    if budget.memory_bytes is not None and cost.peak_bytes > budget.memory_bytes:
        needed, allowed = format_bytes(cost.peak_bytes), format_bytes(budget.memory_bytes)
        found.append(f"the peak memory is {needed}, the budget {allowed}")
    if budget.energy_joules is not None and (cost.joules or 0) > budget.energy_joules:
        needed, allowed = format_joules(cost.joules or 0), format_joules(budget.energy_joules)
        found.append(f"a step takes {needed}, the budget is {allowed}")
    if budget.step_seconds is not None and (cost.seconds or 0) > budget.step_seconds:
        needed, allowed = format_seconds(cost.seconds or 0), format_seconds(budget.step_seconds)
        found.append(f"a step takes {needed}, the budget is {allowed}")
    return found


def require_predictions(cost: StepCost, budget: Budget, profile: DeviceProfile) -> None:
    """Raise BudgetError when `budget` bounds what the profile cannot predict."""
    missing = []
    if budget.energy_joules is not None and cost.joules is None:
        missing.append("an energy budget needs its load power")
    if budget.step_seconds is not None and cost.seconds is None:
        missing.append("a time budget needs its rates and memory bandwidth")
    if missing:
        raise BudgetError(
            f"the profile of {profile.id} cannot predict this: {' and '.join(missing)}; add the "
            "measured numbers to a copy of the profile and pass the file as --device"
        )


def _nothing_fits(alone: Mapping[str, StepCost], budget: Budget, profile: DeviceProfile) -> str:
    """Which budget, by how much, and what would be enough: for the tensor that exceeds it least."""
    name = min(alone, key=lambda n: max(_shares(alone[n], budget)))
    cost = alone[name]
    memory, joules, seconds = (share > 1 for share in _shares(cost, budget))
    enough = [f"--memory {-(-cost.peak_bytes // 2**20)}MiB"] if memory else []
    if joules:
        enough.append(f"--energy-per-step {(cost.joules or 0) * 1.001:.4g}J")
    if seconds:
        enough.append(f"--step-seconds {(cost.seconds or 0) * 1.001:.4g}s")
    return (
        f"nothing can be trained on {profile.id} within this budget: even for {name} alone, "
        f"{'; '.join(violations(cost, budget))}. The smallest that would admit something: "
        f"{' '.join(enough)}"
    )


def _shares(cost: StepCost, budget: Budget) -> tuple[float, float, float]:
    """How much of the memory, energy and time budgets `cost` takes; 1 is all of it."""
    return (
        cost.peak_bytes / budget.memory_bytes if budget.memory_bytes is not None else 0.0,
        (cost.joules or 0) / budget.energy_joules if budget.energy_joules is not None else 0.0,
        (cost.seconds or 0) / budget.step_seconds if budget.step_seconds is not None else 0.0,
    )
