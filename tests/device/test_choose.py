from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetune.errors import BudgetError
from edgetune.nouns.budget import Budget
from edgetune.nouns.cost import StepCost
from edgetune.nouns.optimizer import Optimizer
from edgetune.nouns.profile import DeviceProfile
from edgetune.nouns.selection import Selection
from edgetune.nouns.step_graph import StepGraph
from edgetune.planning.choose import Choice, choose, violations
from edgetune.planning.step_cost import cost_of
from edgetune.units import parse_bytes, parse_joules, parse_seconds
from tests.device.step_graphs import PROFILE, fixed, profile, step_graphs
from tests.device.test_split import by_hand

SGD = Optimizer("sgd")
READERS = {
    "memory": ("memory_bytes", parse_bytes),
    "energy-per-step": ("energy_joules", parse_joules),
    "step-seconds": ("step_seconds", parse_seconds),
}
FIELDS = {"memory_bytes": "peak_bytes", "energy_joules": "joules", "step_seconds": "seconds"}


def chosen(
    graph: StepGraph, scores: dict[str, float], budget: Budget, device: DeviceProfile = PROFILE
) -> Choice:
    return choose(graph, scores, budget, graph.batch, SGD, device)


def alone(graph: StepGraph, name: str) -> StepCost:
    return cost_of(graph, Selection((name,)), graph.batch, SGD, PROFILE)


def cheapest(graph: StepGraph, names: Any, field: str) -> float:
    return float(min(getattr(alone(graph, name), field) for name in names))


def admitted_by(error: BudgetError) -> dict[str, Any]:
    """The limits that the message says would admit something."""
    found = re.findall(r"--(\S+) (\S+?)(?= |$)", str(error).partition("admit something:")[2])
    assert found
    return {READERS[name][0]: READERS[name][1](text) for name, text in found}


@st.composite
def requests(draw: st.DrawFn) -> tuple[StepGraph, dict[str, float], Budget]:
    """A graph, scores of some parameters, and budgets around what the cheapest and all cost."""
    graph = draw(step_graphs(most_layers=4))
    scored = draw(st.sets(st.sampled_from(graph.parameters), min_size=1))
    scores = {name: float(draw(st.integers(0, 20))) for name in graph.parameters if name in scored}
    everything = tuple(name for name in graph.parameters if name in scored)
    most = cost_of(graph, Selection(everything), graph.batch, SGD, PROFILE)
    limits: dict[str, Any] = {}
    for limit, field in FIELDS.items():
        if draw(st.booleans()):
            least = cheapest(graph, scores, field)
            value = least + draw(st.floats(-0.2, 1.2)) * (getattr(most, field) - least)
            limits[limit] = int(value) if limit == "memory_bytes" else value
    return graph, scores, Budget(**limits)


@fixed
@given(requests())
def test_what_is_chosen_respects_every_budget_or_nothing_could(
    case: tuple[StepGraph, dict[str, float], Budget],
) -> None:
    graph, scores, budget = case
    fits = [name for name in scores if not violations(alone(graph, name), budget)]
    try:
        choice = chosen(graph, scores, budget)
    except BudgetError:
        assert not fits
        return
    assert violations(choice.cost, budget) == []
    trainable = choice.selection.trainable
    assert choice.cost == cost_of(graph, choice.selection, graph.batch, SGD, PROFILE)
    assert list(trainable) == [name for name in graph.parameters if name in trainable]
    assert set(trainable) <= set(scores)
    assert choice.certificate.objective == sum(scores[name] for name in trainable)
    assert choice.certificate.objective >= max(scores[name] for name in fits)


@fixed
@given(step_graphs(most_layers=4))
def test_without_a_budget_everything_with_a_score_is_chosen(graph: StepGraph) -> None:
    scores = dict.fromkeys(graph.parameters[::2], 1.0)
    assert chosen(graph, scores, Budget()).selection.trainable == graph.parameters[::2]


@fixed
@given(requests())
def test_the_smallest_budget_that_an_error_names_admits_something(
    case: tuple[StepGraph, dict[str, float], Budget],
) -> None:
    graph, scores, budget = case
    try:
        chosen(graph, scores, budget)
        return
    except BudgetError as error:
        raised = admitted_by(error)
    for limit, value in raised.items():
        assert value > getattr(budget, limit)
    enough = replace(budget, **raised)
    choice = chosen(graph, scores, enough)
    assert choice.selection.trainable
    assert violations(choice.cost, enough) == []


@fixed
@given(step_graphs(most_layers=4))
def test_of_one_budget_the_error_names_the_least_that_any_tensor_needs(graph: StepGraph) -> None:
    scores = dict.fromkeys(graph.parameters, 1.0)
    for limit, field in FIELDS.items():
        least = cheapest(graph, scores, field)
        below = int(least) - 1 if limit == "memory_bytes" else 0.99 * least
        with pytest.raises(BudgetError) as caught:
            chosen(graph, scores, Budget(**{limit: below}))
        raised = admitted_by(caught.value)
        assert set(raised) == {limit}
        slack = 2**20 if limit == "memory_bytes" else 0.002 * least
        assert least <= raised[limit] <= least + slack


def test_the_more_important_tensor_is_chosen_where_only_one_fits() -> None:
    graph = by_hand()
    both = cost_of(graph, Selection(("w1", "w2")), 1, SGD, PROFILE)
    budget = Budget(memory_bytes=both.peak_bytes - 1)
    for scores in ({"w1": 1.0, "w2": 2.0}, {"w1": 3.0, "w2": 2.0}):
        best = max(scores, key=scores.__getitem__)
        choice = chosen(graph, scores, budget)
        assert choice.selection.trainable == (best,)
        assert choice.certificate.method == "greedy"
        assert (choice.certificate.bound, choice.certificate.gap) == (None, None)


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
    assert message.startswith(
        "nothing can be trained on made-up within this budget: even for w2 alone, "
    )
    assert "The smallest that would admit something: --" in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("changes", "budget", "part"),
    [
        pytest.param(
            {"load_watts": None},
            Budget(energy_joules=9),
            "an energy budget needs its load power",
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
            "an energy budget needs its load power and a time budget needs its rates",
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
