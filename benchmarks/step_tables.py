"""The tables of step_speed.py and the rows of its JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from report import table
from step_processes import Measured
from step_ratios import AGAINST, GOALS, Goal, Ratio, Results, goal_of, ratio, spread

_MIB = 2**20


def workload_table(
    results: Results, flops: Mapping[tuple[str, str], float], sgemm: float | None
) -> str:
    """One line per selection and side. flops: of a step. sgemm: FLOP/s of this machine."""
    heading = (
        "selection", "side", "step ms", "spread", "x torch full", "x torch same",
        "x onnxruntime-training", "peak MiB", "over base", "first step s", "of sgemm",
    )  # fmt: skip
    return table([heading, *(_line(results, key, flops.get(key), sgemm) for key in results)])


def _line(
    results: Results, key: tuple[str, str], flops: float | None, sgemm: float | None
) -> tuple[str, ...]:
    measured = results[key]
    share = "-"
    if flops and sgemm:
        share = f"{flops / measured.median_seconds / sgemm:.0%}"
    return (
        *key,
        f"{1e3 * measured.median_seconds:.1f}",
        f"{1e3 * spread(measured.round_seconds):.1f}",
        *(_cell(ratio(results, *key, against)) for against in AGAINST),
        f"{measured.peak_bytes / _MIB:.0f}",
        f"{measured.over_base_bytes / _MIB:.1f}",
        f"{measured.first_step_seconds:.1f}",
        share,
    )


def _cell(found: Ratio | None) -> str:
    return "-" if found is None else f"{found.times:.2f} ±{found.spread / 2:.2f}"


def goals_table(by_workload: Mapping[str, Results]) -> str:
    """Every goal whose workload was run."""
    heading = ("workload", "selection", "side", "less", "than", "goal", "measured", "")
    lines = [
        _goal_line(goal, by_workload[g]) for goal in GOALS if (g := goal.workload) in by_workload
    ]
    return table([heading, *lines])


def _goal_line(goal: Goal, results: Results) -> tuple[str, ...]:
    found = ratio(results, goal.selection, goal.side, goal.against, goal.quantity)
    cells = (goal.workload, goal.selection, goal.side, goal.quantity)
    if found is None:
        return (*cells, goal.against, f"{goal.at_least:g}x", "-", "not measured")
    verdict = "reached" if found.times >= goal.at_least else "missed"
    than = f"{goal.against} ({found.other})"
    return (*cells, than, f"{goal.at_least:g}x", f"{found.times:.2f}x", verdict)


def json_rows(workload: str, results: Results) -> list[dict[str, Any]]:
    """One row per side, selection and opponent, as issue 4 has them; sizes in bytes."""
    return [
        _json_row(workload, results, key, measured, against)
        for key, measured in results.items()
        for against in AGAINST
    ]


def _json_row(
    workload: str, results: Results, key: tuple[str, str], measured: Measured, against: Any
) -> dict[str, Any]:
    selection, side = key
    found = ratio(results, selection, side, against)
    return {
        "workload": f"{workload} {selection}",
        "side": side,
        "against": against if found is None else f"{against}: {found.other}",
        "median_ms": 1e3 * measured.median_seconds,
        "ratio": None if found is None else found.times,
        "spread": None if found is None else found.spread,
        "peak_bytes": measured.peak_bytes,
        "goal": goal_of(workload, selection, side, against),
        "over_base_bytes": measured.over_base_bytes,
        "first_step_seconds": measured.first_step_seconds,
        "rounds_ms": [1e3 * seconds for seconds in measured.round_seconds],
    }


def failures_text(failed: Mapping[str, str], skipped: Sequence[str]) -> str:
    """What was not measured, by name, with the reason."""
    lines = [f"failed: {name}: {reason}" for name, reason in failed.items()]
    return "\n".join([*lines, *(f"skipped: {name}" for name in skipped)])
