"""How much memory this process holds, and how much more whatever limits it would give."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from edgetune.guards.cgroups import MemoryCgroup, memory_cgroups, read_small


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

    def tight(self, needed_bytes: int) -> Room | None:
        """The room that is the smallest, if it has less than `needed_bytes`."""
        rooms = [*(self._of_group(g, needed_bytes) for g in self.groups), self._of_machine()]
        narrow = [room for room in rooms if room is not None and room.free_bytes < needed_bytes]
        return min(narrow, key=lambda room: room.free_bytes, default=None)

    def _of_group(self, group: MemoryCgroup, needed_bytes: int) -> Room | None:
        limit = group.limit_bytes()
        used = group.used_bytes() if limit is not None else None
        if limit is None or used is None:
            return None
        if limit - used < needed_bytes:  # memory.stat is slow to read, and seldom needed
            used = max(used - group.reclaimable_bytes(), 0)
        return Room(f"the cgroup {group.name}", limit, used)

    def _of_machine(self) -> Room | None:
        """Where no memory controller is on, as on Raspberry Pi OS, this is what kills."""
        text = read_small(f"{self.root}/proc/meminfo")
        total, available = _kib(text, "MemTotal"), _kib(text, "MemAvailable")
        if total is None or available is None:
            return None
        return Room("the machine", total, total - available)


def memory_files(root: Path = Path("/")) -> MemoryFiles:
    """Those of this process."""
    return MemoryFiles(root, memory_cgroups(root))


def _kib(text: str, name: str) -> int | None:
    """The value in bytes of a line `name: 123 kB`, as /proc has them."""
    _, found, rest = text.partition(f"{name}:")
    return int(rest.split(maxsplit=1)[0]) * 1024 if found else None
