from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetune.nouns.step_graph import Operation
from tests.device.liveness import Peak, simulate_peak
from tests.device.step_graphs import fixed

Case = tuple[list[Operation], dict[str, int], list[str]]


def op(kind: str, inputs: str, outputs: str, in_place: bool = False) -> Operation:
    return Operation(
        f"make {outputs}", kind, tuple(inputs.split()), tuple(outputs.split()), 0.0, in_place
    )


def buffers(
    operations: Sequence[Operation], sizes: Mapping[str, int], results: Sequence[str]
) -> list[set[str]]:
    """The tensors that share memory, one set per buffer: found by looking at the whole program."""
    sets: list[set[str]] = []
    for index, operation in enumerate(operations):
        rest = operations[index + 1 :]
        still_read = {name for later in rest for name in later.inputs} | set(results)
        for output in operation.outputs:
            home = None
            for name in operation.inputs[:1]:
                holding = next((s for s in sets if name in s), None)
                if holding is None or home is not None:
                    continue
                over = operation.in_place and not holding & still_read
                same = sizes[next(iter(holding))] == sizes[output]
                if operation.operator_class == "view" or (over and same):
                    home = holding
            if home is not None:
                home.add(output)
            elif operation.operator_class != "view":
                sets.append({output})
    return sets


def bytes_at_each_moment(
    operations: Sequence[Operation], sizes: Mapping[str, int], results: Sequence[str]
) -> list[int]:
    """Bytes of the buffers that are needed while each operation runs."""
    moments = []
    for now in range(len(operations)):
        alive = 0
        for buffer in buffers(operations, sizes, results):
            made = any(buffer & set(o.outputs) for o in operations[: now + 1])
            needed = buffer & set(results) or any(
                buffer & {*o.inputs, *o.outputs} for o in operations[now:]
            )
            alive += sizes[sorted(buffer)[0]] if made and needed else 0
        moments.append(alive)
    return moments


@st.composite
def programs(draw: st.DrawFn) -> Case:
    """Up to nine operations in order, with feeds, views, in-place operations and dead results."""
    sizes = {"feed0": 8, "feed1": 16}
    operations: list[Operation] = []
    made: list[str] = []
    for index in range(draw(st.integers(0, 9))):
        kind = draw(st.sampled_from(["elementwise", "elementwise", "view", "matmul"]))
        inputs = draw(st.lists(st.sampled_from(sorted(sizes)), min_size=1, max_size=3))
        if kind == "view":
            inputs = inputs[:1]
        in_place = kind == "elementwise" and draw(st.booleans())
        count = 1 if kind == "view" or in_place else draw(st.integers(1, 2))
        outputs = [f"t{index}{'ab'[number]}" for number in range(count)]
        for output in outputs:
            size = sizes[inputs[0]] if kind == "view" else draw(st.sampled_from([1, 8, 8, 16]))
            sizes[output] = size
        made += outputs
        operations.append(
            Operation(f"op{index}", kind, tuple(inputs), tuple(outputs), 0.0, in_place)
        )
    results = draw(st.lists(st.sampled_from(made), unique=True)) if made else []
    return operations, sizes, results


@fixed
@given(programs())
def test_the_peak_is_exact_on_every_small_program(case: Case) -> None:
    operations, sizes, results = case
    moments = bytes_at_each_moment(operations, sizes, results)
    peak = simulate_peak(operations, sizes, results)
    assert peak.bytes == max(moments, default=0)
    if peak.bytes:
        names = [operation.name for operation in operations]
        assert moments[names.index(peak.at)] == peak.bytes


SIZES = {"feed": 100, "weight": 100, "a": 10, "b": 10, "c": 10, "d": 4}


@pytest.mark.parametrize(
    ("operations", "results", "expected"),
    [
        pytest.param([], "", Peak(0, ""), id="nothing"),
        pytest.param([op("matmul", "feed weight", "a")], "a", Peak(10, "make a"), id="no-weights"),
        pytest.param(
            [op("matmul", "feed", "a"), op("matmul", "a", "b"), op("matmul", "b", "c")],
            "c",
            Peak(20, "make b"),
            id="a-chain-frees",
        ),
        pytest.param(
            [op("matmul", "feed", "a"), op("matmul", "a", "b"), op("matmul", "b", "c")],
            "a c",
            Peak(30, "make c"),
            id="results-stay",
        ),
        pytest.param(
            [op("elementwise", "feed", "a"), op("elementwise", "a", "b", in_place=True)],
            "b",
            Peak(10, "make a"),
            id="in-place",
        ),
        pytest.param(
            [op("elementwise", "feed", "a"), op("elementwise", "a", "b", in_place=True)],
            "a b",
            Peak(20, "make b"),
            id="in-place-over-a-result",
        ),
        pytest.param(
            [op("elementwise", "feed", "a"), op("elementwise", "a", "d", in_place=True)],
            "d",
            Peak(14, "make d"),
            id="in-place-of-another-size",
        ),
        pytest.param(
            [
                op("elementwise", "feed", "a"),
                op("view", "a", "b"),
                op("elementwise", "a", "c", in_place=True),
                op("matmul", "b c", "d"),
            ],
            "d",
            Peak(24, "make d"),
            id="in-place-under-a-view-that-is-read-again",
        ),
        pytest.param(
            [op("view", "weight", "a"), op("elementwise", "a", "b", in_place=True)],
            "b",
            Peak(10, "make b"),
            id="a-view-of-a-weight",
        ),
        pytest.param(
            [op("matmul", "feed", "a b"), op("matmul", "a", "c")],
            "c",
            Peak(20, "make a b"),
            id="a-result-nobody-reads",
        ),
    ],
)
def test_peaks_by_hand(operations: list[Operation], results: str, expected: Peak) -> None:
    assert simulate_peak(operations, SIZES, results.split()) == expected
