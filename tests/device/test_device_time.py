from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edgetune.nouns.profile import Quantity
from edgetune.nouns.step_graph import Operation
from edgetune.planning.device_time import (
    moved_bytes,
    operation_seconds,
    prefix_seconds,
    step_joules,
    update_seconds,
)
from edgetune.planning.needs import needs_of
from tests.device.step_graphs import PROFILE, profile, quantity
from tests.device.test_split import by_hand

GRAPH = replace(by_hand(), tensor_bytes={"a": 300, "b": 500, "c": 200})


def op(kind: str, flops: float) -> Operation:
    """Reads 800 bytes and writes 200: a second at 1,000 bytes per second."""
    return Operation("it", kind, ("a", "b"), ("c",), flops)


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        pytest.param(op("matmul", 10), 1.0 + 0.5, id="bound-by-memory"),
        pytest.param(op("matmul", 600), 3.0 + 0.5, id="bound-by-computing"),
        pytest.param(op("convolution", 600), 6.0 + 0.5, id="the-rate-of-its-class"),
        pytest.param(op("depthwise", 600), 60.0 + 0.5, id="a-slow-class"),
        pytest.param(op("elementwise", 1e9), 1.0 + 0.5, id="elementwise-only-moves"),
        pytest.param(op("view", 0), 0.0, id="a-view-is-free"),
    ],
)
def test_each_operation_takes_the_longer_of_computing_and_moving(
    operation: Operation, expected: float
) -> None:
    assert operation_seconds(operation, GRAPH, PROFILE) == pytest.approx(expected)


def test_an_unknown_overhead_is_none() -> None:
    seconds = operation_seconds(op("matmul", 600), GRAPH, profile(dispatch_seconds=None))
    assert seconds == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("groups", "group_seconds", "expected"),
    [
        pytest.param(4, quantity(2, "s"), 60.0 + 8.0 + 0.5, id="groups"),
        pytest.param(0, quantity(2, "s"), 60.0 + 0.5, id="no-groups"),
        pytest.param(4, None, 60.0 + 0.5, id="an-unknown-overhead"),
    ],
)
def test_each_group_of_a_depthwise_convolution_takes_its_time(
    groups: int, group_seconds: Quantity | None, expected: float
) -> None:
    operation = replace(op("depthwise", 600), groups=groups)
    device = profile(group_seconds=group_seconds)
    assert operation_seconds(operation, GRAPH, device) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("changes", "kind", "known"),
    [
        pytest.param({"bandwidth_bytes_per_second": None}, "elementwise", False, id="bandwidth"),
        pytest.param({"flops_per_second": {}}, "matmul", False, id="no-rates"),
        pytest.param(
            {"flops_per_second": {"peak": quantity(9, "flop/s")}}, "matmul", False, id="only-a-peak"
        ),
        pytest.param({"flops_per_second": {}}, "elementwise", True, id="a-rate-nobody-needs"),
        pytest.param(
            {"flops_per_second": {"matmul": quantity(9, "flop/s")}}, "matmul", True, id="its-rate"
        ),
    ],
)
def test_an_unknown_rate_is_never_guessed(changes: dict[str, Any], kind: str, known: bool) -> None:
    seconds = operation_seconds(op(kind, 10), GRAPH, profile(**changes))
    assert (seconds is not None) == known


@pytest.mark.parametrize(
    ("kind", "expected"), [("matmul", 1000), ("elementwise", 1000), ("view", 0)]
)
def test_an_operation_moves_what_it_reads_and_writes(kind: str, expected: int) -> None:
    assert moved_bytes(op(kind, 0), GRAPH.tensor_bytes) == expected


def test_an_optional_input_that_is_left_out_moves_nothing() -> None:
    assert moved_bytes(Operation("it", "matmul", ("a", ""), ("c",), 0), GRAPH.tensor_bytes) == 500


@pytest.mark.parametrize(
    ("seconds", "watts", "expected"),
    [
        pytest.param(3.0, 2.0, 6.0, id="known"),
        pytest.param(0.0, 2.0, 0.0, id="no-work"),
        pytest.param(None, 2.0, None, id="unknown-time"),
        pytest.param(3.0, None, None, id="unknown-power"),
    ],
)
def test_energy_is_load_power_for_as_long_as_it_takes(
    seconds: float | None, watts: float | None, expected: float | None
) -> None:
    load = None if watts is None else quantity(watts, "W")
    assert step_joules(seconds, profile(load_watts=load)) == expected


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        pytest.param({"convolution": 100}, 6.0 + 0.5, id="as-other-convolutions"),
        pytest.param({"convolution": 100, "pointwise": 300}, 2.0 + 0.5, id="its-own-rate"),
        pytest.param({"pointwise": 300}, 2.0 + 0.5, id="only-its-own"),
        pytest.param({"matmul": 100}, None, id="neither"),
    ],
)
def test_a_pointwise_convolution_has_its_own_rate_or_that_of_the_others(
    rates: dict[str, float], expected: float | None
) -> None:
    known = {name: quantity(rate, "flop/s") for name, rate in rates.items()}
    seconds = operation_seconds(op("pointwise", 600), GRAPH, profile(flops_per_second=known))
    assert seconds == (None if expected is None else pytest.approx(expected))


# A convolution with its activation, one with an activation behind an addition, and the loss.
PREFIX = replace(
    by_hand(),
    operations=(
        Operation("conv", "convolution", ("x", "w1"), ("a",), 900.0),
        Operation("act", "elementwise", ("a",), ("b",), 0.0, in_place=True),
        Operation("add", "elementwise", ("b", "x"), ("c",), 0.0),
        Operation("far", "elementwise", ("c",), ("d",), 0.0, in_place=True),
        Operation("product", "matmul", ("d", "w2"), ("o",), 900.0),
        Operation("score", "elementwise", ("o", "y"), ("loss",), 0.0, in_place=True),
    ),
    tensor_bytes=dict.fromkeys(["x", "y", "w1", "w2", "a", "b", "c", "d", "o", "loss"], 40),
    candidates=(),
)
FASTER = {**PROFILE.flops_per_second, "prefix_convolution": quantity(1000, "flop/s")}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("conv", 0.9 + 0.5, id="a-convolution-at-its-rate-in-a-prefix"),
        pytest.param("act", 0.0, id="the-activation-behind-it-is-part-of-it"),
        pytest.param("add", None, id="an-addition-stays"),
        pytest.param("far", None, id="an-activation-behind-something-else-stays"),
        pytest.param("product", None, id="a-product-stays"),
        pytest.param("score", None, id="the-loss-is-no-prefix"),
    ],
)
def test_a_frozen_prefix_is_faster_where_it_was_measured(name: str, expected: float | None) -> None:
    index = next(i for i, o in enumerate(PREFIX.operations) if o.name == name)
    makers = {made: o for o in PREFIX.operations for made in o.outputs}
    needs = needs_of(PREFIX)
    found = prefix_seconds(index, PREFIX, needs, makers, profile(flops_per_second=FASTER))
    assert found == (None if expected is None else pytest.approx(expected))
    assert prefix_seconds(index, PREFIX, needs, makers, PROFILE) is None


@pytest.mark.parametrize(
    ("kind", "micro_batches", "expected"),
    [
        # (2 per micro-batch + clearing + norm + accesses) x 100 bytes at 1,000 bytes per second,
        # and half a second for each operator.
        pytest.param("sgd", 1, 1.4 + 3.5, id="sgd"),
        pytest.param("sgd", 3, 1.8 + 4.5, id="micro-batches-add-up"),
        pytest.param("adamw", 1, 2.7 + 7.5, id="adamw"),
    ],
)
def test_an_update_moves_bytes_and_costs_an_overhead_per_operator(
    kind: str, micro_batches: int, expected: float
) -> None:
    assert update_seconds(100, micro_batches, kind, PROFILE) == pytest.approx(expected)
    unknown = profile(bandwidth_bytes_per_second=None)
    assert update_seconds(100, micro_batches, kind, unknown) is None
