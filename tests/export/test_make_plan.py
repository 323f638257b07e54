"""Plans: what is selected, in which micro-batches, within which budgets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from edgetune_exporters import make_plan as planning
from edgetune_exporters.dense_step import DenseStep, dense_step
from edgetune_exporters.factory import Example
from edgetune_exporters.make_plan import make_plan
from torch import nn

from edgetune.errors import BudgetError, SelectionError, UsageError
from edgetune.files.device_profiles import load_profile
from edgetune.nouns.budget import Budget
from edgetune.nouns.optimizer import Optimizer
from edgetune.nouns.plan_request import PlanRequest
from edgetune.units import parse_bytes, parse_joules, parse_seconds

PI = load_profile("raspberry-pi-4b-4gb")


@pytest.fixture(scope="module", autouse=True)
def _each_dense_step_once() -> Iterator[None]:
    """A dense step depends on no budget: the tests share those of the same example."""
    made: dict[tuple[int, int], tuple[Example, DenseStep]] = {}

    def once(example: Example, micro_batch: int, choose_indices: object) -> DenseStep:
        assert choose_indices is None  # the requests here are for whole tensors
        key = id(example), micro_batch
        if key not in made:
            made[key] = example, dense_step(example, micro_batch)
        return made[key][1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "dense_step", once)
        yield


@pytest.fixture(scope="module")
def example() -> Example:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 4),
    )
    return Example(model, torch.randn(8, 1, 24, 24), torch.arange(8) % 4, nn.CrossEntropyLoss())


def request(**options: object) -> PlanRequest:
    whole = PlanRequest(PI, batch=8, calibration_samples=4, shares=False, recomputation=False)
    return replace(whole, **options)


def test_without_budgets_everything_is_trained_at_once(example: Example) -> None:
    plan = make_plan(example, request()).plan
    assert plan.selection.trainable == tuple(n for n, _ in example.model.named_parameters())
    assert (plan.batch, plan.micro_batch) == (8, 8)
    assert plan.trainable_count == plan.parameter_count
    assert plan.trainable_share == 1.0
    assert plan.scores.keys() == set(plan.selection.trainable)
    assert plan.certificate.objective == pytest.approx(sum(plan.scores.values()))
    assert plan.device == "raspberry-pi-4b-4gb"


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        pytest.param(("6.*",), ("6.weight", "6.bias"), id="layer"),
        pytest.param(("*.bias",), ("0.bias", "2.bias", "6.bias"), id="biases"),
        pytest.param(("6.bias", "0.weight"), ("0.weight", "6.bias"), id="in-the-models-order"),
        pytest.param(("6.*", "*.bias"), ("0.bias", "2.bias", "6.weight", "6.bias"), id="overlap"),
    ],
)
def test_patterns_select_by_name(
    example: Example, patterns: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    plan = make_plan(example, request(patterns=patterns)).plan
    assert plan.selection.trainable == expected
    assert plan.certificate.method == "patterns"
    assert plan.certificate.bound is None
    assert plan.scores == {}


def test_a_pattern_that_matches_nothing_is_refused_with_the_nearest_names(
    example: Example,
) -> None:
    with pytest.raises(SelectionError, match=r"'6.weigth' matches no .* 6.weight"):
        make_plan(example, request(patterns=("6.weigth",)))


def test_a_parameter_that_the_loss_ignores_cannot_be_selected() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.used(data), self.unused(data)

    unused = Example(Unused(), torch.randn(2, 3), torch.tensor([0, 1]), nn.CrossEntropyLoss())
    with pytest.raises(SelectionError, match=r"does not depend on unused.weight, unused.bias"):
        make_plan(unused, request(batch=2, patterns=("*",)))
    plan = make_plan(unused, request(batch=2)).plan
    assert plan.selection.trainable == ("used.weight", "used.bias")


def test_less_memory_means_smaller_micro_batches_before_less_is_trained(example: Example) -> None:
    whole = make_plan(example, request()).plan
    budget = Budget(memory_bytes=whole.cost.peak_bytes - 1)
    plan = make_plan(example, request(budget=budget)).plan
    assert plan.micro_batch < 8 and 8 % plan.micro_batch == 0
    assert plan.selection == whole.selection
    assert plan.cost.peak_bytes <= whole.cost.peak_bytes - 1


def test_a_micro_batch_that_is_asked_for_is_kept(example: Example) -> None:
    plan = make_plan(example, request(micro_batch=2, patterns=("6.*",))).plan
    assert (plan.batch, plan.micro_batch) == (8, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(
            {"micro_batch": 3}, "a micro-batch of 3 does not divide the batch of 8", id="3"
        ),
        pytest.param({"micro_batch": 0}, "a micro-batch of 0 does not divide", id="zero"),
        pytest.param({"micro_batch": 16}, "a micro-batch of 16 does not divide", id="larger"),
        pytest.param({"batch": 0}, "the batch is 0: expected at least one sample", id="no-batch"),
    ],
)
def test_batches_that_make_no_sense_are_refused(
    example: Example, options: dict[str, int], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        make_plan(example, request(**options))


@pytest.mark.parametrize("share", [0.1, 0.4, 0.7, 0.95])
@pytest.mark.parametrize("kind", ["memory_bytes", "energy_joules", "step_seconds"])
def test_budgets_are_respected_and_used(example: Example, kind: str, share: float) -> None:
    """The budget lies between the cheapest tensor's cost and that of everything."""
    options = {"micro_batch": 4}
    dense = make_plan(example, request(**options)).plan
    least = make_plan(example, request(patterns=("6.bias",), **options)).plan
    low, high = limit_of(least.cost, kind), limit_of(dense.cost, kind)
    limit = low + share * (high - low)
    budget = Budget(**{kind: int(limit) if kind == "memory_bytes" else limit})
    plan = make_plan(example, request(budget=budget, **options)).plan
    assert limit_of(plan.cost, kind) <= limit
    assert 0 < plan.trainable_count < plan.parameter_count
    assert getattr(plan.budget, kind) == getattr(budget, kind)
    assert (plan.certificate.method, plan.certificate.gap) == ("exact", 0.0)
    assert plan.certificate.objective == pytest.approx(sum(plan.scores.values()))


def limit_of(cost: object, kind: str) -> float:
    names = {
        "memory_bytes": "peak_bytes", "energy_joules": "joules", "step_seconds": "seconds"
    }  # fmt: skip
    return float(getattr(cost, names[kind]))


OPTIONS = {
    "memory_bytes": ("--memory", parse_bytes),
    "energy_joules": ("--energy-per-step", parse_joules),
    "step_seconds": ("--step-seconds", parse_seconds),
}


@pytest.mark.parametrize("kind", OPTIONS)
def test_when_nothing_fits_the_smallest_budget_that_admits_something_is_named(
    example: Example, kind: str
) -> None:
    tiny = Budget(**{kind: 1 if kind == "memory_bytes" else 1e-9})
    with pytest.raises(BudgetError) as caught:
        make_plan(example, request(budget=tiny))
    message = str(caught.value)
    assert "nothing can be trained on raspberry-pi-4b-4gb within this budget: even for" in message
    option, parse = OPTIONS[kind]
    found = re.search(rf"{option} (\S+)", message)
    assert found is not None
    named = Budget(**{kind: parse(found.group(1))})
    plan = make_plan(example, request(budget=named)).plan
    assert plan.selection.trainable
    assert limit_of(plan.cost, kind) <= getattr(named, kind)


def test_a_selection_that_does_not_fit_is_refused_with_what_to_do(example: Example) -> None:
    with pytest.raises(
        BudgetError, match="does not fit raspberry-pi-4b-4gb, even in micro-batches of 1: the pe"
    ):
        make_plan(example, request(patterns=("*",), budget=Budget(memory_bytes=2**20)))


def test_the_device_bounds_the_memory_even_without_a_budget(example: Example) -> None:
    assert PI.usable_memory_bytes is not None
    small = replace(PI, usable_memory_bytes=replace(PI.usable_memory_bytes, value=2.0**20))
    with pytest.raises(BudgetError, match=r"the budget 1(\.0)? MiB"):
        make_plan(example, request(profile=small, patterns=("6.*",)))


def test_an_energy_budget_needs_a_device_whose_power_is_known(example: Example) -> None:
    unknown = replace(PI, load_watts=None)
    budget = Budget(energy_joules=1.0)
    with pytest.raises(BudgetError, match="an energy budget needs its load power"):
        make_plan(example, request(profile=unknown, budget=budget))
    with pytest.raises(BudgetError, match="an energy budget needs its load power"):
        make_plan(example, request(profile=unknown, budget=budget, patterns=("6.*",)))


def test_a_time_budget_needs_a_device_whose_rates_are_known(example: Example) -> None:
    unknown = replace(PI, bandwidth_bytes_per_second=None)
    with pytest.raises(BudgetError, match="a time budget needs its rates and memory bandwidth"):
        make_plan(example, request(profile=unknown, budget=Budget(step_seconds=1.0)))


def test_unknown_power_is_no_obstacle_without_an_energy_budget(example: Example) -> None:
    plan = make_plan(example, request(profile=replace(PI, load_watts=None))).plan
    assert plan.cost.joules is None


def test_an_optimizer_with_state_costs_more_memory(example: Example) -> None:
    adamw, sgd = (
        make_plan(example, request(patterns=("*",), optimizer=Optimizer(kind))).plan.cost
        for kind in ("adamw", "sgd")
    )
    assert adamw.state_bytes == 3 * sgd.state_bytes
