"""Small planning problems with their brute force: step graphs, scores and budgets of all kinds.

`python -m tests.device.planned_cases --count 1000 --seed 1` compares the planner with brute force.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edgetune.errors import BudgetError
from edgetune.nouns.budget import Budget
from edgetune.nouns.optimizer import KINDS, Optimizer
from edgetune.nouns.step_graph import StepGraph
from edgetune.planning.budget_check import violations
from edgetune.planning.choose import choose
from edgetune.planning.step_cost import StepCosts
from tests.device.random_graphs import random_step_graph
from tests.device.step_graphs import PROFILE, in_micro_batches

MOST_CANDIDATES = 16
BATCH = 4
KINDS_OF_BUDGET = {
    "memory_bytes": "peak_bytes",
    "energy_joules": "joules",
    "step_seconds": "seconds",
    "run_energy_joules": "joules",
}
RUN_STEPS = 10


@dataclass(frozen=True, eq=False)
class Case:
    """A step in several micro-batches, scores by candidate name, and a budget."""

    variants: tuple[StepCosts, ...]
    scores: Mapping[str, float]
    budget: Budget


@dataclass(frozen=True)
class Best:
    """The optimum by brute force: None when not even one candidate fits."""

    objective: float | None
    seconds: float


def random_case(seed: int) -> Case:
    """The case of that seed: up to 16 candidates, 1 to 3 micro-batches, any budgets."""
    generator = random.Random(seed)
    graph = random_step_graph(generator, MOST_CANDIDATES)
    optimizer = Optimizer(generator.choice(KINDS))
    sizes = generator.choice([(4,), (4, 2), (4, 2, 1), (1,)])
    variants = tuple(
        StepCosts(in_micro_batches(graph, size), BATCH, optimizer, PROFILE) for size in sizes
    )
    # Few different scores make ties, which energy then breaks.
    levels = generator.choice([3, 20, 10**6])
    scores = {c.name: float(generator.randint(0, levels)) for c in graph.candidates}
    return Case(variants, scores, _random_budget(generator, variants))


def _random_budget(generator: random.Random, variants: tuple[StepCosts, ...]) -> Budget:
    """Bounds between what the cheapest costs and what everything does, or a little outside."""
    graph = variants[0].graph
    every = sum(1 << i for i, c in enumerate(graph.candidates) if c.share is None)
    least = [costs.cost(0) for costs in variants]
    most = [costs.cost(every) for costs in variants]
    limits: dict[str, float] = {}
    for kind, measure in KINDS_OF_BUDGET.items():
        if generator.random() < 0.5:
            low = min(float(getattr(cost, measure)) for cost in least)
            high = max(float(getattr(cost, measure)) for cost in most)
            limits[kind] = low + generator.uniform(-0.02, 1.05) * (high - low)
    memory = limits.get("memory_bytes")
    run = limits.get("run_energy_joules")
    return Budget(
        memory_bytes=None if memory is None else int(memory),
        energy_joules=limits.get("energy_joules"),
        step_seconds=limits.get("step_seconds"),
        run_energy_joules=None if run is None else run * RUN_STEPS,
        run_steps=None if run is None else RUN_STEPS,
    )


def brute_force(case: Case) -> Best:
    """Every selection of every variant, each costed as the plan would be."""
    best, seconds = None, 0.0
    for costs in case.variants:
        for selected in _selections(costs.graph):
            score = _score(case, costs.graph, selected)
            if score > 0 and (best is None or score >= best):
                cost = costs.cost(selected)
                if not violations(cost, case.budget):
                    assert cost.seconds is not None
                    if best is None or score > best or cost.seconds < seconds:
                        best, seconds = score, cost.seconds
    return Best(best, seconds)


def _score(case: Case, graph: StepGraph, selected: int) -> float:
    return sum(case.scores[c.name] for i, c in enumerate(graph.candidates) if selected >> i & 1)


def _selections(graph: StepGraph) -> Iterator[int]:
    """Bitmasks with at most one candidate of each parameter."""
    groups: dict[str, list[int]] = {}
    for i, candidate in enumerate(graph.candidates):
        groups.setdefault(candidate.parameter, [0]).append(1 << i)
    found = [0]
    for group in groups.values():
        found = [selected | bit for selected in found for bit in group]
    return iter(found[1:])


def difference(case: Case) -> str:
    """What is wrong with the planner's answer, "" when it is the optimum."""
    best = brute_force(case)
    try:
        choice = choose(case.variants, case.scores, case.budget)
    except BudgetError:
        return "" if best.objective is None else f"nothing found, the optimum is {best.objective}"
    if best.objective is None:
        return f"found {choice.certificate.objective} where nothing fits"
    found, certificate = choice.cost, choice.certificate
    if violations(found, case.budget):
        return f"exceeds its budget: {violations(found, case.budget)}"
    if abs(certificate.objective - best.objective) > 1e-9 * best.objective:
        return f"found {certificate.objective}, the optimum is {best.objective}"
    if certificate.gap or certificate.bound != certificate.objective:
        return f"found the optimum, but says gap {certificate.gap}, bound {certificate.bound}"
    if (found.seconds or 0) > best.seconds * (1 + 1e-9):
        return f"takes {found.seconds} s, an equal one takes {best.seconds} s"
    return ""


def main() -> None:
    """Compare, and print how many agree and what differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    wrong = 0
    for seed in range(options.seed, options.seed + options.count):
        problem = difference(random_case(seed))
        if problem:
            wrong += 1
            print(f"seed {seed}: {problem}")
    print(f"planner = brute force on {options.count - wrong} of {options.count} instances")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
