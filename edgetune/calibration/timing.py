"""Durations that can be trusted: repeated, interleaved, and with their spread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Clock = Callable[[], float]

FEWEST_ROUNDS = 5
MOST_ROUNDS = 200
# Spread, from quartile to quartile over the median, above which a machine counts as noisy.
NOISY = 0.1


@dataclass(frozen=True)
class Duration:
    """Of something that was run `rounds` times. spread: interquartile range over the median."""

    seconds: float
    spread: float
    rounds: int

    @property
    def noisy(self) -> bool:
        return self.spread > NOISY


def duration_of(times: list[float]) -> Duration:
    """The median and spread of two or more times, in seconds."""
    first, middle, third = statistics.quantiles(times, n=4, method="inclusive")
    return Duration(middle, (third - first) / middle if middle > 0 else 0.0, len(times))


def interleaved(
    runs: Mapping[str, Callable[[], object]],
    within_seconds: float,
    clock: Clock = time.perf_counter,
    progress: Callable[[float], None] | None = None,
) -> dict[str, Duration]:
    """How long each of `runs` takes, one after the other, round by round.

    So what disturbs the machine for a while disturbs all of them alike. Each runs twice in a row
    and is timed the second time: onnxruntime's threads wait busily for a while after a run, and
    would take the cores from the next. The first round is not counted. Rounds go on until
    `within_seconds` are over, by `clock`; there are at least FEWEST_ROUNDS. progress: is told
    which share of it is done.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    start, rounds = clock(), 0
    while rounds < FEWEST_ROUNDS or (rounds < MOST_ROUNDS and clock() - start < within_seconds):
        for name, run in runs.items():
            run()
            before = clock()
            run()
            times[name].append(clock() - before)
        rounds += 1
        if progress is not None:
            done = max((clock() - start) / within_seconds, rounds / MOST_ROUNDS)
            progress(min(done, rounds / FEWEST_ROUNDS, 1.0))
    return {name: duration_of(found) for name, found in times.items()}
