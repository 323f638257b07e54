"""The frontier as text: the best plans by what they take, and selections made by hand."""

from __future__ import annotations

from collections.abc import Sequence

from edgetune.cli.describe import by_criterion
from edgetune.cli.output import table
from edgetune.nouns.frontier import Axis, FrontierPoint
from edgetune.units import format_bytes, format_joules, format_seconds


def describe_frontier(points: Sequence[FrontierPoint], axis: Axis, criterion: str) -> str:
    """Two tables: the best plans, and those made by hand beside the best that takes no more."""
    best = [point for point in points if not point.name]
    by_hand = [point for point in points if point.name]
    columns = (axis, "importance", "tensors", "micro-batch", "step")
    return "\n".join(
        [
            f"frontier     what more {axis} buys, by {by_criterion(criterion)}",
            table([(*columns, "gap"), *((*_cells(p, axis), _gap(p)) for p in best)]),
            "",
            table(
                [
                    ("by hand", *columns, f"the best plan at equal {axis}"),
                    *((p.name, *_cells(p, axis), _planned(p)) for p in by_hand),
                ]
            ),
        ]
    )


def _cells(point: FrontierPoint, axis: Axis) -> tuple[str, ...]:
    seconds = point.cost.seconds
    return (
        format_bytes(point.amount) if axis == "memory" else format_joules(point.amount),
        f"{100 * point.importance:.1f} %",
        str(point.tensors),
        str(point.micro_batch),
        "unknown" if seconds is None else format_seconds(seconds),
    )


def _gap(point: FrontierPoint) -> str:
    return "0" if not point.gap or point.gap < 1e-9 else f"{100 * point.gap:.2g} %"


def _planned(point: FrontierPoint) -> str:
    if point.planned is None:
        return "none keeps the other budgets"
    more = 100 * (point.planned - point.importance)
    return f"{100 * point.planned:.1f} % ({more:+.1f})"
