"""The frontier as a picture: importance over memory or energy. Equal points, equal bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from edgetune.errors import RuntimeSetupError
from edgetune.files.atomic import write_atomically
from edgetune.nouns.frontier import Axis, FrontierPoint

_MIB = 2**20
_UNITS: dict[Axis, str] = {"memory": "peak memory of the process (MiB)", "energy": "step (J)"}


def require_plotting() -> None:
    """Raise RuntimeSetupError where matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise RuntimeSetupError("--plot needs matplotlib: pip install 'edgetune[plot]'")


def write_frontier_plot(
    points: Sequence[FrontierPoint], axis: Axis, device: str, path: Path
) -> None:
    """Draw `points` into `path`, an .svg or a .png. Raises RuntimeSetupError, StorageError."""
    require_plotting()
    # Figures of their own rather than pyplot's: no window, no global state. Only plots need it.
    import matplotlib  # noqa: PLC0415
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    kind = path.suffix.lower().removeprefix(".")
    with matplotlib.rc_context({"svg.hashsalt": "edgetune", "svg.fonttype": "none"}):
        figure = Figure(figsize=(7.5, 4.5), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        best = [point for point in points if not point.name]
        x, y = [_amount(p, axis) for p in best], [100 * p.importance for p in best]
        axes.step(x, y, where="post", marker="o", label="best within a budget")
        for point in points:
            if point.name:
                place = (_amount(point, axis), 100 * point.importance)
                axes.plot(*place, "x", color="tab:orange")
                axes.annotate(point.name, place, xytext=(4, -10), textcoords="offset points")
        axes.plot([], [], "x", color="tab:orange", label="chosen by hand")
        axes.set_xlabel(_UNITS[axis])
        axes.set_ylabel("importance of what is trained (%)")
        axes.set_ylim(0, 105)
        axes.set_title(f"What more {axis} buys on {device}")
        axes.grid(alpha=0.3)
        figure.legend(loc="outside lower center", ncols=2)
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else None)
    write_atomically(path, buffer.getvalue())


def _amount(point: FrontierPoint, axis: Axis) -> float:
    return point.amount / _MIB if axis == "memory" else point.amount
