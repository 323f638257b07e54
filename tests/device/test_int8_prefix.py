"""A frozen prefix in 8 bits: what it takes less, and that the laws of costs still hold."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetune.nouns.cost import StepCost
from edgetune.nouns.optimizer import Optimizer
from edgetune.nouns.precision import PRECISIONS, Int8Loss, Precision
from edgetune.nouns.profile import DeviceProfile
from edgetune.nouns.step_graph import StepGraph
from edgetune.planning.process_memory import BYTES_PER_OPERATION
from edgetune.planning.step_cost import StepCosts
from tests.device.step_graphs import PROFILE, fixed, quantity, step_graphs
from tests.device.test_split import by_hand
from tests.device.test_step_cost import GROWING

WITH_INT8_RATE = replace(
    PROFILE,
    flops_per_second={**PROFILE.flops_per_second, "int8": quantity(1000, "flop/s")},
)


def in_int8(graph: StepGraph, results: bool = False) -> StepGraph:
    """The same step, of which every product can compute in 8 bits, and hand on in 8 bits."""
    operations = tuple(
        replace(o, int8_weight=True, int8_result=results)
        if set(o.inputs) & set(graph.parameters) and o.operator_class != "elementwise"
        else o
        for o in graph.operations
    )
    return replace(graph, operations=operations)


def costs_of(graph: StepGraph, precision: Precision, device: DeviceProfile = PROFILE) -> StepCosts:
    return StepCosts(graph, graph.batch, Optimizer("sgd"), device, precision)


def cost(graph: StepGraph, precision: Precision, *names: str) -> StepCost:
    costs = costs_of(graph, precision)
    selected = sum(1 << i for i, c in enumerate(graph.candidates) if c.name in names)
    return costs.cost(selected)


@st.composite
def two_selections(draw: st.DrawFn) -> tuple[StepGraph, int, int]:
    graph = in_int8(draw(step_graphs(shares=True)), draw(st.booleans()))
    selections = st.integers(0, 2 ** len(graph.candidates) - 1)
    return graph, draw(selections), draw(selections)


@fixed
@given(two_selections())
def test_a_candidate_more_never_costs_less(case: tuple[StepGraph, int, int]) -> None:
    graph, some, others = case
    costs = costs_of(graph, "int8", WITH_INT8_RATE)
    less, more = costs.cost(some), costs.cost(some | others)
    for field in GROWING:
        assert getattr(more, field) >= getattr(less, field) - 1e-9, field


@fixed
@given(two_selections())
def test_two_selections_together_cost_at_most_both(case: tuple[StepGraph, int, int]) -> None:
    graph, some, others = case
    costs = costs_of(graph, "int8", WITH_INT8_RATE)
    first, second, both = (costs.cost(bits) for bits in (some, others, some | others))
    for field in GROWING:
        together = getattr(first, field) + getattr(second, field)
        assert getattr(both, field) <= together * (1 + 1e-12), field


@fixed
@given(two_selections())
def test_8_bits_take_no_more_time_and_no_more_weights(case: tuple[StepGraph, int, int]) -> None:
    graph, selected, _ = case
    wide, narrow = (costs_of(graph, p, WITH_INT8_RATE).cost(selected) for p in PRECISIONS)
    assert wide.seconds is not None and narrow.seconds is not None
    assert narrow.seconds <= wide.seconds * (1 + 1e-12)
    # In bytes of 4 the weights of these graphs divide exactly.
    assert narrow.weight_bytes <= wide.weight_bytes


def test_a_frozen_weight_takes_a_quarter_and_a_trained_one_all() -> None:
    graph = in_int8(by_hand())
    frozen_first = {p: cost(graph, p, "w2").weight_bytes for p in PRECISIONS}
    everything = {p: cost(graph, p, "w1", "w2").weight_bytes for p in PRECISIONS}
    # w1 (40 bytes) stands turned in the graph, so only w2 is read as a weight; training it, and
    # what lies above a trained w1, takes it in fp32.
    assert frozen_first["int8"] == frozen_first["fp32"] == 80
    assert everything["int8"] == everything["fp32"]
    nothing = {p: cost(graph, p).weight_bytes for p in PRECISIONS}
    assert nothing == {"fp32": 80, "int8": 50}


def test_a_result_in_8_bits_is_held_in_a_quarter_until_it_is_trained() -> None:
    plain, results = in_int8(by_hand()), in_int8(by_hand(), results=True)
    assert cost(results, "int8").activation_bytes < cost(plain, "int8").activation_bytes
    assert (
        cost(results, "int8", "w1", "w2").activation_bytes
        >= cost(results, "fp32", "w1", "w2").activation_bytes
    )


def test_the_nodes_around_what_is_rounded_are_counted() -> None:
    graph = in_int8(by_hand())
    rounded = sum(o.int8_weight for o in graph.operations if o.name in ("first", "second"))
    more = cost(graph, "int8").base_bytes - cost(graph, "fp32").base_bytes
    assert more == 4 * rounded * BYTES_PER_OPERATION


def test_products_run_at_the_rate_of_int8_where_the_profile_has_it() -> None:
    graph = in_int8(by_hand())
    known, unknown = (
        costs_of(graph, "int8", device).cost(0).seconds for device in (WITH_INT8_RATE, PROFILE)
    )
    assert known is not None and unknown is not None
    assert known < unknown


@pytest.mark.parametrize(
    ("fp32", "int8", "rise"), [(2.0, 2.1, 0.05), (2.0, 1.9, -0.05), (0.0, 0.0, 0.0)]
)
def test_the_rise_is_a_share_of_the_loss_in_fp32(fp32: float, int8: float, rise: float) -> None:
    assert Int8Loss(8, fp32, int8, 0.1).rise == pytest.approx(rise)
