"""A side's process: does the steps that the parent asks for, and tells times and memory.

The parent writes one job as JSON, the side answers with its base and its first step; then each line
`step N` is answered with the seconds of each of N steps, or more where steps are short; `peak` with
the peak memory. The end of stdin ends the process. Seconds are the processor's where the job's
`processor_time` says so, which must have one thread then.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Step = Callable[[], object]

_LEAST_SECONDS = 0.1  # of a turn: a median of three steps of a millisecond says nothing
# Before each turn, not counted: a process that slept while others ran finds its caches cold.
_WARM_UP_STEPS = 2


def status_bytes(field: str) -> int:
    """A field of /proc/self/status, such as VmRSS or VmHWM, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def serve(load: Callable[[dict[str, Any]], Step]) -> None:
    """Answer until stdin ends. load: makes one step of a job; to be called after all imports."""
    base_bytes = status_bytes("VmRSS")
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(value: object) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    job = json.loads(sys.stdin.readline())
    step = load(job)
    step()
    answer({"base_bytes": base_bytes, "first_step_seconds": time.time() - job["started"]})
    clock = time.process_time if job["processor_time"] else time.perf_counter
    for line in sys.stdin:
        command, *count = line.split()
        if command == "step":
            for _ in range(_WARM_UP_STEPS):
                step()
            times: list[float] = []
            while len(times) < int(count[0]) or sum(times) < _LEAST_SECONDS:
                times.append(_timed(step, clock))
            answer(times)
        else:
            answer(status_bytes("VmHWM"))


def _timed(step: Step, clock: Callable[[], float]) -> float:
    before = clock()
    step()
    return clock() - before
