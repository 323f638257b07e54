"""How hot a machine is, and whether it holds itself back for it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgetune.errors import DeviceError
from edgetune.guards.temperature import open_thermometer

_TIMEOUT_SECONDS = 2.0
# Bits of `vcgencmd get_throttled`: Raspberry Pi documentation, raspberrypi-utils, vcgencmd.
_NOW = {
    0: "under-voltage",
    1: "frequency capped",
    2: "throttled",
    3: "soft temperature limit",
}
_SINCE_BOOT = 16  # the same bits, moved by as many, say that it has been so


@dataclass(frozen=True)
class Heat:
    """celsius: of the hottest zone; None where no zone can be read. throttling: what holds the
    processor back now, or has since it booted; None where nothing tells.
    """

    celsius: float | None
    throttling: tuple[str, ...] | None


def _get_throttled() -> str | None:
    """What `vcgencmd get_throttled` prints; None where there is no such command."""
    try:
        done = subprocess.run(
            ["vcgencmd", "get_throttled"],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def read_heat(
    root: Path = Path("/"), get_throttled: Callable[[], str | None] = _get_throttled
) -> Heat:
    """The state of the machine whose files are under `root`. Never raises."""
    celsius = None
    with suppress(DeviceError):  # there is no zone that can be read
        celsius = open_thermometer(root).celsius()
    said = get_throttled()
    return Heat(celsius, None if said is None else _flags(said))


def _flags(said: str) -> tuple[str, ...] | None:
    """The names in 'throttled=0x50005'; None where it is something else."""
    try:
        bits = int(said.strip().removeprefix("throttled="), 16)
    except ValueError:
        return None
    now = [name for bit, name in _NOW.items() if bits >> bit & 1]
    before = [f"{name} since boot" for bit, name in _NOW.items() if bits >> (bit + _SINCE_BOOT) & 1]
    return (*now, *before)
