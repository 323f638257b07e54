"""Timelines: the simulation behind a plan's peak, written out and printed."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from itertools import chain

import pytest

from edgetune.cli.timeline_table import MOST_HOLDERS, MOST_ROWS, describe_timeline
from edgetune.nouns.candidate import Candidate, Share
from edgetune.nouns.optimizer import Optimizer
from edgetune.nouns.selection import Selection
from edgetune.nouns.step_graph import Operation, StepGraph
from edgetune.nouns.timeline import END_OF_STEP, THE_BATCH, Holder, Timeline
from edgetune.planning.process_memory import ALLOCATOR_OVERHEAD
from edgetune.planning.program import members
from edgetune.planning.split import split_step
from edgetune.planning.step_cost import StepCosts
from edgetune.planning.timeline import timeline_of
from edgetune.units import format_bytes
from tests.device.random_graphs import random_step_graph
from tests.device.step_graphs import PROFILE, in_micro_batches
from tests.device.test_split import by_hand

SGD = Optimizer("sgd")
AROUND = ("loading", "update", "checkpoint")


def random_step(seed: int) -> tuple[StepCosts, int]:
    """A step with large activations or large weights, and a selection of it."""
    generator = random.Random(seed)
    graph = in_micro_batches(random_step_graph(generator, 12), generator.choice([1, 64]))
    costs = StepCosts(graph, graph.batch, SGD, PROFILE)
    selected = 0
    for group in costs.needs.of_parameter.values():
        if generator.random() < 0.5:
            selected |= 1 << generator.choice(members(group))
    return costs, selected or 1


def selection_of(costs: StepCosts, selected: int) -> Selection:
    return Selection.of([costs.graph.candidates[i] for i in members(selected)])


@pytest.mark.parametrize("seed", range(60))
def test_the_peak_is_the_plans_own_and_its_holders_explain_it(seed: int) -> None:
    costs, selected = random_step(seed)
    timeline = timeline_of(costs, selected)
    cost = costs.cost(selected)
    assert timeline.cost == cost
    peak = timeline.moments[timeline.peak]
    assert (peak.operator, peak.live_bytes) == (cost.peak_at, cost.activation_bytes)
    assert all(moment.live_bytes <= cost.activation_bytes for moment in timeline.moments)
    sizes = [holder.bytes for holder in timeline.holders]
    assert sizes == sorted(sizes, reverse=True)
    live = timeline.overhead * sum(sizes) + timeline.workspace_bytes
    assert live == pytest.approx(cost.activation_bytes, abs=1 + len(sizes))


def test_both_kinds_of_peak_are_among_these_cases() -> None:
    kinds = set()
    for seed in range(60):
        costs, selected = random_step(seed)
        kinds.add(costs.cost(selected).peak_at in AROUND)
    assert kinds == {True, False}


@pytest.mark.parametrize("seed", range(60))
def test_the_moments_are_the_step_that_is_emitted_in_its_order(seed: int) -> None:
    costs, selected = random_step(seed)
    moments = timeline_of(costs, selected).moments
    split = split_step(costs.graph, selection_of(costs, selected))
    shown = [moment.operator for moment in moments[1:-2]]
    order = [operation.name for operation in costs.graph.operations if operation.name in shown]
    assert shown == order
    emitted = (*split.constants, *split.prefix, *split.tail)
    assert set(shown) == {operation.name for operation in emitted}
    in_prefix = {moment.operator for moment in moments if moment.phase == "prefix"}
    assert in_prefix == {operation.name for operation in split.prefix}
    around = [moment.phase for moment in (moments[0], *moments[-2:])]
    assert around == ["loading", "update", "checkpoint"]


def large_by_hand() -> StepGraph:
    """x (4,000 bytes) -> h -> o; what depends on data is a hundred times the weights."""
    graph = by_hand()
    large = dict.fromkeys(["x", "h", "o", "do", "dh"], 4000)
    return replace(graph, tensor_bytes={**graph.tensor_bytes, **large})


def timeline_by_hand(graph: StepGraph, *names: str) -> Timeline:
    costs = StepCosts(graph, 1, SGD, PROFILE)
    return timeline_of(costs, costs.bits_of(Selection(names)))


def test_each_holder_says_who_made_it_and_until_when_it_is_kept() -> None:
    timeline = timeline_by_hand(large_by_hand(), "w1", "w2")
    assert timeline.cost.peak_at == "slope"
    held = {holder.tensor: holder for holder in timeline.holders}
    assert held["x"] == Holder("x", 4000, THE_BATCH, END_OF_STEP)
    assert held["h"] == Holder("h", 4000, "first", "grad2")
    assert held["o"] == Holder("o", 4000, "second", "slope")
    assert held["do"] == Holder("do", 4000, "slope", "back")
    assert not held.keys() & {"g2", "dh", "g1"}


def test_what_the_prefix_hands_over_is_kept_to_the_end() -> None:
    timeline = timeline_by_hand(large_by_hand(), "w2")
    phases = {moment.operator: moment.phase for moment in timeline.moments}
    assert phases == {
        "loading": "loading",
        "turn": "forward",
        "first": "prefix",
        "mask": "forward",
        "second": "forward",
        "score": "backward",
        "slope": "backward",
        "grad2": "backward",
        "update": "update",
        "checkpoint": "checkpoint",
    }
    held = {holder.tensor: holder.kept_until for holder in timeline.holders}
    assert held["h"] == END_OF_STEP


def test_the_largest_workspace_counts_at_every_operation() -> None:
    graph = large_by_hand()
    operations = [
        replace(o, workspace_bytes=9000 if o.name == "second" else 10) for o in graph.operations
    ]
    without = timeline_by_hand(graph, "w1")
    timeline = timeline_by_hand(replace(graph, operations=tuple(operations)), "w1")
    assert (without.workspace_bytes, timeline.workspace_bytes) == (0, 9000)
    assert timeline.cost.activation_bytes == without.cost.activation_bytes + 9000
    assert timeline.holders == without.holders
    assert " + 8.8 KiB workspace of a kernel = " in describe_timeline(timeline)
    assert "workspace" not in describe_timeline(without)


def many_shares() -> tuple[StepCosts, int]:
    """A share of each of ten weights, all large, and one small weight whole."""
    graph = by_hand()
    names = [f"s{i}" for i in range(10)]
    made = [Operation(f"g{n}", "elementwise", (n, "do"), (f"g{n}",), 1.0) for n in names]
    shares = [Candidate(f"{n}:out/2", n, f"g{n}", Share(0, (0,))) for n in names]
    graph = replace(
        graph,
        operations=(*graph.operations, *made),
        tensor_bytes={**graph.tensor_bytes, **{t: 9000 for n in names for t in (n, f"g{n}")}},
        parameters=(*graph.parameters, *names),
        candidates=(*graph.candidates, *shares),
    )
    return StepCosts(graph, 1, SGD, PROFILE), (1 << 12) - 2


@pytest.mark.parametrize("phase", AROUND)
def test_a_peak_around_the_step_says_whose_copies_hold_it(phase: str) -> None:
    steps = (random_step(seed) for seed in range(1000))
    costs, selected = next(
        s for s in chain([many_shares()], steps) if s[0].cost(s[1]).peak_at == phase
    )
    names = [costs.graph.candidates[i].name for i in members(selected)]
    timeline = timeline_of(costs, selected)
    held = {holder.tensor for holder in timeline.holders}
    if phase == "checkpoint":
        assert held == {f"copies of {name}" for name in names if ":" in name}
        assert len(held) == len(names) - 1
    elif phase == "update":
        assert len(held) == 1 and held <= {f"temporaries of {name}" for name in names}
    else:
        assert held == {"copies of the largest convolution"}
    assert describe_timeline(timeline).splitlines()[-1].startswith("together ")


# as text --------------------------------------------------------------------------------------


def long_step(layers: int) -> Timeline:
    """A chain of one operation per module, and the gradient of the weight that the first reads."""
    rows = [("start", "x", "h0")]
    rows += [(f"op{i}", f"h{i} w" if i == 0 else f"h{i}", f"h{i + 1}") for i in range(layers)]
    graph = by_hand()
    chain = [
        replace(
            graph.operations[1],
            name=name,
            inputs=tuple(inputs.split()),
            outputs=(output,),
            module=f"net.block.{i // 4}.part{i % 4}.conv (Conv2d)",
        )
        for i, (name, inputs, output) in enumerate(rows)
    ]
    loss = replace(graph.operations[4], inputs=(f"h{layers}", "y"))
    gradient = replace(graph.operations[6], inputs=("h0", f"h{layers}", "y"), outputs=("g",))
    sizes = {name: 4000 for _, _, name in rows}
    graph = replace(
        graph,
        operations=(*chain, replace(loss, module="the loss"), replace(gradient, module="net.head")),
        tensor_bytes={**sizes, "x": 4000, "y": 4, "w": 40, "g": 40, "loss": 4},
        parameters=("w",),
        candidates=(replace(graph.candidates[0], name="w", parameter="w", gradient="g"),),
        outputs=(f"h{layers}",),
    )
    return timeline_by_hand(graph, "w")


def rows_of(text: str) -> list[str]:
    lines = text.splitlines()
    return lines[2 : lines.index("")]


@pytest.mark.parametrize("layers", [1, 30, 70, 400])
def test_a_timeline_is_printed_in_few_rows_that_hold_every_operation(layers: int) -> None:
    timeline = long_step(layers)
    rows = rows_of(describe_timeline(timeline))
    assert len(rows) <= MOST_ROWS
    assert sum("<- peak" in row for row in rows) == 1
    counts = [int(re.split(r"  +", row)[-3 if "#" in row else -2].split()[-1]) for row in rows]
    assert sum(counts) == len(timeline.moments)
    peak = next(row for row in rows if "<- peak" in row)
    assert format_bytes(timeline.cost.activation_bytes) in peak
    assert peak.count("#") == max(row.count("#") for row in rows) == 40


def test_neighbouring_parts_of_the_model_share_a_row_and_a_name() -> None:
    text = describe_timeline(long_step(400))
    assert re.search(r"^forward     block\.\d+\.\.\d+ ", text, re.MULTILINE)
    few = describe_timeline(long_step(5))
    assert "forward     block.0.part1" in few
    assert "(Conv2d)" not in few and "net." not in few


def test_the_largest_holders_are_listed_and_the_sum_is_the_peaks() -> None:
    timeline = long_step(12)
    text = describe_timeline(timeline)
    cost = timeline.cost
    always = format_bytes(cost.base_bytes + cost.weight_bytes + cost.state_bytes)
    live = format_bytes(cost.activation_bytes)
    peak = timeline.moments[timeline.peak]
    assert f"peak         {format_bytes(cost.peak_bytes)} at {peak.operator} (" in text
    assert f"{always} + {live}, held by\n" in text
    listed = text.splitlines()[-1 - min(MOST_HOLDERS, len(timeline.holders)) : -1]
    expected = [holder.tensor for holder in timeline.holders[:MOST_HOLDERS]]
    assert [re.split(r"  +", line)[1] for line in listed] == expected
    assert text.endswith(f"; x {ALLOCATOR_OVERHEAD:g} for the allocator's gaps = {live}")


def test_equal_steps_give_equal_text() -> None:
    costs, selected = random_step(3)
    assert describe_timeline(timeline_of(costs, selected)) == describe_timeline(
        timeline_of(costs, selected)
    )
