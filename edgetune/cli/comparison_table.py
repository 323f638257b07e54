"""What each criterion picks within the same budget, as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgetune.cli.output import table


def describe_comparison(rows: Sequence[Any]) -> str:
    """A table of `edgetune_exporters.importance.ComparedCriterion`s; the first is what was asked.

    captured: by the criterion's own measure, of all there is. overlap: Jaccard index with the
    first's choice.
    """
    heading = ("criterion", "tensors", "whole", "shares", "captured", "overlap", "trains from")
    lines = []
    for row in rows:
        shares = sum(":" in name for name in row.chosen)
        lines.append(
            (
                row.criterion,
                str(row.tensors),
                str(len(row.chosen) - shares),
                str(shares),
                f"{100 * row.captured:.1f} %",
                f"{100 * row.overlap:.0f} %",
                row.chosen[0],
            )
        )
    first = rows[0].criterion
    return "\n".join(
        [
            f"comparison   what each criterion picks within this budget, beside {first}",
            table([heading, *lines]),
        ]
    )
