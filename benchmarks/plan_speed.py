"""How long the exact plan takes: optimal, with all shares as candidates, on whole models.

    .venv/bin/python benchmarks/plan_speed.py [--models mobilenet_v2 ...] [--scores fisher random]

For each model of workloads/planned.py, in batches of 8 on a Raspberry Pi 4B: memory budgets between
the forward pass and training everything, time, both, and energy, each over all micro-batches with
and without recomputation. Scores are the Fisher information of the sample batch, and random ones.
Printed: seconds of choosing (elapsed, and of the processor: on a busy machine only these compare),
how many ways to run the step it looked at, and the certificate; tracing and importance come apart.
Exit code 1 when a plan is not proven optimal, or takes over 10 s of the processor.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from edgetune_exporters.factory import load_example
from edgetune_exporters.make_plan import Variants
from edgetune_exporters.request_importance import request_importance
from report import table
from results import write_results

from edgetune.files.device_profiles import load_profile
from edgetune.nouns.budget import Budget
from edgetune.nouns.cost import StepCost
from edgetune.nouns.plan_request import PlanRequest
from edgetune.planning.choose import choose
from edgetune.planning.step_cost import StepCosts

ROOT = Path(__file__).resolve().parent.parent
MODELS = ("mobilenet_v2", "resnet50", "minilm_l6", "vit_small")
SCORES = ("fisher", "random")
DEVICE = "raspberry-pi-4b-4gb"  # one whose energy is predicted
BATCH = 8
MOST_SECONDS = 10.0
# Shares of the way from the forward pass to training everything: memory, time, energy.
BUDGETS: Mapping[str, tuple[float | None, float | None, float | None]] = {
    "memory 10 %": (0.1, None, None),
    "memory 30 %": (0.3, None, None),
    "memory 60 %": (0.6, None, None),
    "memory 30 %, time 50 %": (0.3, 0.5, None),
    "time 30 %": (None, 0.3, None),
    "energy 50 %": (None, None, 0.5),
}


@dataclass(frozen=True)
class Solved:
    """One plan. variants: the ways to run the step that were looked at."""

    model: str
    scores: str
    budget: str
    candidates: int
    variants: int
    selected: int
    objective_share: float
    gap: float | None
    elapsed_seconds: float
    processor_seconds: float


def solved(model: str, kinds: list[str]) -> Iterator[Solved]:
    """Trace `model` once, and plan for every budget and kind of scores."""
    example = load_example(f"{ROOT}/benchmarks/workloads/planned.py:{model}")
    request = PlanRequest(load_profile(DEVICE), batch=BATCH)
    began = time.perf_counter()
    importance = request_importance(example, request)
    measured = time.perf_counter()
    traced = list(Variants(example, request, importance))
    print(
        f"{model}: importance {measured - began:.1f} s, tracing {len(traced)} ways to run the step "
        f"{time.perf_counter() - measured:.1f} s",
        flush=True,
    )
    candidates = traced[0].graph.candidates
    scores = {"fisher": importance.of(candidates), "random": _random_scores(traced[0])}
    for kind in kinds:
        for name in BUDGETS:
            yield _solved(model, kind, name, traced, scores[kind])


def _solved(
    model: str, kind: str, name: str, traced: list[StepCosts], scores: Mapping[str, float]
) -> Solved:
    drawn = 0

    def variants() -> Iterator[StepCosts]:
        nonlocal drawn
        for costs in traced:
            drawn += 1
            yield costs

    budget = _budget(traced[0], *BUDGETS[name])
    began, used = time.perf_counter(), time.process_time()
    choice = choose(variants(), scores, budget)
    elapsed, processor = time.perf_counter() - began, time.process_time() - used
    certificate = choice.certificate
    return Solved(
        model,
        kind,
        name,
        len(traced[0].graph.candidates),
        drawn,
        len(choice.selection.trainable),
        certificate.objective / certificate.everything,
        certificate.gap,
        elapsed,
        processor,
    )


def _budget(
    costs: StepCosts, memory: float | None, seconds: float | None, energy: float | None
) -> Budget:
    everything = sum(1 << i for i, c in enumerate(costs.graph.candidates) if c.share is None)
    least, most = costs.cost(0), costs.cost(everything)

    def between(share: float | None, measure: Callable[[StepCost], float]) -> float | None:
        low = measure(least)
        return None if share is None else low + share * (measure(most) - low)

    bound = between(memory, lambda cost: cost.peak_bytes)
    return Budget(
        memory_bytes=None if bound is None else int(bound),
        energy_joules=between(energy, lambda cost: cost.joules or 0.0),
        step_seconds=between(seconds, lambda cost: cost.seconds or 0.0),
    )


def _random_scores(costs: StepCosts) -> dict[str, float]:
    """Log-normal by parameter; a share has less of it, but more than its part of the slices."""
    draw = random.Random(0)
    sizes = costs.graph.tensor_bytes
    of_parameter: dict[str, float] = {}
    found = {}
    for c in costs.graph.candidates:
        whole = of_parameter.setdefault(c.parameter, draw.lognormvariate(0, 1))
        found[c.name] = whole * (sizes[c.gradient] / sizes[c.parameter]) ** draw.uniform(0.3, 1)
    return found


def main() -> int:
    """Print the table and the verdict."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--scores", nargs="+", default=list(SCORES), choices=SCORES)
    options = parser.parse_args()
    plans = [plan for model in options.models for plan in solved(model, options.scores)]
    heading = ("model", "scores", "budget", "candidates", "ways", "selected", "importance", "gap",
               "elapsed s", "processor s")  # fmt: skip
    lines = [
        (
            plan.model,
            plan.scores,
            plan.budget,
            str(plan.candidates),
            str(plan.variants),
            str(plan.selected),
            f"{plan.objective_share:.1%}",
            f"{plan.gap:.1e}",
            f"{plan.elapsed_seconds:.2f}",
            f"{plan.processor_seconds:.2f}",
        )
        for plan in plans
    ]
    print(table([heading, *lines]))
    slow = [plan for plan in plans if plan.processor_seconds > MOST_SECONDS]
    open_ = [plan for plan in plans if plan.gap != 0]
    print(
        f"{len(plans)} plans: {len(plans) - len(open_)} proven optimal; at most "
        f"{max(plan.processor_seconds for plan in plans):.2f} s of the processor, "
        f"{max(plan.elapsed_seconds for plan in plans):.2f} s elapsed"
    )
    write_results("plan_speed", [asdict(plan) for plan in plans])
    return int(bool(slow or open_))


if __name__ == "__main__":
    sys.exit(main())
