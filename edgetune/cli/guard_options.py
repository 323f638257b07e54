"""The options of a command that trains: what the run may have, and what meters it."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from edgetune.errors import EdgetuneError, UsageError, raise_all
from edgetune.files.device_profiles import load_profile
from edgetune.guards.limits import Limits, with_plans_energy, with_plans_memory
from edgetune.meters.external import ExternalMeter
from edgetune.meters.find import find_meter
from edgetune.meters.meter import Meter
from edgetune.nouns.manifest import Manifest
from edgetune.units import (
    parse_bytes,
    parse_celsius,
    parse_joules,
    parse_percent,
    parse_seconds,
    parse_watts,
)

_COMMAND = "command:"
_NONE = "none"

_PARSERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "memory": ("memory_bytes", parse_bytes),
    "energy": ("energy_joules", parse_joules),
    "power": ("power_watts", parse_watts),
    "seconds": ("seconds", parse_seconds),
    "temperature": ("celsius", parse_celsius),
    "battery_floor": ("battery_percent", parse_percent),
}
"""Option, field of Limits, reader."""


def add_guard_options(parser: argparse.ArgumentParser) -> None:
    """Add the budgets that are held while the run works."""
    group = parser.add_argument_group(
        "budgets, held while training (--memory and --energy: by default the plan's, none lifts it)"
    )
    group.add_argument(
        "--memory", help="of the whole process, data included, such as 200MiB; else exit code 20"
    )
    group.add_argument("--energy", help="of this call, such as 500J or 2Wh; exit code 21")
    group.add_argument(
        "--replan",
        action="store_true",
        help="end the run with code 21, while energy is left, when its steps take over 20 %% more "
        "than planned and --energy will not last; the commands that go on within it are said",
    )
    group.add_argument("--seconds", help="of this call, such as 30min; exit code 22")
    group.add_argument(
        "--temperature", help="pause above it, such as 80C; exit code 23 when that does not help"
    )
    group.add_argument(
        "--power",
        help="mean over ten seconds, such as 4W, held by pauses; exit code 24 when that cannot be",
    )
    group.add_argument("--battery-floor", help="end below it, such as 30%%; exit code 25")
    group.add_argument(
        "--meter",
        help="auto (the default where energy or power is held: what this machine has, else the "
        "profile's estimate), none, or command:COMMAND, which prints watts, one number a line",
    )
    group.add_argument(
        "--meter-scope",
        choices=("module", "board", "wall"),
        help="what the COMMAND of --meter measures",
    )


def limits_from(options: argparse.Namespace, manifest: Manifest, data_bytes: int) -> Limits:
    """What the options and the bundle's plan bound. Raises one UsageError with all problems."""
    limits = Limits(**_given(options))
    if options.memory is None:
        limits = with_plans_memory(limits, manifest, data_bytes)
    if options.energy is None:
        limits = with_plans_energy(limits, manifest, options.resume)
    if limits.needs_meter and options.meter == _NONE:
        whose = "" if options.energy or options.power else "the plan's budget of "
        raise UsageError(
            f"{whose}energy or power cannot be held with --meter none: use --meter auto or "
            "command:COMMAND, or --energy none"
        )
    return limits


def check_guard_options(options: argparse.Namespace) -> None:
    """Raise one UsageError with all that is wrong, before anything is loaded."""
    _given(options)


def _given(options: argparse.Namespace) -> dict[str, Any]:
    problems = list(_meter_problems(options))
    given: dict[str, Any] = {"memory_from": "--memory"}
    for option, (field, parse) in _PARSERS.items():
        text = getattr(options, option)
        if text is None or (text == _NONE and option in ("memory", "energy")):
            continue
        try:
            given[field] = parse(text)
        except UsageError as error:
            problems.append(f"--{option.replace('_', '-')}: {error}")
    raise_all(UsageError, "cannot use these options", problems)
    return given


def _meter_problems(options: argparse.Namespace) -> Iterator[str]:
    meter, scope = options.meter, options.meter_scope
    if meter is not None and meter not in ("auto", _NONE) and not meter.startswith(_COMMAND):
        yield f"--meter is {meter!r}: expected auto, none or command:COMMAND"
    of_command = meter is not None and meter.startswith(_COMMAND)
    if of_command and not meter[len(_COMMAND) :].strip():
        yield "--meter command: names no command, such as command:'python3 -u read_ina219.py'"
    if of_command and scope is None:
        yield "--meter command:... needs --meter-scope: nobody else knows what it measures"
    if scope is not None and not of_command:
        yield "--meter-scope says what the command of --meter command:... measures: leave it out"


@contextmanager
def meter_from(
    options: argparse.Namespace, limits: Limits, manifest: Manifest
) -> Iterator[Meter | None]:
    """The meter that the options name, if it is needed or asked for. Raises MeterError."""
    name = options.meter
    if name == _NONE or (name is None and not limits.needs_meter):
        yield None
    elif name is not None and name.startswith(_COMMAND):
        with ExternalMeter(shlex.split(name[len(_COMMAND) :]), options.meter_scope) as meter:
            yield meter
    else:
        try:
            profile = load_profile(manifest.plan.device)
        except EdgetuneError:  # a user's own, which stayed on the workstation
            profile = None
        search = find_meter(profile=profile)
        yield search.require() if limits.needs_meter else search.meter
