"""How much of the machine other processes take while something is measured (Linux)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_IDLE = (3, 4)  # idle and waiting for storage, among the times of a "cpu" line
_COUNTED = 8  # user to steal; what follows is contained in user and nice


@dataclass(frozen=True)
class ProcessorTime:
    """Seconds of all cores since boot: whole, busy, and busy with the processes asked about."""

    whole: float
    busy: float
    own: float

    def others_since(self, before: ProcessorTime) -> float:
        """The share of the machine that other processes took since `before`."""
        busy, own = self.busy - before.busy, self.own - before.own
        return max(busy - own, 0.0) / max(self.whole - before.whole, 1e-9)


def processor_time(processes: Iterable[int]) -> ProcessorTime:
    """Now. processes: those that count as own, all alive; this one does, too."""
    times = [int(field) for field in Path("/proc/stat").read_text().split()[1 : 1 + _COUNTED]]
    idle = sum(times[place] for place in _IDLE)
    own = sum(_ticks(process) for process in (os.getpid(), *processes))
    whole = sum(times)
    return ProcessorTime(*(n / _TICKS_PER_SECOND for n in (whole, whole - idle, own)))


def _ticks(process: int) -> int:
    """Of user and system time; the name before them may hold blanks."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
