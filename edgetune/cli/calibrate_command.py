"""`edgetune calibrate`: measure this device, and write a profile of it."""

from __future__ import annotations

import argparse
import platform
import re
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

from edgetune.calibration.calibrate import Calibration, calibrate
from edgetune.calibration.profile_text import profile_text
from edgetune.calibration.timing import NOISY
from edgetune.calibration.workloads import DISPATCH, MOVING
from edgetune.cli.output import add_json_option, print_json, table
from edgetune.cli.phase_line import phase_line, silent
from edgetune.errors import DeviceError, UsageError
from edgetune.files.atomic import check_writable, write_atomically
from edgetune.files.device_profiles import load_profile
from edgetune.meters import find_meter
from edgetune.nouns.plain import to_plain
from edgetune.runtime.onnxruntime_packages import import_onnxruntime
from edgetune.units import format_bytes, format_seconds, parse_seconds

_SHORTEST = 1.0


def add_to(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = commands.add_parser(
        "calibrate", help="measure this device in about a minute, and write its profile"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE.toml", help="the profile (default HOST.toml)"
    )
    parser.add_argument(
        "--device",
        metavar="ID",
        help="take over from this profile what cannot be measured here (an id, or a .toml file)",
    )
    parser.add_argument("--id", help="of the new profile (default: the name of its file)")
    parser.add_argument(
        "--seconds", default="60s", metavar="TIME", help="how long to measure (default 60s)"
    )
    parser.add_argument(
        "--storage", type=Path, metavar="FOLDER", help="whose storage to measure (default: --out's)"
    )
    add_json_option(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    host = platform.node() or "unknown host"
    out = options.out or Path(re.sub(r"[^A-Za-z0-9_-]+", "-", host) + ".toml")
    if out.suffix != ".toml":
        raise UsageError(f"--out {out}: expected a name that ends in .toml, as all profiles do")
    seconds = parse_seconds(options.seconds)
    if seconds < _SHORTEST:
        raise UsageError(f"--seconds {options.seconds}: expected at least {_SHORTEST:g}s")
    check_writable(out)
    like = options.device and _base(options.device)
    meter = find_meter().meter
    progress = silent if options.json else phase_line()
    onnxruntime = import_onnxruntime()
    folder = options.storage or next(p for p in out.absolute().parents if p.is_dir())
    found = calibrate(onnxruntime, seconds, meter, folder, progress)
    progress("", 1.0)
    text = profile_text(found, options.id or out.stem, host, date.today().isoformat(), like)
    _check(text, like)
    write_atomically(out, text.encode())
    if options.json:
        print_json({"profile": str(out), "calibration": to_plain(found), "noisy": found.noisy})
    else:
        print(describe_calibration(found))
        print(f"profile      {out}: give it as --device {out}")


def _base(device: str) -> str:
    """The base profile as the new one names it, from wherever it lies. Raises DeviceError."""
    load_profile(device)
    return str(Path(device).resolve()) if device.endswith(".toml") else device


def _check(text: str, like: str | None) -> None:
    """Raise DeviceError where the numbers cannot all be true, before anything is written."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "measured.toml"
        path.write_text(text, encoding="utf-8")
        try:
            load_profile(str(path))
        except DeviceError as error:
            why = str(error).replace(str(path), "just measured")
            hint = (
                ""
                if like is None
                else f"; is this device one like {like}? Else choose another, or leave --device out"
            )
            raise DeviceError(f"{why}{hint}") from error


def describe_calibration(found: Calibration) -> str:
    """What was measured, with the spread of every time."""
    heading = ("what", "size", "rate", "time", "spread", "repetitions")
    lines = [heading]
    for item in found.timed:
        duration = item.duration
        spread = f"{duration.spread:.0%}" + (" noisy" if duration.noisy else "")
        rate, time = _rate(item.measures, item.rate), format_seconds(duration.seconds)
        lines.append((item.measures, item.name, rate, time, spread, str(duration.rounds)))
    rows = [("number", "value"), *_numbers(found)]
    noisy = (
        f"{len(found.noisy)} of {len(found.timed)} workloads are noisy (spread over {NOISY:.0%}): "
        "what else runs here? Calibrate again when it is quiet before you trust predicted times"
    )
    quiet = f"no workload's spread is over {NOISY:.0%}"
    return "\n".join([table(lines), "", table(rows), "", noisy if found.noisy else quiet])


def _rate(measures: str, rate: float) -> str:
    if measures == DISPATCH:
        return f"{1e6 / rate:.2f} us per operator"
    return f"{rate / 1e9:.1f} {'GB/s' if measures == MOVING else 'GFLOP/s'}"


def _numbers(found: Calibration) -> Iterator[tuple[str, str]]:
    yield "cores", str(found.cores)
    yield "cpu", found.cpu
    for key, duration in sorted(found.rates.items()):
        yield key, _rate(key, 1 / duration.seconds)
    yield "memory copy, one thread", f"{1e-9 / found.copy.seconds:.1f} GB/s"
    for name, count in (
        ("usable memory", found.usable_memory_bytes),
        ("process with onnxruntime", found.process_bytes),
    ):
        yield name, "unknown" if count is None else format_bytes(count)
    power, storage = found.power, found.storage
    yield "idle power", "no meter" if power is None else f"{power.idle_watts:.2f} W ({power.scope})"
    yield "load power", "no meter" if power is None else f"{power.load_watts:.2f} W ({power.scope})"
    if storage is not None:
        yield "storage, writing", f"{format_bytes(storage.write_bytes_per_second)}/s"
        read = storage.read_bytes_per_second
        yield "storage, reading", "unknown" if read is None else f"{format_bytes(read)}/s"
