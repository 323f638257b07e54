"""What limits memory here, and whether a limit that systemd sets would hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgetune.doctor.finding import Finding
from edgetune.guards.cgroups import memory_controller, read_small
from edgetune.guards.memory_room import MemoryFiles, Room
from edgetune.meters.boards import this_machine
from edgetune.units import format_bytes

_SWITCH = "cgroup_enable=memory"
_SWITCHES = f"{_SWITCH} cgroup_memory=1"
_CMDLINES = ("boot/firmware/cmdline.txt", "boot/cmdline.txt")  # since Bookworm, and before


def memory_findings(files: MemoryFiles) -> Iterator[Finding]:
    """The controller, what has a limit, and the memory that is free. Never raises."""
    yield _controller(files.root)
    rooms = files.rooms()
    limits = [(limit, g.name) for g in files.groups if (limit := g.limit_bytes()) is not None]
    if limits:
        limit, name = min(limits)
        yield Finding("memory limit", "ok", f"{format_bytes(limit)}, the cgroup {name}")
    else:
        yield Finding("memory limit", "ok", "none; no cgroup of this process has one")
    if not rooms:
        advice = "this system does not tell: --memory alone is held while training"
        yield Finding("memory", "note", "unknown", advice)
        return
    tightest = tightest_room(rooms)
    total = format_bytes(tightest.limit_bytes)
    found = f"{format_bytes(tightest.free_bytes)} of {total} free, {tightest.where}"
    yield Finding("memory", "ok", found)


def tightest_room(rooms: list[Room]) -> Room:
    """That which gives the least."""
    return min(rooms, key=lambda room: room.free_bytes)


def _controller(root: Path) -> Finding:
    controller = memory_controller(root)
    if controller is None:
        advice = "no cgroups are mounted that tell: do not rely on MemoryMax"
        return Finding("memory controller", "note", "unknown", advice)
    if controller.is_on:
        return Finding("memory controller", "ok", f"on, cgroups of version {controller.version}")
    advice = (
        f"systemd's MemoryMax is silently without effect, while edgetune's own budgets hold. "
        f"{_how_to_switch_on(root)}"
    )
    return Finding("memory controller", "note", "off", advice)


def _how_to_switch_on(root: Path) -> str:
    if not this_machine(root).is_raspberry_pi:
        return f"To switch it on: {_SWITCH} on the kernel's command line, then start again"
    files = [name for name in _CMDLINES if (root / name).is_file()] or list(_CMDLINES[:1])
    if _SWITCH in read_small(f"{root}/{files[0]}"):
        return f"/{files[0]} switches it on at the next start: sudo reboot"
    return (
        f"Raspberry Pi OS switches it off: append {_SWITCHES} to the one line of /{files[0]}, then "
        "sudo reboot"
    )
