from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from edgetune.errors import BudgetError
from edgetune.nouns.budget import Budget
from edgetune.nouns.cost import StepCost
from edgetune.nouns.optimizer import Optimizer
from edgetune.nouns.profile import DeviceProfile
from edgetune.nouns.selection import Selection
from edgetune.nouns.step_graph import StepGraph
from edgetune.planning.budget_check import violations
from edgetune.planning.choose import Choice, Effort, choose
from edgetune.planning.step_cost import StepCosts, cost_of
from edgetune.units import parse_bytes, parse_joules, parse_seconds
from tests.device.planned_cases import Case, brute_force, difference, random_case
from tests.device.step_graphs import PROFILE, in_micro_batches, profile
from tests.device.test_split import by_hand

SGD = Optimizer("sgd")
READERS = {
    "memory": ("memory_bytes", parse_bytes),
    "energy-per-step": ("energy_joules", parse_joules),
    "energy-per-run": ("run_energy_joules", parse_joules),
    "step-seconds": ("step_seconds", parse_seconds),
}
MEASURES = {"memory_bytes": "peak_bytes", "energy_joules": "joules", "step_seconds": "seconds"}


def chosen(
    graph: StepGraph, scores: dict[str, float], budget: Budget, device: DeviceProfile = PROFILE
) -> Choice:
    return choose([StepCosts(graph, graph.batch, SGD, device)], scores, budget)


def alone(graph: StepGraph, name: str) -> StepCost:
    return cost_of(graph, Selection((name,)), graph.batch, SGD, PROFILE)


def cheapest(graph: StepGraph, names: Any, field: str) -> float:
    return float(min(getattr(alone(graph, name), field) for name in names))


def admitted_by(error: BudgetError) -> dict[str, Any]:
    """The limits that the message says would admit something."""
    found = re.findall(r"--(\S+) (\S+?)(?= |$)", str(error).partition("admit something:")[2])
    assert found
    return {READERS[name][0]: READERS[name][1](text) for name, text in found}


@pytest.mark.parametrize("seed", range(1000, 1120))
def test_the_answer_is_that_of_brute_force(seed: int) -> None:
    assert difference(random_case(seed)) == ""


def solved(cases: range) -> list[Case]:
    found = [random_case(seed) for seed in cases]
    return [case for case in found if brute_force(case).objective is not None]


@pytest.mark.parametrize("case", solved(range(40)))
def test_a_larger_budget_never_gives_a_lower_objective(case: Case) -> None:
    budgets = [case.budget]
    for field in ("memory_bytes", "energy_joules", "step_seconds"):
        bound = getattr(case.budget, field)
        if bound is not None:
            more = int(bound * 1.03) if field == "memory_bytes" else bound * 1.1
            budgets += [replace(case.budget, **{field: value}) for value in (more, None)]
    found = [choose(case.variants, case.scores, budget).certificate.objective for budget in budgets]
    assert all(objective >= found[0] * (1 - 1e-9) for objective in found)


@pytest.mark.parametrize("seed", range(200, 230))
def test_the_smallest_budget_that_an_error_names_admits_something(seed: int) -> None:
    case = random_case(seed)
    least = min(costs.cost(0).peak_bytes for costs in case.variants)
    tight = replace(case.budget, memory_bytes=least - 1, step_seconds=None)
    with pytest.raises(BudgetError) as caught:
        choose(case.variants, dict.fromkeys(case.scores, 1.0), tight)
    assert "cannot even run the model within" in str(caught.value)
    enough = replace(tight, **admitted_by(caught.value))
    choice = choose(case.variants, dict.fromkeys(case.scores, 1.0), enough)
    assert choice.selection.trainable
    assert violations(choice.cost, enough) == []


def test_of_one_budget_the_error_names_the_least_that_any_candidate_needs() -> None:
    graph = by_hand()
    for limit, field in MEASURES.items():
        least = cheapest(graph, ("w1", "w2"), field)
        below = int(least) - 1 if limit == "memory_bytes" else 0.99 * least
        with pytest.raises(BudgetError) as caught:
            chosen(graph, BY_HAND, Budget(**{limit: below}))
        raised = admitted_by(caught.value)
        assert set(raised) == {limit}
        slack = 2**20 if limit == "memory_bytes" else 0.002 * least
        assert least <= raised[limit] <= least + slack


def test_without_a_budget_everything_with_a_score_is_chosen() -> None:
    assert chosen(by_hand(), BY_HAND, Budget()).selection.trainable == ("w1", "w2")
    assert chosen(by_hand(), {"w1": 0.0, "w2": 1.0}, Budget()).selection.trainable == ("w2",)


def test_the_more_important_tensor_is_chosen_where_only_one_fits() -> None:
    graph = by_hand()
    both = cost_of(graph, Selection(("w1", "w2")), 1, SGD, PROFILE)
    budget = Budget(memory_bytes=both.peak_bytes - 1)
    for scores in ({"w1": 1.0, "w2": 2.0}, {"w1": 3.0, "w2": 2.0}):
        best = max(scores, key=scores.__getitem__)
        choice = chosen(graph, scores, budget)
        certificate = choice.certificate
        assert choice.selection.trainable == (best,)
        assert (certificate.method, certificate.gap) == ("exact", 0.0)
        assert certificate.objective == certificate.bound == scores[best]
        assert certificate.everything == sum(scores.values())
        assert certificate.binding == ("memory",)
        assert certificate.prices["memory"] > 0


def test_a_smaller_micro_batch_is_taken_only_where_it_brings_more() -> None:
    graph = by_hand()
    variants = [
        StepCosts(in_micro_batches(graph, size), 1000, SGD, PROFILE) for size in (1000, 100)
    ]
    everything = variants[0].cost(0b11).peak_bytes
    for memory, micro_batch in ((None, 1000), (everything, 1000), (everything - 1, 100)):
        choice = choose(variants, BY_HAND, Budget(memory_bytes=memory))
        assert choice.costs.graph.batch == micro_batch
        assert choice.selection.trainable == ("w1", "w2")


def test_variants_are_drawn_only_as_far_as_they_could_help() -> None:
    def variants() -> Any:
        yield StepCosts(by_hand(), 1, SGD, PROFILE)
        raise AssertionError("nothing can be better than everything")

    assert choose(variants(), BY_HAND, Budget(memory_bytes=2**40)).certificate.gap == 0


@pytest.mark.parametrize("seed", range(300, 320))
def test_with_a_gap_the_answer_is_as_good_as_it_says(seed: int) -> None:
    case = random_case(seed)
    best = brute_force(case).objective
    if best is None:
        return
    effort = Effort(gap=0.2, time_limit_seconds=60)
    certificate = choose(case.variants, case.scores, case.budget, effort).certificate
    assert certificate.bound is not None
    assert certificate.gap is not None
    assert certificate.objective <= best * (1 + 1e-9)
    assert best <= certificate.bound * (1 + 1e-9)
    assert certificate.gap <= 0.2


@pytest.mark.parametrize("seconds", [0.0, 0.01])
@pytest.mark.parametrize("seed", range(320, 345))
def test_out_of_time_the_answer_is_within_the_budget_and_its_bound_holds(
    seed: int, seconds: float
) -> None:
    case = random_case(seed)
    best = brute_force(case).objective
    effort = Effort(time_limit_seconds=seconds)
    if best is None:
        with pytest.raises(BudgetError):
            choose(case.variants, case.scores, case.budget, effort)
        return
    choice = choose(case.variants, case.scores, case.budget, effort)
    certificate = choice.certificate
    assert violations(choice.cost, case.budget) == []
    assert certificate.bound is not None
    assert certificate.objective * (1 - 1e-9) <= best <= certificate.bound * (1 + 1e-9)
    loss = certificate.bound - certificate.objective
    assert certificate.gap == pytest.approx(loss / certificate.bound)


def test_time_that_is_over_draws_no_more_variants_once_something_is_found() -> None:
    graph = by_hand()
    both = cost_of(graph, Selection(("w1", "w2")), 1, SGD, PROFILE)
    budget = Budget(memory_bytes=both.peak_bytes - 1)

    def variants() -> Any:
        yield StepCosts(graph, 1, SGD, PROFILE)
        raise AssertionError("the time is over")

    certificate = choose(variants(), BY_HAND, budget, Effort(0.0, 0.0)).certificate
    assert (certificate.objective, certificate.bound, certificate.gap) == (1.0, 2.0, 0.5)


BY_HAND = {"w1": 1.0, "w2": 1.0}
LEAST_SECONDS = cheapest(by_hand(), BY_HAND, "seconds")


@pytest.mark.parametrize(
    ("budget", "parts"),
    [
        pytest.param(
            Budget(memory_bytes=2**20),
            ["alone, the peak memory is ", "the budget 1.0 MiB", "--memory "],
            id="memory",
        ),
        pytest.param(
            Budget(energy_joules=0.5),
            [f"a step takes {2 * LEAST_SECONDS:.2f} J, the budget is 500.0 mJ", "--energy-per-st"],
            id="energy",
        ),
        pytest.param(
            Budget(step_seconds=0.25),
            [f"a step takes {LEAST_SECONDS:.2f} s, the budget is 250.0 ms", "--step-seconds "],
            id="time",
        ),
        pytest.param(
            Budget(2**20, 0.5, 0.25),
            ["the peak memory is", "500.0 mJ", "250.0 ms", "--memory", "--energy", "--step-secon"],
            id="all",
        ),
    ],
)
def test_an_error_names_the_budget_the_excess_and_what_would_do(
    budget: Budget, parts: list[str]
) -> None:
    with pytest.raises(BudgetError) as caught:
        chosen(by_hand(), BY_HAND, budget)
    message = str(caught.value)
    assert "nothing can be trained on made-up within this budget: even for w2 alone, " in message
    assert "The smallest that would admit something: --" in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("changes", "budget", "part"),
    [
        pytest.param(
            {"load_watts": None},
            Budget(energy_joules=9),
            "an energy budget needs its load power, rates and memory bandwidth",
            id="power",
        ),
        pytest.param(
            {"flops_per_second": {}},
            Budget(step_seconds=9),
            "a time budget needs its rates and memory bandwidth",
            id="rates",
        ),
        pytest.param(
            {"bandwidth_bytes_per_second": None},
            Budget(energy_joules=9, step_seconds=9),
            "memory bandwidth and a time budget needs its rates",
            id="bandwidth",
        ),
    ],
)
def test_a_budget_that_cannot_be_predicted_is_refused(
    changes: dict[str, Any], budget: Budget, part: str
) -> None:
    with pytest.raises(BudgetError) as caught:
        chosen(by_hand(), BY_HAND, budget, profile(**changes))
    message = str(caught.value)
    assert message.startswith("the profile of made-up cannot predict this: ")
    assert part in message
    assert "pass the file as --device" in message


def test_what_is_unknown_does_not_matter_where_no_budget_needs_it() -> None:
    unknown = profile(load_watts=None, flops_per_second={}, bandwidth_bytes_per_second=None)
    choice = chosen(by_hand(), BY_HAND, Budget(memory_bytes=2**30), unknown)
    assert choice.selection.trainable == ("w1", "w2")
    assert (choice.cost.seconds, choice.cost.joules) == (None, None)
