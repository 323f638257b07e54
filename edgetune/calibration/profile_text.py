"""A calibration as the text of a device profile, in a fixed order."""

from __future__ import annotations

from collections.abc import Iterator

from edgetune.calibration.calibrate import Calibration
from edgetune.calibration.workloads import DISPATCH, GROUP, MOVING
from edgetune.nouns.profile import INT8, PEAK, UPDATE
from edgetune.units import format_bytes

_DIGITS = 4  # of a number: no machine repeats more


def profile_text(
    calibration: Calibration, profile_id: str, host: str, date: str, like: str | None
) -> str:
    """The TOML of a profile whose numbers were all measured here.

    like: the profile that everything else is taken over from. date: YYYY-MM-DD.
    """
    source = f"edgetune calibrate on {host}, onnxruntime {calibration.onnxruntime}"

    def number(value: float, how: str) -> str:
        told = _text(f"{source}: {how}")
        rounded = f"{value:.{_DIGITS}g}" if value < 1e15 else f"{value:.{_DIGITS}e}"
        return (
            f'{{ value = {float(rounded)!r}, kind = "measured", source = {told}, date = "{date}" }}'
        )

    lines = [
        f"id = {_text(profile_id)}",
        f"name = {_text(f'{host}, calibrated')}",
        *([] if like is None else [f"like = {_text(like)}"]),
        f"cpu = {_text(calibration.cpu)}",
        f"cores = {calibration.cores}",
    ]
    power = calibration.power
    if power is not None:
        lines += [f'power_scope = "{power.scope}"', f"meter = {_text(power.meter)}"]
    lines += [f"notes = {_text(' '.join(_notes(calibration)))}", ""]
    if calibration.usable_memory_bytes is not None:
        size = number(calibration.usable_memory_bytes, "MemTotal, or the limit of the cgroup")
        lines.append(f"usable_memory_bytes = {size}")
    moving = calibration.rates[MOVING]
    how = f"element-wise operators, bytes read and written, {_rounds(moving.rounds)}"
    lines.append(f"bandwidth_bytes_per_second = {number(1 / moving.seconds, how)}")
    how = "operators on next to nothing, in a row"
    lines.append(f"dispatch_seconds = {number(calibration.rates[DISPATCH].seconds, how)}")
    how = "depthwise convolutions of small images"
    lines.append(f"group_seconds = {number(calibration.rates[GROUP].seconds, how)}")
    if power is not None:
        lines.append(f"idle_watts = {number(power.idle_watts, power.source)}")
        lines.append(f"load_watts = {number(power.load_watts, power.source)}")
    lines += ["", "[flops_per_second]"]
    no_flops = (MOVING, DISPATCH, GROUP)
    fp32 = [t for t in calibration.timed if t.measures not in (*no_flops, INT8, UPDATE)]
    fastest = max(fp32, key=lambda t: t.rate)
    how = f"the fastest of all, {fastest.measures} {fastest.name}, stands in for the peak"
    lines.append(f"{PEAK} = {number(fastest.rate, how)}")
    for key, duration in sorted(calibration.rates.items()):
        if key not in no_flops:
            lines.append(f"{key} = {number(1 / duration.seconds, _rounds(duration.rounds))}")
    return "\n".join([*lines, ""])


def _rounds(count: int) -> str:
    return f"over several sizes, medians of {count} interleaved repetitions"


def _notes(calibration: Calibration) -> Iterator[str]:
    yield f"Copying memory on one thread: {_rate(1 / calibration.copy.seconds)}."
    if calibration.process_bytes is not None:
        yield f"Process with onnxruntime loaded: {format_bytes(calibration.process_bytes)}."
    if calibration.storage is not None:
        yield f"Storage: writes {_rate(calibration.storage.write_bytes_per_second)}."
        if calibration.storage.read_bytes_per_second is not None:
            yield f"It reads {_rate(calibration.storage.read_bytes_per_second)}."
    if calibration.noisy:
        yield f"The machine was busy: {len(calibration.noisy)} workloads have noisy times."


def _rate(bytes_per_second: float) -> str:
    return f"{format_bytes(bytes_per_second)}/s"


def _text(value: str) -> str:
    """A TOML basic string on one line (toml.io, v1.0.0)."""
    plain = "".join(c if c >= " " and c != "\x7f" else " " for c in value)
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
