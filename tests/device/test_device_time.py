from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edgetune.nouns.step_graph import Operation
from edgetune.planning.device_time import moved_bytes, operation_seconds, step_joules
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
    assert moved_bytes(op(kind, 0), GRAPH) == expected


def test_an_optional_input_that_is_left_out_moves_nothing() -> None:
    assert moved_bytes(Operation("it", "matmul", ("a", ""), ("c",), 0), GRAPH) == 500


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
