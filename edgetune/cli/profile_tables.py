"""What `edgetune profile` found, as text and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edgetune.calibration.bundle_steps import MeasuredStep
from edgetune.calibration.operator_times import TimeOf
from edgetune.calibration.verdicts import Verdict
from edgetune.cli.output import table
from edgetune.nouns.cost import StepCost
from edgetune.nouns.plain import to_plain
from edgetune.units import format_bytes, format_joules, format_seconds

_MOST_ROWS = 12
_FORMATS: dict[str, Callable[[float], str]] = {
    "byte": format_bytes,
    "J": format_joules,
    "s": format_seconds,
}


@dataclass(frozen=True)
class Report:
    """One bundle, measured. device: what `predicted` is of. operators, modules: in one step."""

    bundle: str
    device: str
    trainable_share: float
    predicted: StepCost
    measured: MeasuredStep
    verdicts: tuple[Verdict, ...]
    operators: tuple[TimeOf, ...]
    modules: tuple[TimeOf, ...]


def report_json(report: Report) -> dict[str, Any]:
    """The report as plain values, with what follows from the times; null is what was not told."""
    measured = report.measured
    steps = {
        "steps": len(measured.times),
        "median_seconds": measured.median_seconds,
        "p95_seconds": measured.p95_seconds,
        "peak_bytes": measured.memory.process_bytes,
        "cgroup_peak_bytes": measured.memory.cgroup_bytes,
        "joules_per_step": measured.joules,
        "energy": to_plain(measured.energy),
        "heat": to_plain(measured.heat),
    }
    judged = [{**to_plain(v), "exceeded": v.exceeded} for v in report.verdicts]
    kept = ("bundle", "device", "trainable_share", "predicted", "operators", "modules")
    plain = {key: to_plain(getattr(report, key)) for key in kept}
    return {**plain, "measured": steps, "verdicts": judged}


def described(report: Report, meter: str) -> str:
    """One bundle: measured beside predicted, the verdicts, and where the time goes."""
    rows = [("", "measured", f"predicted for {report.device}"), *_rows(report)]
    judged = [(v.budget, _FORMATS[v.unit](v.limit), v.text) for v in report.verdicts]
    budgets = table([("budget", "limit", "verdict"), *judged]) if judged else "no budgets"
    parts = [f"{report.bundle}: {len(report.measured.times)} steps", table(rows), budgets]
    for name, times in (("operator", report.operators), ("module", report.modules)):
        if times:
            parts.append(table([(name, "time", "share", "nodes"), *_times(times)]))
    if report.measured.energy is None:
        parts.append(meter)
    return "\n\n".join(parts)


def compared(reports: Sequence[Report]) -> str:
    """All bundles in one table, the first one's time as 100 %."""
    first = reports[0].measured.median_seconds
    heading = (
        *("bundle", "trainable", "step", "p95", "of the first", "predicted"),
        *("peak", "predicted", "energy", "budgets"),
    )
    lines = [heading]
    for report in reports:
        measured, predicted = report.measured, report.predicted
        over = [v.budget for v in report.verdicts if v.exceeded]
        lines.append(
            (
                report.bundle,
                f"{report.trainable_share:.1%}",
                format_seconds(measured.median_seconds),
                format_seconds(measured.p95_seconds),
                f"{measured.median_seconds / first:.0%}",
                _known(predicted.seconds, format_seconds),
                _known(measured.memory.process_bytes, format_bytes),
                format_bytes(predicted.peak_bytes),
                _energy(measured),
                f"exceeded: {', '.join(over)}" if over else "within" if report.verdicts else "-",
            )
        )
    return table(lines)


def _rows(report: Report) -> Iterator[tuple[str, str, str]]:
    measured, predicted = report.measured, report.predicted
    step = _known(predicted.seconds, format_seconds)
    if predicted.seconds is not None:
        step += f" ({predicted.seconds / measured.median_seconds:.2f} of what was measured)"
    yield "step, median", format_seconds(measured.median_seconds), step
    yield "step, p95", format_seconds(measured.p95_seconds), ""
    peak = format_bytes(predicted.peak_bytes)
    yield "peak, process", _known(measured.memory.process_bytes, format_bytes), peak
    yield "peak, cgroup so far", _known(measured.memory.cgroup_bytes, format_bytes), ""
    yield "energy per step", _energy(measured), _known(predicted.joules, format_joules)
    celsius, throttling = measured.heat.celsius, measured.heat.throttling
    yield "temperature", _known(celsius, lambda value: f"{value:.1f} C"), ""
    yield "throttling", "unknown" if throttling is None else ", ".join(throttling) or "none", ""


def _energy(measured: MeasuredStep) -> str:
    energy, joules = measured.energy, measured.joules
    if energy is None or joules is None:
        return "no meter"
    bound = energy.error_bound_joules / len(measured.times)
    return f"{format_joules(joules)} +- {format_joules(bound)} ({energy.scope}, {energy.kind})"


def _known(value: float | None, text: Callable[[float], str]) -> str:
    return "unknown" if value is None else text(value)


def _times(times: Sequence[TimeOf]) -> Iterator[tuple[str, str, str, str]]:
    whole = sum(item.seconds for item in times)
    for item in times[:_MOST_ROWS]:
        share = f"{item.seconds / whole:.1%}"
        yield item.name, format_seconds(item.seconds), share, str(item.nodes)
    rest = times[_MOST_ROWS:]
    if rest:
        seconds, nodes = sum(i.seconds for i in rest), sum(i.nodes for i in rest)
        share = f"{seconds / whole:.1%}"
        yield f"{len(rest)} others", format_seconds(seconds), share, str(nodes)
