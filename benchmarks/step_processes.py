"""The sides' processes: all alive, one at a time computing, in rounds."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from other_work import processor_time

# Memory that a step frees stays there for the next one, without page faults.
MALLOC_KEPT = {
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**26),
}
# Threads that wait sleep. Otherwise PyTorch takes ten times as long where anything else runs.
SLEEPING_THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}


class SideFailedError(Exception):
    """A side's process ended; the message is the last that it said."""


@dataclass(frozen=True)
class Start:
    """How to start a side. environment: on top of this process's."""

    name: str
    command: tuple[str, ...]
    job: Mapping[str, Any]
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Measured:
    """A side's steps. round_seconds: the median step of each round.

    base_bytes: resident after the imports. peak_bytes: the most ever resident. first_step_seconds:
    from the start of the process to the end of its first step, imports and compilation included.
    """

    round_seconds: tuple[float, ...]
    base_bytes: int
    peak_bytes: int
    first_step_seconds: float

    @property
    def median_seconds(self) -> float:
        return statistics.median(self.round_seconds)

    @property
    def over_base_bytes(self) -> int:
        return self.peak_bytes - self.base_bytes


class SideProcess:
    """A running side, past its first step. Raises SideFailedError where it does not get there."""

    def __init__(self, start: Start, log: Path) -> None:
        self._log = log
        began = time.time()
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                start.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **start.environment},
                text=True,
            )
        self.id = self._process.pid
        self._say(json.dumps({**start.job, "started": began}))
        first = self._answer()
        self.base_bytes: int = first["base_bytes"]
        self.first_step_seconds: float = first["first_step_seconds"]

    def steps(self, count: int) -> list[float]:
        """Seconds of each of at least `count` steps."""
        self._say(f"step {count}")
        times: list[float] = self._answer()
        return times

    def peak_bytes(self) -> int:
        """The most that was ever resident."""
        self._say("peak")
        return int(self._answer())

    def end(self) -> None:
        """Let it end."""
        self._process.communicate()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failed() from None

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._failed()
        return json.loads(line)

    def _failed(self) -> SideFailedError:
        code = self._process.wait()
        said = self._log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
        return SideFailedError(f"exit code {code}: {said[-1][:300]}")


@dataclass(frozen=True)
class Comparison:
    """sides: by name. failed: why, by name. others: the share of the machine that other processes
    took during the rounds; above a few percent no ratio can be trusted.
    """

    sides: Mapping[str, Measured]
    failed: Mapping[str, str]
    others: float


def measure(starts: Sequence[Start], rounds: int, steps: int, logs: Path) -> Comparison:
    """Start all sides and measure them.

    A round gives each side in turn one step that is not timed, for the caches are then another
    side's and its threads asleep, and `steps` that are.
    """
    logs.mkdir(parents=True, exist_ok=True)
    running: dict[str, SideProcess] = {}
    times: dict[str, list[float]] = {}
    failed: dict[str, str] = {}
    for start in starts:
        try:
            running[start.name] = SideProcess(start, logs / f"{start.name.replace(' ', '-')}.log")
            times[start.name] = []
        except SideFailedError as error:
            failed[start.name] = str(error)
    found = {}
    processes = [side.id for side in running.values()]
    try:
        before = processor_time(processes)
        for _ in range(rounds):
            for name, side in running.items():
                times[name].append(statistics.median(side.steps(1 + steps)[1:]))
        others = processor_time(processes).others_since(before)
        for name, side in running.items():
            found[name] = Measured(
                tuple(times[name]), side.base_bytes, side.peak_bytes(), side.first_step_seconds
            )
    finally:
        for side in running.values():
            side.end()
    return Comparison(found, failed, others)
