"""How much memory this process holds, and how much more whatever limits it would give."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from edgetune.guards.cgroups import MemoryCgroup, memory_cgroups


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
        try:
            pages = int((self.root / "proc/self/statm").read_text().split()[1])
            status = (self.root / "proc/self/status").read_text()
        except (OSError, ValueError, IndexError):
            return None
        resident = pages * os.sysconf("SC_PAGE_SIZE")
        highest = re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
        peak = int(highest.group(1)) * 1024 if highest else resident
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
        try:
            text = (self.root / "proc/meminfo").read_text()
        except OSError:
            return None
        kib = dict(re.findall(r"^(MemTotal|MemAvailable):\s*(\d+) kB", text, re.MULTILINE))
        if len(kib) < 2:
            return None
        total, available = int(kib["MemTotal"]) * 1024, int(kib["MemAvailable"]) * 1024
        return Room("the machine", total, total - available)


def memory_files(root: Path = Path("/")) -> MemoryFiles:
    """Those of this process."""
    return MemoryFiles(root, memory_cgroups(root))
