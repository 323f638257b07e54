from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetune.nouns.cost import StepCost
from edgetune.nouns.optimizer import Optimizer
from edgetune.nouns.selection import Selection
from edgetune.nouns.step_graph import StepGraph
from edgetune.planning.process_memory import BASE_PROCESS_BYTES, BYTES_PER_OPERATION
from edgetune.planning.split import split_step
from edgetune.planning.step_cost import cost_of
from tests.device.step_graphs import PROFILE, fixed, profile, step_graphs
from tests.device.test_split import by_hand

# What grows with every candidate. Not weight_bytes: a frozen weight of a product is held a second
# time in the layout of the kernel, a trainable one is not. Not activation_bytes: a feature that the
# prefix hands over stays to the end of the tail, the same tensor made within the tail does not.
GROWING = ("peak_bytes", "base_bytes", "state_bytes", "flops", "moved_bytes", "seconds", "joules")


def cost(
    graph: StepGraph, names: set[str], kind: str = "sgd", batch: int = 1, known: bool = True
) -> StepCost:
    ordered = tuple(name for name in graph.parameters if name in names)
    device = PROFILE if known else profile(load_watts=None, flops_per_second={})
    return cost_of(graph, Selection(ordered), batch, Optimizer(kind), device)


@st.composite
def two_selections(draw: st.DrawFn) -> tuple[StepGraph, set[str], set[str], str]:
    graph = draw(step_graphs())
    names = st.sets(st.sampled_from(graph.parameters), min_size=1)
    return graph, draw(names), draw(names), draw(st.sampled_from(["sgd", "sgd-momentum", "adamw"]))


@fixed
@given(two_selections())
def test_a_candidate_more_never_costs_less(
    case: tuple[StepGraph, set[str], set[str], str],
) -> None:
    graph, some, others, kind = case
    less, more = cost(graph, some, kind), cost(graph, some | others, kind)
    for field in GROWING:
        assert getattr(more, field) >= getattr(less, field), field


@fixed
@given(two_selections())
def test_two_selections_together_cost_at_most_both(
    case: tuple[StepGraph, set[str], set[str], str],
) -> None:
    graph, some, others, kind = case
    first, second = cost(graph, some, kind), cost(graph, others, kind)
    both = cost(graph, some | others, kind)
    assert both.weight_bytes <= first.weight_bytes + second.weight_bytes
    assert both.state_bytes <= first.state_bytes + second.state_bytes
    if not some & others:
        assert both.state_bytes == first.state_bytes + second.state_bytes
    assert both.flops <= first.flops + second.flops


@fixed
@given(two_selections())
def test_the_parts_add_up_to_the_peak(case: tuple[StepGraph, set[str], set[str], str]) -> None:
    graph, some, _, kind = case
    found = cost(graph, some, kind)
    parts = (found.base_bytes, found.weight_bytes, found.state_bytes, found.activation_bytes)
    assert found.peak_bytes == sum(parts)
    assert min(parts) > 0
    running = {operation.name for operation in graph.operations}
    assert found.peak_at in {"update", "checkpoint", *running}


@fixed
@given(two_selections())
def test_work_follows_from_the_operations_that_run(
    case: tuple[StepGraph, set[str], set[str], str],
) -> None:
    graph, some, _, kind = case
    found = cost(graph, some, kind)
    split = split_step(graph, Selection(tuple(n for n in graph.parameters if n in some)))
    running = (*split.prefix, *split.tail)
    assert found.flops == sum(operation.flops for operation in running)
    count = len(running) + len(split.constants)
    assert found.base_bytes == BASE_PROCESS_BYTES + BYTES_PER_OPERATION * count


@pytest.mark.parametrize(
    ("kind", "arrays"), [("sgd", 1), ("sgd-momentum", 2), ("sgd-nesterov", 2), ("adamw", 3)]
)
def test_state_is_the_gradients_and_the_optimizers_arrays(kind: str, arrays: int) -> None:
    assert cost(by_hand(), {"w1"}, kind).state_bytes == 40 * arrays
    assert cost(by_hand(), {"w1", "w2"}, kind).state_bytes == 80 * arrays


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        # w2 itself; w1 turned, which stays; w1 as it is
        pytest.param({"w2"}, 40 + 40 + 40, id="head"),
        # w1 itself; w2, and w2 again as the kernel of the product reads it
        pytest.param({"w1"}, 40 + 40 + 40, id="bottom"),
        pytest.param({"w1", "w2"}, 80, id="all"),
    ],
)
def test_weights_by_hand(names: set[str], expected: int) -> None:
    assert cost(by_hand(), names).weight_bytes == expected


@pytest.mark.parametrize(
    ("batch", "micro_batches"),
    [
        pytest.param(4, 1, id="one"),
        pytest.param(8, 2, id="two"),
        pytest.param(9, 3, id="partial"),
        pytest.param(1, 1, id="less-than-one"),
    ],
)
def test_micro_batches_multiply_work_and_not_memory(batch: int, micro_batches: int) -> None:
    graph = replace(by_hand(), batch=4)
    one, found = cost(graph, {"w2"}, batch=4), cost(graph, {"w2"}, batch=batch)
    assert found.peak_bytes == one.peak_bytes
    assert found.flops == one.flops * micro_batches
    assert found.moved_bytes == one.moved_bytes * micro_batches
    assert one.seconds is not None
    assert found.seconds == pytest.approx(one.seconds * micro_batches)
    assert found.joules == pytest.approx(one.seconds * micro_batches * 2)


def test_what_the_profile_does_not_know_is_none() -> None:
    found = cost(by_hand(), {"w2"}, known=False)
    assert (found.seconds, found.joules) == (None, None)
    assert found.peak_bytes == cost(by_hand(), {"w2"}).peak_bytes
