"""Planning again from a bundle's own cost table, with other scores or within another budget."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence

from edgetune.nouns.budget import Budget
from edgetune.nouns.plan import UpdatePlan
from edgetune.nouns.profile import DeviceProfile
from edgetune.nouns.step_graph import StepGraph
from edgetune.planning.choose import Effort, choose
from edgetune.planning.device_budget import within_device
from edgetune.planning.step_cost import StepCosts


def replan(
    graph: StepGraph,
    plan: UpdatePlan,
    scores: Mapping[str, float],
    criterion: str,
    budget: Budget,
    profile: DeviceProfile,
    effort: Effort,
) -> UpdatePlan:
    """The best plan for the dense step `graph` that the bundle of `plan` was cut from.

    scores: importance by candidate name, measured by `criterion`. Micro-batch and recomputation
    stay those of `plan`, for another way to run the step is another graph. Raises BudgetError when
    nothing fits.
    """
    budget = within_device(budget, profile)
    costs = StepCosts(graph, plan.batch, plan.optimizer, profile, plan.precision)
    choice = choose([costs], scores, budget, effort)
    chosen = graph.selected(choice.selection)
    return UpdatePlan(
        device=profile.id,
        selection=choice.selection,
        batch=plan.batch,
        micro_batch=plan.micro_batch,
        recomputes=plan.recomputes,
        precision=plan.precision,
        optimizer=plan.optimizer,
        budget=budget,
        cost=choice.cost,
        certificate=choice.certificate,
        parameter_count=plan.parameter_count,
        trainable_count=sum(graph.tensor_bytes[c.gradient] // 4 for c in chosen),
        criterion=criterion,
        scores={c.name: scores[c.name] for c in chosen},
    )


def scores_of_candidates(graph: StepGraph, given: Mapping[str, float]) -> dict[str, float]:
    """A score for each candidate that is in `given` by its own name or its parameter's.

    A share without a score of its own has that of its parameter times the part that it trains.
    """
    found = {}
    for candidate in graph.candidates:
        if candidate.name in given:
            found[candidate.name] = given[candidate.name]
        elif candidate.parameter in given:
            sizes = graph.tensor_bytes
            part = sizes[candidate.gradient] / sizes[candidate.parameter]
            found[candidate.name] = part * given[candidate.parameter]
    return found


def scores_of_what_is_there(
    graph: StepGraph, plan: UpdatePlan, scores: Mapping[str, float], given: Mapping[str, float]
) -> dict[str, float]:
    """Those of `scores` that a bundle of `plan` can go on with: no share in a tensor's place.

    given: the names that somebody asked for; one of these is kept also where it is not trained.
    """
    trained = {candidate.name for candidate in graph.selected(plan.selection)}
    return {name: score for name, score in scores.items() if name in trained or name in given}


def train_patterns(names: Sequence[str], graph: StepGraph) -> list[str]:
    """Few patterns for --train that select the candidates `names`, and no others of `graph`."""
    parameters = [c.name for c in graph.candidates if c.share is None]
    patterns: list[str] = []
    covered: set[str] = set()
    for name in names:
        if name not in covered:
            pattern = _pattern(name, set(names), parameters)
            patterns.append(pattern)
            covered.update(n for n in names if fnmatch.fnmatchcase(n, pattern))
    return patterns


def _pattern(name: str, wanted: set[str], parameters: Sequence[str]) -> str:
    """The widest pattern of the form `part.*` that matches `name` and only what is wanted."""
    if ":" in name:
        return name
    parts = name.split(".")
    for depth in range(len(parts)):
        pattern = ".".join([*parts[:depth], "*"])
        matched = [p for p in parameters if fnmatch.fnmatchcase(p, pattern)]
        if len(matched) > 1 and wanted.issuperset(matched):
            return pattern
    return name
