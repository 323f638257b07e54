"""Whether power can be metered, and what heat and supply do to the machine."""

from __future__ import annotations

from collections.abc import Iterator

from edgetune.calibration.heat import Heat
from edgetune.doctor.finding import Finding
from edgetune.meters import MeterSearch
from edgetune.units import format_celsius

_HOT_CELSIUS = 80.0
"""A Raspberry Pi caps its clock from here on; others at 85 to 100."""

_WITHOUT = (
    "--energy and --power then need --meter command:COMMAND (docs/meters.md), or a profile that "
    "knows the device's power"
)


def meter_finding(search: MeterSearch) -> Finding:
    """What `find_meter` found, without a profile: a sensor, one that cannot be read, or none."""
    if search.meter is not None:
        meter = search.meter
        return Finding("power meter", "ok", f"{meter.source}; scope: {meter.scope}")
    if not search.unreadable:
        return Finding("power meter", "note", "none; this machine has no sensor", _WITHOUT)
    kinds = ", ".join(kind for kind, _ in search.unreadable)
    reasons = "; ".join(reason for _, reason in search.unreadable)
    return Finding(
        "power meter", "note", f"{kinds}, which cannot be read", f"{reasons}. {_WITHOUT}"
    )


def heat_findings(heat: Heat) -> Iterator[Finding]:
    """Temperature, and what holds the processor back where the machine tells."""
    if heat.celsius is None:
        advice = "--temperature cannot be held: no thermal zone can be read"
        yield Finding("temperature", "note", "unknown", advice)
    elif heat.celsius >= _HOT_CELSIUS:
        advice = "the processor slows down: cool it, or train with --temperature 75C"
        yield Finding("temperature", "note", format_celsius(heat.celsius), advice)
    else:
        yield Finding("temperature", "ok", format_celsius(heat.celsius))
    if heat.throttling:
        weak = any(name.startswith("under-voltage") for name in heat.throttling)
        advice = "use the board's own supply and a short cable" if weak else "cool the board"
        found = ", ".join(heat.throttling)
        yield Finding("throttling", "note", found, f"steps take longer than predicted: {advice}")
    elif heat.throttling is not None:
        yield Finding("throttling", "ok", "none, now or since boot")
