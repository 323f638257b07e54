"""A timeline as text: neighbouring operations of the same part of the model in one row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from edgetune.cli.output import table
from edgetune.nouns.timeline import Timeline, TimelineMoment
from edgetune.planning.module_names import parent, shared_depth
from edgetune.units import format_bytes

MOST_ROWS, MOST_HOLDERS = 40, 8
_FEWEST_ROWS = 20  # parts of the model are not put together to fewer rows than these
_BAR = 40
_LOSS = "the loss"  # the exporter's name for what comes from no module


@dataclass(frozen=True)
class _Row:
    """Neighbouring operations of one phase: the modules of the first and last, the largest load."""

    phase: str
    first: str
    last: str
    count: int
    live_bytes: int
    is_peak: bool

    @property
    def part(self) -> str:
        """`encoder.layer.3`, or `encoder.layer.3..5` of neighbours."""
        depth = shared_depth(self.first, self.last)
        common, ends = self.first.split(".")[:depth], (self.first, self.last)
        following = [name.split(".")[depth : depth + 1] for name in ends]
        return ".".join([*common, "..".join(n for (n,) in following)] if all(following) else common)


def describe_timeline(timeline: Timeline) -> str:
    """The load over a step as bars, and what holds the peak."""
    cost, moments = timeline.cost, timeline.moments
    always = format_bytes(cost.base_bytes + cost.weight_bytes + cost.state_bytes)
    live = format_bytes(cost.activation_bytes)
    short = _shortened(moments)
    rows = [("phase", "part of the model", "operations", "alive", "")]
    for row in _rows(moments, timeline.peak, short):
        bar = "#" * round(_BAR * row.live_bytes / (cost.activation_bytes or 1))
        mark = " <- peak" if row.is_peak else ""
        rows.append((row.phase, row.part, str(row.count), format_bytes(row.live_bytes), bar + mark))
    peak = moments[timeline.peak]
    return "\n".join(
        [
            f"timeline     alive besides the {always} of process, weights and optimizer state",
            table(rows),
            "",
            f"peak         {format_bytes(cost.peak_bytes)} at {cost.peak_at}"
            f"{_in(short(peak.module))}: {always} + {live}, held by",
            table([("size", "tensor", "made by", "kept until"), *_holders(timeline, short)]),
            _together(timeline),
        ]
    )


def _holders(timeline: Timeline, short: Callable[[str], str]) -> list[tuple[str, ...]]:
    return [
        (
            format_bytes(holder.bytes),
            holder.tensor,
            (short(holder.made_in) or holder.made_by)
            if holder.made_by == holder.tensor
            else holder.made_by + _in(short(holder.made_in)),
            holder.kept_until + _in(short(holder.kept_for)),
        )
        for holder in timeline.holders[:MOST_HOLDERS]
    ]


def _together(timeline: Timeline) -> str:
    more = timeline.holders[MOST_HOLDERS:]
    smaller = f", {len(more)} smaller ones included" if more else ""
    together = f"together {format_bytes(sum(holder.bytes for holder in timeline.holders))}{smaller}"
    if timeline.overhead == 1:
        return together
    workspace = timeline.workspace_bytes
    kernel = f", + {format_bytes(workspace)} workspace of a kernel" if workspace else ""
    live = format_bytes(timeline.cost.activation_bytes)
    return f"{together}; x {timeline.overhead:g} for the allocator's gaps{kernel} = {live}"


def _rows(moments: Sequence[TimelineMoment], peak: int, short: Callable[[str], str]) -> list[_Row]:
    """At most MOST_ROWS rows: neighbours that lie closest in the model are put together first."""
    rows = _by_module(moments, peak, short)
    deepest = max((row.first.count(".") + 1 for row in rows), default=0)
    for depth in range(deepest, 0, -1):
        if len(rows) <= MOST_ROWS:
            break
        coarser = _joined([_cut(row, depth) for row in rows])
        if len(coarser) < _FEWEST_ROWS:
            break
        rows = coarser
    while len(rows) > MOST_ROWS:
        at = min(range(len(rows) - 1), key=lambda i: _distance(rows[i], rows[i + 1]))
        rows[at : at + 2] = [_merged(rows[at], rows[at + 1])]
    return rows


def _by_module(
    moments: Sequence[TimelineMoment], peak: int, short: Callable[[str], str]
) -> list[_Row]:
    rows = []
    module, before = "", ""
    for index, moment in enumerate(moments):
        if moment.operator_class == "view":
            continue
        # What has no module belongs to what is around it; so do sums of gradients in the backward.
        name = short(moment.module)
        if name and (name != _LOSS or moment.phase != before or module == _LOSS):
            module = name
        before = moment.phase
        part = module if moment.operator_class else ""
        rows.append(_Row(moment.phase, part, part, 1, moment.live_bytes, index == peak))
    return _joined(rows)


def _cut(row: _Row, depth: int) -> _Row:
    first, last = (".".join(name.split(".")[:depth]) for name in (row.first, row.last))
    return replace(row, first=first, last=last)


def _joined(rows: Sequence[_Row]) -> list[_Row]:
    """Neighbours of the same part in one row."""
    joined: list[_Row] = []
    for row in rows:
        if joined and (joined[-1].phase, joined[-1].last) == (row.phase, row.first):
            joined.append(_merged(joined.pop(), row))
        else:
            joined.append(row)
    return joined


def _distance(row: _Row, following: _Row) -> tuple[bool, int, int]:
    """Rows of two phases come together last, and small ones of neighbouring parts first."""
    depth = shared_depth(row.last, following.first)
    return row.phase != following.phase, -depth, row.count + following.count


def _merged(row: _Row, following: _Row) -> _Row:
    return _Row(
        row.phase,
        row.first,
        following.last,
        row.count + following.count,
        max(row.live_bytes, following.live_bytes),
        row.is_peak or following.is_peak,
    )


def _shortened(moments: Sequence[TimelineMoment]) -> Callable[[str], str]:
    """`layer.3.conv` of `model.layer.3.conv (Conv2d)` where all modules lie in `model`."""
    modules = [m.module.split(" (")[0] for m in moments if m.module and m.module != _LOSS]
    depth = min((shared_depth(modules[0], parent(module)) for module in modules), default=0)
    common = "".join(f"{part}." for part in modules[0].split(".")[:depth]) if modules else ""
    return lambda module: module.split(" (")[0].removeprefix(common)


def _in(module: str) -> str:
    return f" ({module})" if module else ""
