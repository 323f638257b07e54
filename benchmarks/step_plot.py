"""Step times and memory as a picture: one row of bars per side."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

from step_ratios import Results

from edgetune.files.atomic import write_atomically

_MIB = 2**20
_BAR_INCHES = 0.22


def write_step_plot(by_workload: Mapping[str, Results], path: Path) -> None:
    """Draw into `path`, an .svg."""
    # As in edgetune_exporters/frontier_plot.py: no window, no global state, only here needed.
    import matplotlib  # noqa: PLC0415
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    bars = [len(results) for results in by_workload.values()]
    with matplotlib.rc_context({"svg.hashsalt": "edgetune", "svg.fonttype": "none"}):
        height = _BAR_INCHES * sum(bars) + 1.2 * len(bars)
        figure = Figure(figsize=(11, height), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(len(bars), 2, squeeze=False, gridspec_kw={"height_ratios": bars})
        for (times, memory), (workload, results) in zip(grid, by_workload.items(), strict=True):
            names = [f"{selection}: {side}" for selection, side in results]
            colours = ["tab:blue" if "edgetune" in name else "tab:gray" for name in names]
            milliseconds = [1e3 * m.median_seconds for m in results.values()]
            times.barh(names, milliseconds, color=colours)
            times.set_xscale("log")
            times.set_title(f"{workload}: step (ms)")
            mebibytes = [m.over_base_bytes / _MIB for m in results.values()]
            memory.barh(names, mebibytes, color=colours)
            memory.set_title("peak over the imports (MiB)")
            memory.set_yticklabels([])
            for axes in (times, memory):
                axes.invert_yaxis()
                axes.grid(axis="x", alpha=0.3)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    write_atomically(path, buffer.getvalue())
