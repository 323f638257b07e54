"""Reads a meter from a thread of its own, and tells the energy since any moment."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from edgetune.errors import MeterError, UsageError
from edgetune.meters.background import Background
from edgetune.meters.ledger import GAP_INTERVALS, EnergyLedger, Totals
from edgetune.meters.meter import EnergyCounter, Meter
from edgetune.nouns.energy import EnergyReading, Gap, PowerLimits, PowerSample

try:
    import resource
except ImportError:  # Windows; there no meter runs commands
    resource = None  # type: ignore[assignment]

CPU_SHARE = 0.004
"""Of one core, at most this is spent on readings; a meter that costs more is read more seldom.

Waking up for them comes on top, about as much again (benchmarks/meter_cost.py prints the sum).
"""

_COST_MEMORY = 0.2  # weight of the newest reading in the mean cost
_SHORTEST_FOR_WATTS = 0.01  # seconds; a counter that ticks every ms tells no power below this
_MOST_GAPS = 100
_LATE = "no sample was taken in time: the machine was too busy, or stood still"


@dataclass(frozen=True)
class Mark:
    """A moment from which energy can be asked for. Only the sampler that made it knows it."""

    totals: Totals


def cpu_seconds() -> float:
    """Processor time of this thread and of the commands that have ended, in seconds."""
    seconds = time.thread_time()
    if resource is not None:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds += children.ru_utime + children.ru_stime
    return seconds


class Sampler(Background):
    """Samples `meter` while it is entered; a context manager.

    samples_per_second: as often as that, or as the meter's cost allows (CPU_SHARE). Every sample
        is at a random moment of its interval, so that it is never in step with the training.
    limits: what the power lies between, if known; they make the error bound smaller or truer.
    observer: is given every sample, mostly in the sampler's thread; must return at once
        and not raise.
    clock: seconds that never go back. cpu_clock: processor time of this thread and its commands.

    Entering raises MeterError when the meter cannot be read. From then on nothing raises: while the
    sensor is lost, energy is guessed, and the readings' `gaps` say when and why.
    """

    def __init__(
        self,
        meter: Meter,
        samples_per_second: float = 10.0,
        limits: PowerLimits | None = None,
        observer: Callable[[PowerSample], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = cpu_seconds,
    ) -> None:
        if not 0 < samples_per_second <= 1000:
            raise UsageError(
                f"cannot sample {samples_per_second:g} times a second: expected more than 0 and "
                f"at most 1000"
            )
        self.meter = meter
        self.cpu_seconds = 0.0
        """Processor time spent in readings so far, those of commands that they ran included."""
        self._shortest = 1.0 / samples_per_second
        self._limits = limits
        self._observer = observer
        self._clock, self._cpu_clock = clock, cpu_clock
        self._random = random.Random(0)
        self._cost = 0.0
        self._counts = isinstance(meter, EnergyCounter)
        self._value = meter.joules if isinstance(meter, EnergyCounter) else meter.watts
        self._counted = 0.0
        self._ledger = EnergyLedger(clock(), limits, randomly_placed=True)
        self._gaps: list[Gap] = []
        self._lost = ""  # why, while the sensor is lost
        self._lost_seconds = 0.0
        self._end_seconds = math.inf  # when it was stopped
        self._stop = threading.Event()
        # Both can be taken again, since an observer may ask for energy; `_reading` before `_lock`.
        self._reading = threading.RLock()  # one reading at a time; it may take long
        self._lock = threading.RLock()  # whole totals; never held while a meter is read
        self._thread: threading.Thread | None = None

    @property
    def interval_seconds(self) -> float:
        """Time between samples, on the mean, in seconds."""
        return max(self._shortest, self._cost / CPU_SHARE)

    @property
    def latest(self) -> PowerSample | None:
        """The newest power; of a counter the mean since the reading before. None while lost."""
        with self._lock:
            watts = self._ledger.last_watts
            if self._lost or watts is None:
                return None
            return PowerSample(self._ledger.totals.seconds, watts)

    def start(self) -> None:
        """Take the first reading and begin. Raises MeterError when the meter cannot be read."""
        with self._reading:
            first = self._read()
            with self._lock:
                self._counted = first
                self._cost = 0.0  # what the first costs, with cold caches, says nothing
                self._ledger = EnergyLedger(self._clock(), self._limits, randomly_placed=True)
                self._gaps, self._lost, self._end_seconds = [], "", math.inf
                self._account(first)
        self._stop.clear()
        self._thread = self._begin(self._run, "edgetune-sampler")

    def stop(self) -> None:
        """Take one last sample; for what was metered until now one can still ask."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            self.sample()
            self._end_seconds = self._clock()

    def __enter__(self) -> Sampler:
        self.start()
        return self

    def _end(self) -> None:
        self.stop()

    def mark(self) -> Mark:
        """This moment. A counter is read for it, if it is not too soon after the last time.

        A sensor of power is not: readings between two steps would be readings of idle moments.
        """
        self._refresh()
        with self._lock:
            return Mark(self._now())

    def energy_since(self, mark: Mark) -> EnergyReading:
        """The energy from `mark` to now. Never raises, and does not wait for a sensor of power."""
        self._refresh()
        with self._lock:
            start, end = mark.totals, self._now()
            bound_of = self._ledger.counted_bound if self._counts else self._ledger.sampled_bound
            joules = max(end.joules - start.joules, 0.0)
            bound = bound_of(start, end, self.meter.update_seconds)
            open_gap = [self._open_gap(end.seconds)] if self._is_lost(end.seconds) else []
            return EnergyReading(
                joules=joules,
                error_bound_joules=bound + (self.meter.relative_error or 0.0) * joules,
                seconds=end.seconds - start.seconds,
                scope=self.meter.scope,
                source=self.meter.source,
                samples=end.samples - start.samples,
                kind=self.meter.kind,
                gaps=tuple(
                    replace(gap, start_seconds=max(gap.start_seconds, start.seconds))
                    for gap in (*self._gaps, *open_gap)
                    if gap.end_seconds > start.seconds
                ),
            )

    def sample(self) -> None:
        """Take one sample now. The thread does it, and tests with a clock of their own."""
        with self._reading:
            try:
                value = self._read()
            except Exception as error:
                with self._lock:
                    if not self._lost:
                        self._lost_seconds = self._ledger.totals.seconds
                    self._lost = str(error) if isinstance(error, MeterError) else repr(error)
            else:
                with self._lock:
                    self._account(value)

    def _run(self) -> None:
        begun = self._clock()
        while True:
            interval = self.interval_seconds
            due = begun + interval * self._random.random()
            if self._stop.wait(max(due - self._clock(), 0.0)):
                return
            self.sample()
            begun = max(begun + interval, self._clock() - interval)  # a late one is not made up for

    def _refresh(self) -> None:
        """Read a counter, unless that was done a moment ago."""
        since = self._clock() - self._ledger.totals.seconds
        affordable = since >= max(self._cost / CPU_SHARE, 1e-3)
        stopped = self._end_seconds < math.inf
        if self._counts and affordable and not (stopped or self._lost):
            self.sample()

    def _now(self) -> Totals:
        now = min(self._clock(), self._end_seconds)
        return self._ledger.at(now, unseen=self._is_lost(now))

    def _is_lost(self, now: float) -> bool:
        late = now - self._ledger.totals.seconds > GAP_INTERVALS * self.interval_seconds
        return bool(self._lost) or (late and not self._counts)

    def _open_gap(self, now: float) -> Gap:
        if self._lost:
            return Gap(self._lost_seconds, now, self._lost)
        return Gap(self._ledger.totals.seconds, now, _LATE)

    def _account(self, value: float) -> None:
        now = self._clock()
        ledger = self._ledger
        lost = self._is_lost(now)
        if lost:
            self._close_gap(now)
        if self._counts:
            long_enough = now - ledger.totals.seconds >= _SHORTEST_FOR_WATTS
            ledger.add_joules(now, value - self._counted, long_enough, lost)
            self._counted = value
        else:
            ledger.add_watts(now, value, lost)
        if self._observer is not None and ledger.last_watts is not None:
            self._observer(PowerSample(now, ledger.last_watts))

    def _close_gap(self, now: float) -> None:
        gap = self._open_gap(now)
        if len(self._gaps) == _MOST_GAPS:  # a flapping sensor must not fill the memory
            reason = f"again and again, at last: {gap.reason}"
            gap = replace(gap, start_seconds=self._gaps.pop().start_seconds, reason=reason)
        self._gaps.append(gap)
        self._lost = ""

    def _read(self) -> float:
        """One reading, in watts or joules, and what it cost."""
        before = self._cpu_clock()
        try:
            return self._value()
        finally:
            spent = max(self._cpu_clock() - before, 0.0)
            self.cpu_seconds += spent
            self._cost += (spent - self._cost) * (_COST_MEMORY if self._cost else 1.0)
