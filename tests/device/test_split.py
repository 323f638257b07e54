from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetune.nouns.candidate import Candidate
from edgetune.nouns.selection import Selection
from edgetune.nouns.step_graph import Operation, StepGraph
from edgetune.planning.split import (
    is_light,
    needed_operations,
    reached_from,
    results_of,
    split_step,
)
from tests.device.step_graphs import fixed, step_graphs


def by_hand(mask_flops: float = 4.0) -> StepGraph:
    """Two layers h = w1 x, o = w2 h, with a mask m made of x that the last layer reads too."""
    rows = [
        ("turn", "elementwise", "w1", "w1t", 0.0),
        ("first", "matmul", "x w1t", "h", 900.0),
        ("mask", "elementwise", "x", "m", mask_flops),
        ("second", "matmul", "h w2 m", "o", 900.0),
        ("score", "elementwise", "o y", "loss", 1.0),
        ("slope", "elementwise", "o y", "do", 1.0),
        ("grad2", "matmul", "h do", "g2", 900.0),
        ("back", "matmul", "do w2", "dh", 900.0),
        ("grad1", "matmul", "x dh", "g1", 900.0),
    ]
    operations = tuple(
        Operation(name, kind, tuple(inputs.split()), (output,), flops)
        for name, kind, inputs, output, flops in rows
    )
    sizes = dict.fromkeys(["x", "w1", "w1t", "h", "w2", "o", "do", "g2", "dh", "g1"], 40)
    return StepGraph(
        batch=1,
        operations=operations,
        tensor_bytes={**sizes, "y": 4, "loss": 4, "m": 4},
        inputs=("x",),
        labels=("y",),
        parameters=("w1", "w2"),
        candidates=(Candidate("w1", "w1", "g1"), Candidate("w2", "w2", "g2")),
        loss="loss",
        correct="",
        outputs=("o",),
    )


def names(operations: tuple[Operation, ...]) -> str:
    return " ".join(operation.name for operation in operations)


def test_below_the_selection_everything_is_a_frozen_prefix() -> None:
    split = split_step(by_hand(), Selection(("w2",)))
    assert names(split.constants) == "turn"
    assert names(split.prefix) == "first"
    assert split.features == ("h",)
    assert names(split.tail) == "mask second score slope grad2"
    assert split.tail_inputs == ("x",)


def test_what_is_not_light_is_handed_over_instead_of_repeated() -> None:
    split = split_step(by_hand(mask_flops=17.0), Selection(("w2",)))
    assert names(split.prefix) == "first mask"
    assert split.features == ("h", "m")
    assert names(split.tail) == "second score slope grad2"
    assert split.tail_inputs == ()


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        pytest.param(Operation("o", "elementwise", ("x",), ("m",), 16.0), True, id="mask"),
        pytest.param(Operation("o", "elementwise", ("x",), ("m",), 17.0), False, id="much-work"),
        pytest.param(Operation("o", "matmul", ("x", "w1"), ("m",), 1.0), False, id="product"),
        pytest.param(
            Operation("o", "elementwise", ("w1", "x"), ("m",), 1.0, reads_in_part=True),
            False,
            id="rows-of-a-larger-weight",
        ),
        pytest.param(
            Operation("o", "elementwise", ("w1", "x"), ("h",), 1.0, reads_in_part=True),
            True,
            id="rows-of-a-small-weight",
        ),
        pytest.param(
            Operation("o", "view", ("x",), ("m",), 0.0, reads_in_part=True),
            True,
            id="part-of-an-activation",
        ),
    ],
)
def test_light_is_what_costs_little_and_loads_no_large_weight(
    operation: Operation, expected: bool
) -> None:
    assert is_light(by_hand(), operation) is expected


def test_a_selection_at_the_bottom_leaves_no_prefix() -> None:
    split = split_step(by_hand(), Selection(("w1",)))
    assert (split.constants, split.prefix, split.features) == ((), (), ())
    assert names(split.tail) == "turn first mask second score slope back grad1"


def test_only_selected_gradients_are_computed() -> None:
    graph = by_hand()
    everything = split_step(graph, Selection(("w1", "w2")))
    assert names(everything.tail) == names(graph.operations)
    assert results_of(graph, Selection(("w2",))) == ("loss", "g2")


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        pytest.param([], "", id="nothing"),
        pytest.param(["x"], "", id="an-input"),
        pytest.param(["o"], "turn first mask second", id="prediction"),
        pytest.param(["m", "h"], "turn first mask", id="two"),
    ],
)
def test_what_a_result_needs(results: list[str], expected: str) -> None:
    assert names(needed_operations(by_hand(), results)) == expected


def test_what_depends_on_a_tensor() -> None:
    operations = by_hand().operations
    assert reached_from(operations, ["do"]) == {"do", "g2", "dh", "g1"}
    assert reached_from(operations, ["nothing"]) == {"nothing"}


@st.composite
def splits(draw: st.DrawFn) -> tuple[StepGraph, Selection]:
    graph = draw(step_graphs())
    chosen = draw(st.sets(st.sampled_from(graph.parameters), min_size=1))
    return graph, Selection(tuple(name for name in graph.parameters if name in chosen))


@fixed
@given(splits())
def test_the_parts_are_the_step_and_each_can_run_with_what_it_is_given(
    case: tuple[StepGraph, Selection],
) -> None:
    graph, selection = case
    split = split_step(graph, selection)
    needed = needed_operations(graph, results_of(graph, selection))
    assert {*split.constants, *split.prefix, *split.tail} == set(needed)
    weights = set(graph.tensor_bytes) - {n for o in graph.operations for n in o.outputs}
    frozen = weights - set(selection.trainable) - set(graph.inputs) - set(graph.labels)

    constants = run(split.constants, frozen)
    prefix = run(split.prefix, constants | set(graph.inputs))
    assert set(split.features) <= prefix
    given_to_tail = {*constants, *split.features, *split.tail_inputs, *graph.labels}
    results = run(split.tail, given_to_tail | set(selection.trainable))
    assert set(results_of(graph, selection)) <= results


def run(operations: tuple[Operation, ...], there: set[str]) -> set[str]:
    """What is there after running `operations`, each of which must find its inputs."""
    there = set(there)
    for operation in operations:
        assert set(operation.inputs) <= there, operation.name
        there.update(operation.outputs)
    return there


@fixed
@given(splits())
def test_the_prefix_hands_over_only_what_the_tail_reads_and_makes_only_that(
    case: tuple[StepGraph, Selection],
) -> None:
    graph, selection = case
    split = split_step(graph, selection)
    read = {name for operation in split.tail for name in operation.inputs}
    assert set(split.features) <= read
    assert set(split.prefix) <= set(needed_operations(graph, split.features))
    assert len(set(split.features)) == len(split.features)
