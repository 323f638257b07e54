"""Energy as the integral of irregular samples of power, and how wrong it may be.

The integral is the trapezoid rule. What the power did between two samples nobody saw, so an error
bound rests on assumptions; these are:

1. Between two neighbouring samples a and b, dt apart, the power goes from a to b without turning
   back. Then the trapezoid is off by at most dt |b - a| / 2, and a stretch by the sum of these
   (`variation`). That holds for every load that stays as it is for dt or longer after each change.
2. Where it does turn back, the samples fall on highs and lows by chance, because each is at a
   random place of its interval; the sampler sees to that. Then errors of different intervals are
   independent, and three standard deviations of their sum, 3 sqrt(sum (dt (b - a))^2 / 2), bound it
   too; the smaller of the two bounds counts.
3. What was never sampled is at most UNSEEN_INTERVALS intervals' worth of the power's whole range:
   with samples at random, something that is there for a share of 5 / n of the time is missed by
   all n of them once in 150 times (exp(-5)).
4. The range of the power is that of all samples, extended to the limits that the caller knows (the
   idle and load power of a profile), or else to half the lowest sample and twice the highest.
5. In an interval that is `unseen` the power may be anything in the range, all the time: the sensor
   failed in it, it is over GAP_INTERVALS times as long as usual, or it is one of a trace that was
   recorded at fixed times too far apart to see the load change (`trace_energy`). Samples in step
   with the load all fall on its lows, or on its highs, and nothing in the numbers shows that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from edgetune.nouns.energy import PowerLimits

UNSEEN_INTERVALS = 5.0
GAP_INTERVALS = 4.0
_WIDENED_BY = 2.0
_STANDARD_DEVIATIONS = 3.0


@dataclass(frozen=True)
class Totals:
    """Sums over all intervals up to a moment; what lies between two moments is their difference.

    seconds: the moment. tail_seconds: how long before it the last reading was.
    joules: all energy. covered_seconds: the time that is not unseen, in `intervals` intervals.
    variation: sum of dt |b - a| / 2. squares: sum of (dt (b - a))^2 / 2.
    unseen_seconds, unseen_joules: the time of assumption 5, and what `joules` has for it.
    """

    seconds: float
    tail_seconds: float = 0.0
    joules: float = 0.0
    samples: int = 0
    intervals: int = 0
    covered_seconds: float = 0.0
    variation: float = 0.0
    squares: float = 0.0
    unseen_seconds: float = 0.0
    unseen_joules: float = 0.0


class EnergyLedger:
    """Adds up readings as they come, in constant memory.

    randomly_placed: whether each reading is at a random place of its interval (assumption 2).
    """

    def __init__(
        self, first_seconds: float, limits: PowerLimits | None = None, randomly_placed: bool = False
    ) -> None:
        self.totals = Totals(first_seconds)
        self._limits = limits
        self._randomly_placed = randomly_placed
        self._lowest = math.inf
        self._highest = -math.inf
        self._last_watts: float | None = None

    @property
    def last_watts(self) -> float | None:
        """The power of the last reading, in watts; None before the first."""
        return self._last_watts

    def add_watts(self, seconds: float, watts: float, unseen: bool = False) -> None:
        """A sample of power. unseen: assumption 5 is for the time since the one before it."""
        before = self._last_watts if self._last_watts is not None else watts
        passed = seconds - self.totals.seconds
        self._see(watts)
        self.totals = self._later(passed, passed * (before + watts) / 2, watts - before, unseen)

    def add_joules(
        self, seconds: float, joules: float, watts_known: bool = True, unseen: bool = False
    ) -> None:
        """What a counter counted since the reading before, however long ago that was.

        watts_known: the time since that reading is long enough to tell the power from.
        unseen: the counter was lost in between, and may have begun again; what it counted is taken
            if it is a power within the range, else the power of before.
        """
        passed = seconds - self.totals.seconds
        low, high = self.range_watts()
        if unseen and not low * passed <= joules <= high * passed:
            joules = passed * (self._last_watts or 0.0)
        elif watts_known and passed > 0:
            self._see(joules / passed)
        self.totals = self._later(passed, joules, 0.0, unseen)

    def at(self, seconds: float, unseen: bool) -> Totals:
        """The totals at `seconds`, not before the last reading: the power stays as it was.

        unseen: the sensor is lost since the last reading; the mean power so far is taken then.
        """
        totals = self.totals
        passed = max(seconds - totals.seconds, 0.0)
        watts = self._last_watts or 0.0
        if unseen:
            known = totals.covered_seconds + totals.unseen_seconds
            watts = totals.joules / known if known > 0 else watts
            lost = passed * watts
            return replace(
                totals,
                seconds=max(seconds, totals.seconds),
                joules=totals.joules + lost,
                unseen_seconds=totals.unseen_seconds + passed,
                unseen_joules=totals.unseen_joules + lost,
            )
        return replace(
            totals,
            seconds=max(seconds, totals.seconds),
            tail_seconds=passed,
            joules=totals.joules + passed * watts,
            covered_seconds=totals.covered_seconds + passed,
        )

    def range_watts(self) -> tuple[float, float]:
        """What the power lies between, in watts: assumption 4. (0, 0) before the first reading."""
        if self._last_watts is None:
            return 0.0, 0.0
        if self._limits is not None:
            low, high = self._limits.lowest_watts, self._limits.highest_watts
            return min(self._lowest, low), max(self._highest, high)
        return self._lowest / _WIDENED_BY, self._highest * _WIDENED_BY

    def sampled_bound(self, start: Totals, end: Totals, update_seconds: float) -> float:
        """How far the joules between two moments may be off, from samples of power.

        update_seconds: how long the sensor holds a value; the true intervals are not shorter.
        """
        low, high = self.range_watts()
        between = end.variation - start.variation
        if self._randomly_placed:
            squares = max(end.squares - start.squares, 0.0)
            between = min(between, _STANDARD_DEVIATIONS * math.sqrt(squares))
        covered = end.covered_seconds - start.covered_seconds
        interval = covered / max(end.intervals - start.intervals, 1)
        held = max(interval, update_seconds)
        if interval > 0:
            between *= held / interval
        unseen = min(UNSEEN_INTERVALS * held, covered)
        ends = start.tail_seconds + end.tail_seconds
        return between + (unseen + ends) * (high - low) + self._unseen_bound(start, end)

    def counted_bound(self, start: Totals, end: Totals, update_seconds: float) -> float:
        """The same from a counter: what it counts within one update, at each end."""
        low, high = self.range_watts()
        ends = start.tail_seconds + end.tail_seconds
        return 2 * update_seconds * high + ends * (high - low) + self._unseen_bound(start, end)

    def _unseen_bound(self, start: Totals, end: Totals) -> float:
        low, high = self.range_watts()
        seconds = end.unseen_seconds - start.unseen_seconds
        joules = end.unseen_joules - start.unseen_joules
        return max(high * seconds - joules, joules - low * seconds, 0.0)

    def _see(self, watts: float) -> None:
        self._last_watts = watts
        self._lowest = min(self._lowest, watts)
        self._highest = max(self._highest, watts)

    def _later(self, passed: float, joules: float, change: float, unseen: bool) -> Totals:
        last = self.totals
        uneven = 0.0 if unseen else passed * abs(change)
        return Totals(
            seconds=last.seconds + passed,
            joules=last.joules + joules,
            samples=last.samples + 1,
            intervals=last.intervals + (not unseen and passed > 0),
            covered_seconds=last.covered_seconds + (0.0 if unseen else passed),
            variation=last.variation + uneven / 2,
            squares=last.squares + uneven**2 / 2,
            unseen_seconds=last.unseen_seconds + (passed if unseen else 0.0),
            unseen_joules=last.unseen_joules + (joules if unseen else 0.0),
        )
