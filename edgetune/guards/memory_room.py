"""How much memory this process holds, and how much more whatever limits it would give."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from edgetune.guards.cgroups import MemoryCgroup, memory_cgroups, read_small

_LOOKS = 4
"""So many that a whole step is among them: pieces take unequal time."""


@dataclass(frozen=True)
class ProcessMemory:
    """Resident memory of this process in bytes: now, and the most since it started."""

    resident_bytes: int
    peak_bytes: int


@dataclass(frozen=True)
class Room:
    """What a limit still allows. where: the cgroup, or the machine. used_bytes: without what the
    kernel takes back before it kills.
    """

    where: str
    limit_bytes: int
    used_bytes: int

    @property
    def free_bytes(self) -> int:
        return self.limit_bytes - self.used_bytes


@dataclass(frozen=True)
class MemoryFiles:
    """Reads /proc and the cgroups' files under `root`. groups: as `memory_cgroups` finds them."""

    root: Path
    groups: tuple[MemoryCgroup, ...]

    def process(self) -> ProcessMemory | None:
        """None where the system does not tell (not Linux)."""
        pages = read_small(f"{self.root}/proc/self/statm").split()
        if len(pages) < 2:
            return None
        resident = int(pages[1]) * os.sysconf("SC_PAGE_SIZE")
        peak = _kib(read_small(f"{self.root}/proc/self/status"), "VmHWM") or 0
        return ProcessMemory(resident, max(resident, peak))  # the kernel adds up now and then

    def rooms(self) -> list[Room]:
        """Of every cgroup that has a limit, and of the machine."""
        rooms = [*(_of_group(group) for group in self.groups), self._of_machine()]
        return [room for room in rooms if room is not None]

    def total_bytes(self) -> int | None:
        """What the kernel has for all processes; None where the system does not tell."""
        return _kib(read_small(f"{self.root}/proc/meminfo"), "MemTotal")

    def _of_machine(self) -> Room | None:
        """Where no memory controller is on, as on Raspberry Pi OS, this is what kills."""
        text = read_small(f"{self.root}/proc/meminfo")
        total, available = _kib(text, "MemTotal"), _kib(text, "MemAvailable")
        if total is None or available is None:
            return None
        return Room("the machine", total, total - available)


class Neighbours:
    """By how much those who share a room may grow while this process works on one piece.

    As much as they did between two of the last few looks: then the piece ends before they have
    filled the room, unless they grow faster than ever.
    """

    def __init__(self) -> None:
        self._held: dict[str, int] = {}
        self._growths: dict[str, deque[int]] = {}

    def growth_bytes(self, room: Room, resident_bytes: int) -> int:
        """Look at what others hold in `room`, when this process holds `resident_bytes`."""
        held = room.used_bytes - resident_bytes
        growths = self._growths.setdefault(room.where, deque([0], maxlen=_LOOKS))
        growths.append(max(held - self._held.get(room.where, held), 0))
        self._held[room.where] = held
        return max(growths)


def _of_group(group: MemoryCgroup) -> Room | None:
    limit = group.limit_bytes()
    used = group.used_bytes() if limit is not None else None
    if limit is None or used is None:
        return None
    return Room(f"the cgroup {group.name}", limit, max(used - group.reclaimable_bytes(), 0))


def memory_files(root: Path = Path("/")) -> MemoryFiles:
    """Those of this process."""
    return MemoryFiles(root, memory_cgroups(root))


def _kib(text: str, name: str) -> int | None:
    """The value in bytes of a line `name: 123 kB`, as /proc has them."""
    _, found, rest = text.partition(f"{name}:")
    return int(rest.split(maxsplit=1)[0]) * 1024 if found else None
