"""Recreated /proc and /sys trees, a board with a simulated clock, a session that works on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgetune.guards.guard import BudgetName, Moment, Pause, Stop
from edgetune.meters.sampler import Sampler
from edgetune.nouns.energy import ReadingKind
from edgetune.nouns.profile import PowerScope
from edgetune.runtime.session import MicroBatch, MicroResult
from tests.device.fake_session import FakeSession
from tests.device.sensor_trees import write

MIB = 2**20
PAGE = 4096


def memory_tree(root: Path, resident: int = 60, peak: int = 70, available: int = 4000) -> Path:
    """A machine of 8000 MiB; all in MiB."""
    write(root / "proc/self/statm", f"99999 {resident * MIB // PAGE} 100 5 0 123 0")
    status = f"Name:\tpython\nVmHWM:\t{peak * 1024} kB\nVmRSS:\t{resident * 1024} kB"
    write(root / "proc/self/status", status)
    kib = {"MemTotal": 8000 * 1024, "MemFree": 100, "MemAvailable": available * 1024}
    write(root / "proc/meminfo", "\n".join(f"{k}:   {v} kB" for k, v in kib.items()))
    return root


def cgroup_v1(
    root: Path, path: str, mount_root: str = "/", where: str = "/sys/fs/cgroup/memory"
) -> Path:
    write(root / "proc/self/cgroup", f"9:name=systemd:/\n4:memory:{path}\n3:cpuset:/\n0::/else")
    write(
        root / "proc/self/mountinfo",
        "23 1 254:1 / / rw shared:1 - ext4 /dev/root rw\n"
        f"31 23 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
        f"32 23 0:30 {mount_root} {where} rw,relatime shared:5 - cgroup cgroup rw,memory",
    )
    return root / where.replace("\\040", " ").lstrip("/")


def cgroup_v2(root: Path, path: str, mount_root: str = "/") -> Path:
    write(root / "proc/self/cgroup", f"0::{path}")
    line = f"29 23 0:26 {mount_root} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw"
    write(root / "proc/self/mountinfo", line)
    return root / "sys/fs/cgroup"


def limit_v1(folder: Path, limit: int | None, used: int, **stat: int) -> None:
    """All in MiB; None is unlimited."""
    write(folder / "memory.limit_in_bytes", 2**63 - PAGE if limit is None else limit * MIB)
    write(folder / "memory.usage_in_bytes", used * MIB)
    write(folder / "memory.stat", "\n".join(f"total_{k} {v * MIB}" for k, v in stat.items()))


def limit_v2(folder: Path, limit: int | None, used: int, **stat: int) -> None:
    write(folder / "memory.max", "max" if limit is None else limit * MIB)
    write(folder / "memory.current", used * MIB)
    write(folder / "memory.stat", "\n".join(f"{k} {v * MIB}" for k, v in stat.items()))


def zone(root: Path, number: int, kind: str, temp: str | int) -> Path:
    folder = root / f"sys/class/thermal/thermal_zone{number}"
    write(folder / "type", kind)
    write(folder / "temp", temp)
    return folder


def moment(seconds: float = 0.0, steps: int = 0, **changes: Any) -> Moment:
    fields: dict[str, Any] = {"next": "step", "pieces": 2 * steps, **changes}
    return Moment(seconds=seconds, steps=steps, **fields)


class Board:
    """Time that passes only by work and sleep, and an energy counter that is exact."""

    name = "simulated"
    source = "a simulated board"
    scope: PowerScope = "board"
    kind: ReadingKind = "measured"
    update_seconds = 0.0
    relative_error: float | None = None

    def __init__(self, idle_watts: float = 2.0, load_watts: float = 6.0) -> None:
        self.seconds = 0.0
        self.used_joules = 0.0
        self.trace: list[tuple[float, float]] = []  # (seconds, joules) after each stretch
        self._idle, self._load = idle_watts, load_watts

    def clock(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self._pass(seconds, self._idle)

    def work(self, seconds: float) -> None:
        self._pass(seconds, self._load)

    def joules(self) -> float:
        return self.used_joules

    def sampler(self) -> Sampler:
        """Not started: a counter is read when it is asked, and no thread takes real time."""
        return Sampler(self, clock=self.clock)

    def _pass(self, seconds: float, watts: float) -> None:
        self.seconds += seconds
        self.used_joules += watts * seconds
        self.trace.append((self.seconds, self.used_joules))


class Working(FakeSession):
    """A session whose micro-batches take time on a board."""

    def __init__(self, board: Board, piece_seconds: float = 0.25, **options: Any) -> None:
        super().__init__(**options)
        self._board, self._piece_seconds = board, piece_seconds

    def accumulate(self, batch: MicroBatch) -> MicroResult:
        self._board.work(self._piece_seconds)
        return super().accumulate(batch)


class Says:
    """A guard that gives one verdict after the other, then none; it keeps what it was asked."""

    every_seconds = 0.0

    def __init__(self, *verdicts: Stop | Pause | None, budget: BudgetName = "time") -> None:
        self.budget: BudgetName = budget
        self._verdicts = list(verdicts)
        self.asked: list[Moment] = []

    def check(self, moment: Moment) -> Stop | Pause | None:
        self.asked.append(moment)
        return self._verdicts.pop(0) if self._verdicts else None


def stop(budget: BudgetName = "time") -> Stop:
    return Stop(budget, 1.0, 1.0, "s", "it is over")
