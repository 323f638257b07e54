"""Meters for tests: a recorded trace played back, and readings written by hand. Public."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence

from edgetune.errors import MeterError
from edgetune.meters.trace import longest_interval
from edgetune.nouns.energy import PowerSample, ReadingKind
from edgetune.nouns.profile import PowerScope


class ReplayMeter:
    """Plays a trace back, from its first sample at the first reading, in the time of `clock`.

    samples: two or more, as `read_trace` gives them; between two the power is interpolated.
    watts() raises MeterError in a gap of the trace (an interval over four times the median), as a
    sensor would that was lost there, and after the last sample.
    """

    name = "replay"
    kind: ReadingKind = "replayed"
    update_seconds = 0.0
    relative_error: float | None = None

    def __init__(
        self,
        samples: Sequence[PowerSample],
        scope: PowerScope = "board",
        source: str = "replay of a trace",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.scope: PowerScope = scope
        self.source = source
        self._seconds = [sample.seconds for sample in samples]
        self._watts = [sample.watts for sample in samples]
        self._longest = longest_interval(samples)
        self._clock = clock
        self._started: float | None = None

    def watts(self) -> float:
        """The power that the trace has now, in watts. Raises MeterError where it has none."""
        now = self._clock()
        self._started = now if self._started is None else self._started
        at = self._seconds[0] + now - self._started
        place = min(bisect_right(self._seconds, at), len(self._seconds) - 1)
        start, end = self._seconds[place - 1], self._seconds[place]
        if at > end:
            raise MeterError(f"{self.source}: it ended after {end - self._seconds[0]:g} s")
        if end - start > self._longest and start < at < end:
            raise MeterError(f"{self.source}: it has no samples from {start:g} s to {end:g} s")
        before, after = self._watts[place - 1], self._watts[place]
        return before + (after - before) * (at - start) / (end - start)


class ScriptedMeter:
    """Gives one reading after the other, and the last for ever; an exception among them is raised.

    For tests of what happens when a sensor is lost: `ScriptedMeter([5, MeterError("gone"), 5])`.
    """

    name = "scripted"
    source = "scripted readings"
    kind: ReadingKind = "replayed"
    update_seconds = 0.0
    relative_error: float | None = None

    def __init__(self, readings: Iterable[float | Exception], scope: PowerScope = "board") -> None:
        self.scope: PowerScope = scope
        self._readings = list(readings)
        self._next = 0

    def watts(self) -> float:
        """The next reading, in watts. Raises what stands in its place."""
        reading = self._readings[min(self._next, len(self._readings) - 1)]
        self._next += 1
        if isinstance(reading, Exception):
            raise reading
        return reading
