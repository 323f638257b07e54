"""`edgetune devices`: what is known about each device, and from where."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from edgetune.cli.output import add_json_option, print_json, table
from edgetune.files.device_profiles import load_profile, profile_ids
from edgetune.nouns.profile import (
    INT8,
    OPERATOR_CLASSES,
    PEAK,
    PREFIX,
    UPDATE,
    DeviceProfile,
    Quantity,
)
from edgetune.units import format_bytes


def add_to(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = commands.add_parser("devices", help="list devices, or one with its numbers' sources")
    parser.add_argument("device", nargs="?", help="a device id, or your own profile, a .toml")
    add_json_option(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    if options.device:
        profile = load_profile(options.device)
        print_json(profile) if options.json else print(_describe(profile))
        return
    profiles = [load_profile(name) for name in profile_ids()]
    if options.json:
        print_json(profiles)
        return
    heading = ("id", "memory", "usable", "cpu")
    print(table([heading, *(_row(profile) for profile in profiles)]))


def _row(profile: DeviceProfile) -> tuple[str, ...]:
    total, usable = profile.total_memory_bytes, profile.usable_memory_bytes
    return (
        profile.id,
        format_bytes(total.value) if total else "-",
        format_bytes(usable.value) if usable else "-",
        profile.cpu,
    )


def _describe(profile: DeviceProfile) -> str:
    rows = [("number", "value", "kind", "date", "source"), *_numbers(profile)]
    about = [
        f"{profile.id}: {profile.name}",
        f"{profile.cpu}; onnxruntime may use {profile.cores} cores",
        f"power taken at: {profile.power_scope or 'unknown'}; meter: {profile.meter or 'none'}",
    ]
    notes = [profile.notes.strip()] if profile.notes else []
    return "\n".join([*about, *notes, "", table(rows)])


def _numbers(profile: DeviceProfile) -> Iterator[tuple[str, ...]]:
    named: list[tuple[str, Quantity | None]] = [
        ("total memory", profile.total_memory_bytes),
        ("usable memory", profile.usable_memory_bytes),
        ("bandwidth", profile.bandwidth_bytes_per_second),
        ("peak bandwidth", profile.peak_bandwidth_bytes_per_second),
        ("dispatch", profile.dispatch_seconds),
        ("depthwise group", profile.group_seconds),
        ("idle power", profile.idle_watts),
        ("load power", profile.load_watts),
        *(
            (f"fp32 {name}", profile.flops_per_second.get(name))
            for name in (PEAK, *OPERATOR_CLASSES, *PREFIX.values())
        ),
        ("int8 products", profile.flops_per_second.get(INT8)),
        ("optimizer", profile.flops_per_second.get(UPDATE)),
    ]
    for name, number in named:
        if number is None:
            yield name, "unknown", "", "", ""
        else:
            yield name, _value(number), number.kind, number.date, number.source


def _value(number: Quantity) -> str:
    if number.unit == "byte":
        return format_bytes(number.value)
    return f"{number.value:.4g} {number.unit}"
