"""Tables of the acceptance run, as Markdown that also reads well on a terminal."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from acceptance_results import TOLERATED_POINTS, RowResult, Run

_MIB = 2**20


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows in aligned columns between bars; the first is the heading."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def accuracy_table(rows: Sequence[RowResult]) -> str:
    """Accuracy and time on both sides, one line per selection."""
    heading = (
        "selection", "trainable", "recipe", "edgetune %", "PyTorch %", "difference",
        f"within {TOLERATED_POINTS}", "first 10 losses", "step ms", "PyTorch ms", "delta KiB",
    )  # fmt: skip
    return table([heading, *(_accuracy_row(row) for row in rows if row.runs)])


def _accuracy_row(row: RowResult) -> tuple[str, ...]:
    runs = row.runs
    return (
        row.selection,
        f"{row.trainable_count:,} ({row.trainable_share:.1%})",
        row.recipe,
        _percent(row.accuracies("edgetune")),
        _percent(row.accuracies("torch")),
        f"{row.difference_points:+.2f}",
        "FAILED" if row.failures else "yes" if row.agrees else "NO",
        f"{max(run.first_steps_gap for run in runs):.0e}",
        f"{1e3 * row.median_step_seconds('edgetune'):.1f}",
        f"{1e3 * row.median_step_seconds('torch'):.1f}",
        f"{max(run.delta_bytes for run in runs) / 1024:.0f}",
    )


def _percent(by_seed: Sequence[float]) -> str:
    """The mean, and what it is a mean of where there are several seeds."""
    mean = f"{100 * statistics.fmean(by_seed):.1f}"
    if len(by_seed) == 1:
        return mean
    return f"{mean} (seeds: {', '.join(f'{100 * value:.1f}' for value in by_seed)})"


def memory_table(rows: Sequence[RowResult]) -> str:
    """Peak memory of the process that trains, one line per selection."""
    heading = (
        "selection", "predicted MiB", "training data MiB", "measured MiB",
        "(measured - data) / predicted", "PyTorch MiB",
    )  # fmt: skip
    lines = [
        (
            row.selection,
            f"{row.predicted_peak_bytes / _MIB:.0f}",
            f"{max(run.data_bytes for run in row.runs) / _MIB:.1f}",
            f"{row.peak_bytes('edgetune') / _MIB:.0f}",
            f"{row.memory_ratio:.2f}",
            f"{row.peak_bytes('torch') / _MIB:.0f}",
        )
        for row in rows
        if row.runs
    ]
    return table([heading, *lines])


def parts_table(row: RowResult) -> str:
    """One line per part of the data, zero-shot and adapted, of one selection; means over seeds."""
    heading = (
        "", "test windows", "edgetune zero-shot %", "PyTorch zero-shot %", "edgetune adapted %",
        "PyTorch adapted %", "difference",
    )  # fmt: skip
    parts = list(dict.fromkeys(run.part for run in row.runs))
    lines = [_part_row(name, [run for run in row.runs if run.part == name]) for name in parts]
    means = [statistics.fmean(values) for values in zip(*(v for _, _, v in lines), strict=True)]
    cells = [(name, str(count), *_part_cells(values)) for name, count, values in lines]
    return table([heading, *cells, ("mean", "", *_part_cells(means))])


def _part_row(name: str, runs: Sequence[Run]) -> tuple[str, int, list[float]]:
    values = [
        [run.edgetune.initial_accuracy or 0.0 for run in runs],
        [run.torch.initial_accuracy or 0.0 for run in runs],
        [run.edgetune.accuracy for run in runs],
        [run.torch.accuracy for run in runs],
    ]
    return name, runs[0].test_samples, [100 * statistics.fmean(column) for column in values]


def _part_cells(values: Sequence[float]) -> tuple[str, ...]:
    return (*(f"{value:.1f}" for value in values), f"{values[2] - values[3]:+.2f}")
