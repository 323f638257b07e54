from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetune.errors import SelectionError
from edgetune.nouns.candidate import Candidate, Share
from edgetune.nouns.cost import StepCost
from edgetune.nouns.optimizer import Optimizer
from edgetune.nouns.selection import Selection
from edgetune.nouns.step_graph import Operation, StepGraph
from edgetune.planning.device_time import UPDATE_WORK
from edgetune.planning.moments import selection_level
from edgetune.planning.process_memory import (
    BASE_PROCESS_BYTES,
    BYTES_PER_OPERATION,
    BYTES_PER_UPDATE,
)
from edgetune.planning.split import split_step
from edgetune.planning.step_cost import StepCosts, cost_of
from tests.device.simulated import simulated_peak_bytes
from tests.device.step_graphs import PROFILE, fixed, profile, quantity, step_graphs
from tests.device.test_split import by_hand

# What grows with every candidate. Not weight_bytes and activation_bytes alone: training a weight
# moves bytes from one to the other.
GROWING = ("peak_bytes", "base_bytes", "state_bytes", "flops", "moved_bytes", "seconds", "joules")


# One that knows that a frozen prefix is faster: the laws hold for it too.
CALIBRATED = profile(
    flops_per_second={
        **PROFILE.flops_per_second,
        "prefix_convolution": quantity(1000, "flop/s"),
        "prefix_depthwise": quantity(30, "flop/s"),
    }
)


def costs_of(graph: StepGraph, kind: str = "sgd", batch: int = 1, known: bool = True) -> StepCosts:
    device = CALIBRATED if known else profile(load_watts=None, flops_per_second={})
    return StepCosts(graph, batch, Optimizer(kind), device)


def cost(
    graph: StepGraph, names: set[str], kind: str = "sgd", batch: int = 1, known: bool = True
) -> StepCost:
    costs = costs_of(graph, kind, batch, known)
    return costs.cost(bits(graph, names))


def bits(graph: StepGraph, names: set[str]) -> int:
    return sum(1 << i for i, c in enumerate(graph.candidates) if c.name in names)


@st.composite
def two_selections(draw: st.DrawFn) -> tuple[StepGraph, set[str], set[str], str]:
    graph = draw(step_graphs(shares=True))
    whole = st.sampled_from([c.name for c in graph.candidates if c.share is None])
    every = st.sampled_from([c.name for c in graph.candidates])
    names = st.sets(draw(st.sampled_from([whole, every])), min_size=1)
    kind = draw(st.sampled_from(["sgd", "sgd-momentum", "adamw"]))
    return graph, draw(names), draw(names), kind


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
    for field in GROWING:
        together = getattr(first, field) + getattr(second, field)
        assert getattr(both, field) <= together * (1 + 1e-12), field


@fixed
@given(two_selections())
def test_the_memory_at_moments_is_never_below_what_the_emitted_graphs_take(
    case: tuple[StepGraph, set[str], set[str], str],
) -> None:
    graph, names, _, _ = case
    costs = costs_of(graph)
    chosen = {c.parameter: c for c in graph.candidates if c.name in names}  # one of each parameter
    selected = bits(graph, {c.name for c in chosen.values()})
    selection = Selection.of([c for c in graph.candidates if c in chosen.values()])
    level = selection_level(selected | costs.needs.always)
    predicted = max(moment.bytes for moment in costs.moments.worst(level)) + costs.feeds
    assert predicted >= simulated_peak_bytes(graph, selection)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        # h from the prefix, o, do; then h, do and g2
        pytest.param({"w2"}, 44 + 40 + 40 + 40, id="head"),
        # no prefix: x is a feed; o, do, w1t again, then dh and g1
        pytest.param({"w1"}, 44 + 40 + 40, id="bottom"),
    ],
)
def test_memory_at_the_worst_moment_by_hand(names: set[str], expected: int) -> None:
    graph = by_hand()
    costs = costs_of(graph)
    level = selection_level(bits(graph, names) | costs.needs.always)
    predicted = max(moment.bytes for moment in costs.moments.worst(level)) + costs.feeds
    selection = Selection(tuple(sorted(names)))
    assert simulated_peak_bytes(graph, selection) <= predicted
    assert expected <= predicted <= expected + 48  # at most a tensor and the scalars more


@fixed
@given(two_selections())
def test_the_parts_add_up_to_the_peak(case: tuple[StepGraph, set[str], set[str], str]) -> None:
    graph, some, _, kind = case
    found = cost(graph, some, kind)
    parts = (found.base_bytes, found.weight_bytes, found.state_bytes, found.activation_bytes)
    assert found.peak_bytes == sum(parts)
    assert min(parts) > 0
    running = {operation.name for operation in graph.operations}
    assert found.peak_at in {"loading", "update", "checkpoint", *running}


@fixed
@given(two_selections())
def test_work_follows_from_the_operations_that_run(
    case: tuple[StepGraph, set[str], set[str], str],
) -> None:
    graph, some, _, kind = case
    chosen = {c.parameter: c for c in graph.candidates if c.name in some}
    some = {c.name for c in chosen.values()}
    found = cost(graph, some, kind)
    split = split_step(graph, Selection.of([c for c in graph.candidates if c.name in some]))
    running = {o.name for o in (*split.prefix, *split.tail)}
    running |= {o.name for o in split.constants}  # executed in every step, too
    assert found.flops == sum(o.flops for o in graph.operations if o.name in running)
    objects = BYTES_PER_OPERATION * len(running) + BYTES_PER_UPDATE * len(some)
    assert found.base_bytes == BASE_PROCESS_BYTES + objects


@pytest.mark.parametrize(
    ("kind", "arrays"), [("sgd", 1), ("sgd-momentum", 2), ("sgd-nesterov", 2), ("adamw", 3)]
)
def test_state_is_the_gradients_and_the_optimizers_arrays(kind: str, arrays: int) -> None:
    assert cost(by_hand(), {"w1"}, kind).state_bytes == 40 * arrays
    assert cost(by_hand(), {"w1", "w2"}, kind).state_bytes == 80 * arrays


@pytest.mark.parametrize("names", [{"w1"}, {"w2"}, {"w1", "w2"}])
def test_every_weight_that_is_read_is_held_once(names: set[str]) -> None:
    assert cost(by_hand(), names, "adamw").weight_bytes == 80


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
    # Of w2, once per step: the update's operators and their overhead, clearing, and the norm.
    operators, accesses = UPDATE_WORK["sgd"]
    update = (2 + accesses) * 40 / 1000 + operators * 0.5
    assert found.seconds == pytest.approx((one.seconds - update) * micro_batches + update)
    assert found.joules == pytest.approx(2 * (found.seconds or 0))


def test_what_the_profile_does_not_know_is_none() -> None:
    found = cost(by_hand(), {"w2"}, known=False)
    assert (found.seconds, found.joules) == (None, None)
    assert found.peak_bytes == cost(by_hand(), {"w2"}).peak_bytes


def test_a_share_costs_less_than_its_tensor_and_more_than_nothing() -> None:
    graph = step_graphs_with_a_share()
    share = next(c for c in graph.candidates if c.share is not None)
    whole, part, nothing = (
        cost(graph, names, "adamw") for names in ({share.parameter}, {share.name}, set[str]())
    )
    for field in ("state_bytes", "flops", "seconds"):
        assert getattr(nothing, field) <= getattr(part, field) <= getattr(whole, field)
    assert 0 < part.state_bytes < whole.state_bytes


def step_graphs_with_a_share() -> StepGraph:
    """`by_hand` with half of the second layer's inputs as a candidate."""
    graph = by_hand()
    half = Operation("half", "elementwise", ("h",), ("hh",), 20.0)
    product = Operation("gradh", "matmul", ("hh", "do"), ("gh",), 450.0)
    operations = list(graph.operations)
    operations.insert(2, half)
    return replace(
        graph,
        operations=(*operations, product),
        tensor_bytes={**graph.tensor_bytes, "hh": 20, "gh": 20},
        candidates=(*graph.candidates, Candidate("w2:in/2", "w2", "gh", Share(1, (0, 1)))),
    )


def test_cost_of_a_selection_is_that_of_its_bits() -> None:
    graph = by_hand()
    found = cost_of(graph, Selection(("w2",)), 1, Optimizer("sgd"), PROFILE)
    assert found == cost(graph, {"w2"})


def test_a_selection_without_a_gradient_is_refused_by_name() -> None:
    with pytest.raises(SelectionError, match="w3 has no such gradient"):
        cost_of(by_hand(), Selection(("w3",)), 1, Optimizer("sgd"), PROFILE)
