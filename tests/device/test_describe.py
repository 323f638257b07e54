"""A plan in words and as JSON."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edgetune.cli import describe
from edgetune.cli.describe import candidate_names, describe_plan, few, plan_json
from edgetune.nouns.budget import Budget
from edgetune.nouns.candidate import Share
from edgetune.nouns.cost import StepCost
from edgetune.nouns.optimizer import Optimizer
from edgetune.nouns.plan import Certificate, UpdatePlan
from edgetune.nouns.selection import Selection
from edgetune.planning import limits

MIB = 2**20
PLAN = UpdatePlan(
    device="made-up",
    selection=Selection(
        ("conv.weight", "head.weight", "head.bias"), {"conv.weight": Share(1, (0, 2))}
    ),
    batch=8,
    micro_batch=2,
    optimizer=Optimizer("adamw"),
    budget=Budget(memory_bytes=150 * MIB),
    cost=StepCost(140 * MIB, 80 * MIB, 20 * MIB, 10 * MIB, 30 * MIB, "x", 1.0, 1, 0.5, 2.0),
    certificate=Certificate(
        "exact", 40.0, 50.0, 40.0, 0.0, ("memory",), {"memory": 1 / MIB, "time": 0.0}
    ),
    parameter_count=2000,
    trainable_count=500,
    recomputes=True,
    criterion="fisher",
    scores={"conv.weight:in/4": 10.0, "head.weight": 12.0, "head.bias": 18.0},
)
BY_HAND = replace(PLAN, certificate=Certificate("patterns", 0.0), scores={}, criterion="")


def certified(**changes: Any) -> UpdatePlan:
    return replace(PLAN, certificate=replace(PLAN.certificate, **changes))


def line(plan: UpdatePlan, label: str) -> str:
    lines = [text for text in describe_plan(plan).splitlines() if text[:13].strip() == label]
    assert len(lines) <= 1
    return lines[0][13:] if lines else ""


def test_a_plan_is_a_few_lines() -> None:
    assert describe_plan(PLAN).splitlines() == [
        "device       made-up",
        "trainable    500 of 2,000 parameters (25.0 %) in 3 tensors",
        "             2 whole: head.bias, head.weight",
        "             1 share in/4: conv.weight",
        "batch        8 in micro-batches of 2, adamw; light activations are made again in the "
        "backward",
        "peak memory  140.0 MiB predicted of 150.0 MiB allowed: process 80.0 MiB, weights "
        "20.0 MiB, optimizer 10.0 MiB, activations 30.0 MiB",
        "step         at least 500.0 ms, 2.00 J predicted",
        "importance   80.0 % of all there is, by fisher",
        "certificate  optimal: no selection within this budget has more importance (gap 0)",
        "held back by memory: 16 MiB more would buy about 20.0 % more importance",
    ]


@pytest.mark.parametrize(
    ("plan", "label", "expected"),
    [
        pytest.param(replace(PLAN, recomputes=False), "batch", "8 in micro-batches of 2, adamw"),
        pytest.param(
            replace(PLAN, budget=Budget(step_seconds=0.6, energy_joules=3.0)),
            "step",
            "at least 500.0 ms of 600.0 ms allowed, 2.00 J of 3.00 J allowed predicted",
            id="allowed",
        ),
        pytest.param(
            replace(PLAN, cost=replace(PLAN.cost, seconds=None, joules=None)),
            "step",
            "unknown time, unknown energy predicted",
            id="unknown",
        ),
        pytest.param(
            replace(PLAN, budget=Budget(run_energy_joules=5000, run_steps=1000)),
            "run",
            "1,000 steps: at least 8.3 min, 2.00 kJ of 5.00 kJ allowed predicted",
            id="run",
        ),
        pytest.param(PLAN, "run", "", id="no-run"),
        pytest.param(
            certified(bound=50.0, gap=0.2),
            "certificate",
            "within 20.00 % of the best possible (gap 0.2)",
            id="gap",
        ),
        pytest.param(
            certified(gap=1e-12),
            "certificate",
            "optimal: no selection within this budget has more importance (gap 0)",
            id="rounding-is-no-gap",
        ),
        pytest.param(BY_HAND, "certificate", "none: you chose by patterns", id="by-hand"),
        pytest.param(BY_HAND, "importance", "", id="not-measured"),
        pytest.param(
            replace(PLAN, criterion="user"),
            "importance",
            "80.0 % of all there is, by your scores",
            id="user",
        ),
        pytest.param(certified(binding=()), "held back by", "", id="nothing-binds"),
        pytest.param(certified(prices={}), "held back by", "memory", id="no-price"),
        pytest.param(
            replace(
                certified(binding=("energy per step", "time"), prices={"energy per step": 2.5}),
                budget=Budget(energy_joules=4.0, step_seconds=1.0),
            ),
            "held back by",
            "energy per step: 10 % more (400.0 mJ) would buy about 2.0 % more importance; time",
            id="energy",
        ),
        pytest.param(
            replace(
                certified(binding=("energy per run",), prices={"energy per run": 0.05}),
                budget=Budget(run_energy_joules=1000.0, run_steps=10),
            ),
            "held back by",
            "energy per run: 10 % more (100.00 J) would buy about 10.0 % more importance",
            id="energy-of-a-run",
        ),
        pytest.param(
            replace(
                certified(binding=("time",), prices={"time": 1e9}),
                budget=Budget(step_seconds=0.5),
            ),
            "held back by",
            "time: 10 % more (50.0 ms) would buy about 20.0 % more importance",
            id="no-more-than-is-left",
        ),
    ],
)
def test_each_line_says_what_holds(plan: UpdatePlan, label: str, expected: str) -> None:
    assert line(plan, label) == expected


def test_a_plan_by_patterns_lists_its_tensors_in_the_models_order() -> None:
    plan = replace(BY_HAND, selection=Selection(("b.weight", "a.weight")))
    assert "             2 whole: b.weight, a.weight\n" in describe_plan(plan)


def test_the_budgets_have_the_planners_names() -> None:
    for name in ("MEMORY", "STEP_ENERGY", "RUN_ENERGY", "TIME"):
        assert getattr(describe, name) == getattr(limits, name)


def test_long_lists_of_names_are_cut() -> None:
    names = [f"encoder.layer.{i}.attention.output.weight" for i in range(5)]  # of 37 characters
    assert few(names) == f"{names[0]}, {names[1]} and 3 more"
    assert few([*names[:1], "x" * 50]) == f"{names[0]} and 1 more"
    assert few(["a", "b", "c"]) == "a, b, c"
    assert few(["x" * 200]) == "x" * 200


def test_shares_have_the_names_by_which_they_can_be_asked_for() -> None:
    assert candidate_names(PLAN) == ["conv.weight:in/4", "head.weight", "head.bias"]
    assert candidate_names(BY_HAND)[0] == "conv.weight:2 slices"


def test_json_has_the_certificate_on_top() -> None:
    plain = plan_json(PLAN)
    assert (plain["objective"], plain["bound"], plain["gap"]) == (40.0, 40.0, 0.0)
    assert plain["binding"] == ["memory"]
    assert plain["prices"] == {"memory": 1 / MIB, "time": 0.0}
    assert plain["certificate"]["everything"] == 50.0
    assert plain["cost"]["peak_bytes"] == 140 * MIB


def test_json_of_what_the_user_chose_has_no_bound() -> None:
    plain = plan_json(BY_HAND)
    assert (plain["objective"], plain["bound"], plain["gap"]) == (None, None, None)
    assert (plain["binding"], plain["prices"]) == ([], {})
