"""The arithmetic of benchmarks/step_speed.py; times themselves are never asserted."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))  # the benchmarks are no package

from selection_ladder import falls, ladder
from step_processes import Measured
from step_ratios import GOALS, opponent, ratio
from step_tables import goals_table, json_rows
from step_workloads import FULL, SIDES, WORKLOADS


def measured(*seconds: float, over_base_bytes: int = 100) -> Measured:
    return Measured(seconds, 1000, 1000 + over_base_bytes, 1.0)


RESULTS = {
    ("head", "edgetune-fp32"): measured(1.0, 2.0, 1.0, over_base_bytes=10),
    ("head", "torch-eager"): measured(4.0, 4.0, 4.0, over_base_bytes=300),
    ("head", "torch-malloc"): measured(3.0, 4.0, 3.0, over_base_bytes=500),
    ("full", "torch-compile"): measured(8.0, 8.0, 9.0, over_base_bytes=900),
}


def test_a_ratio_is_the_median_of_the_rounds_ratios_to_the_fastest() -> None:
    found = ratio(RESULTS, "head", "edgetune-fp32", "torch same")
    assert found is not None
    assert found.other == "torch-malloc"
    assert found.times == 3.0
    assert found.spread == 0.5  # of 3, 2 and 3


def test_memory_is_held_against_the_smallest() -> None:
    found = ratio(RESULTS, "head", "edgetune-fp32", "torch same", "over base")
    assert found is not None
    assert (found.other, found.times) == ("torch-eager", 30.0)


def test_full_is_compared_with_full() -> None:
    assert opponent(RESULTS, "head", "torch full", "time") == "torch-compile"


def test_what_was_not_measured_has_no_ratio() -> None:
    assert ratio(RESULTS, "head", "edgetune-fp32", "onnxruntime-training") is None
    assert ratio(RESULTS, "head", "edgetune-int8", "torch same") is None


def test_goals_name_what_is_run() -> None:
    selections = {(w.name, trained.name) for w in WORKLOADS for trained in w.selections}
    sides = {side.name for side in SIDES}
    assert {(goal.workload, goal.selection) for goal in GOALS} <= selections
    assert {goal.side for goal in GOALS} <= sides


def test_goals_are_reached_missed_or_not_measured() -> None:
    text = goals_table({"mobilenet_v2": RESULTS})
    (line,) = [x for x in text.splitlines() if "head" in x and "edgetune-fp32" in x]
    assert line.split("|")[6].strip() == "2.2x"
    assert "reached" in line
    assert "not measured" in text


def test_json_rows_hold_one_opponent_each() -> None:
    rows = json_rows("mobilenet_v2", RESULTS)
    (row,) = [
        r
        for r in rows
        if r["side"] == "edgetune-fp32" and r["against"] == "torch same: torch-malloc"
    ]
    assert row["workload"] == "mobilenet_v2 head"
    assert (row["goal"], row["ratio"], row["peak_bytes"]) == (2.2, 3.0, 1010)


@pytest.mark.parametrize(
    ("values", "places"), [([1.0, 2.0, 3.0], []), ([1.0, 0.95], []), ([1.0, 0.5, 0.7], [1])]
)
def test_a_fall_within_the_spread_is_none(values: list[float], places: list[int]) -> None:
    assert falls(values, [0.1] * len(values)) == places


def test_the_ladder_has_eight_rungs_up_to_full() -> None:
    assert len(ladder()) == 8
    assert ladder()[-1] == FULL
