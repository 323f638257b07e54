"""Metered against exact energy of made-up loads, and how often the error bound contains it.

    .venv/bin/python benchmarks/energy_bounds.py [--loads 200]

The loads lie between 2 and 8 W: constant, ramps, and bursts of random period (10 ms to 10 s), duty
and phase; their integral is known exactly. They are sampled as the sampler does, at random places
of the intervals, and at fixed times, as a recorded trace is; without and with the limits known.
Printed: how many readings are neither within 2 % nor within their bound (bursts shorter than
trace_energy's steady_seconds, in step with a trace, are), and the medians of error and bound.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from edgetune.meters.ledger import EnergyLedger
from edgetune.meters.trace import trace_energy
from edgetune.nouns.energy import PowerLimits, PowerSample

LOW_WATTS, HIGH_WATTS = 2.0, 8.0


@dataclass(frozen=True)
class Load:
    """Power as a function of time, and its exact integral from 0."""

    watts: Callable[[float], float]
    joules: Callable[[float], float]


def made_up(chance: random.Random) -> Load:
    """One load: mostly bursts, now and then constant or a ramp."""
    kind = chance.choice(("bursts", "bursts", "bursts", "constant", "ramp"))
    if kind == "constant":
        watts = chance.uniform(LOW_WATTS, HIGH_WATTS)
        return Load(lambda _: watts, lambda seconds: watts * seconds)
    if kind == "ramp":  # from low to high in 1000 s
        slope = (HIGH_WATTS - LOW_WATTS) / 1000
        return Load(
            lambda at: LOW_WATTS + slope * at, lambda end: LOW_WATTS * end + slope * end**2 / 2
        )
    period, duty = 10 ** chance.uniform(-2, 1), chance.uniform(0.02, 0.98)
    phase = chance.uniform(0, period)

    def high_seconds(end: float) -> float:
        whole, part = divmod(end, period)
        return whole * duty * period + min(part, duty * period)

    def joules(end: float) -> float:
        high = high_seconds(end + phase) - high_seconds(phase)
        return LOW_WATTS * end + (HIGH_WATTS - LOW_WATTS) * high

    return Load(
        lambda at: HIGH_WATTS if math.fmod(at + phase, period) < duty * period else LOW_WATTS,
        joules,
    )


def at_random(
    load: Load, seconds: float, interval: float, limits: PowerLimits | None, chance: random.Random
) -> tuple[float, float]:
    """Joules and bound as the sampler has them."""
    ledger = EnergyLedger(0.0, limits, randomly_placed=True)
    ledger.add_watts(0.0, load.watts(0.0))
    start = ledger.totals
    for number in range(round(seconds / interval)):
        at = (number + chance.random()) * interval
        ledger.add_watts(at, load.watts(at))
    ledger.add_watts(seconds, load.watts(seconds))
    end = ledger.totals
    return end.joules - start.joules, ledger.sampled_bound(start, end, 0.0)


def at_fixed_times(
    load: Load, seconds: float, interval: float, limits: PowerLimits | None, _: random.Random
) -> tuple[float, float]:
    """Joules and bound of a recorded trace."""
    times = [number * interval for number in range(round(seconds / interval) + 1)]
    samples = [PowerSample(at, load.watts(at)) for at in times]
    reading = trace_energy(samples, "board", limits=limits)
    return reading.joules, reading.error_bound_joules


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--loads", type=int, default=200)
    options = parser.parse_args()
    print("sampled         limits    rate     time   outside   median error   median bound")
    for sampled in (at_random, at_fixed_times):
        for limits in (None, PowerLimits(LOW_WATTS, HIGH_WATTS)):
            for rate, seconds in ((1, 10), (1, 100), (10, 10), (10, 100), (100, 10), (1000, 2)):
                chance = random.Random(0)
                errors, bounds, outside = [], [], 0
                for _ in range(options.loads):
                    load = made_up(chance)
                    exact = load.joules(seconds)
                    joules, bound = sampled(load, seconds, 1 / rate, limits, chance)
                    error = abs(joules - exact)
                    outside += error > max(bound, 0.02 * exact) + 1e-9
                    errors.append(error / exact)
                    bounds.append(bound / exact)
                print(
                    f"{sampled.__name__:<15} {'known' if limits else 'unknown':<8}"
                    f"{rate:>5} Hz {seconds:>6} s {outside:>5}/{options.loads}"
                    f"{median(errors):>14.2%}{median(bounds):>15.2%}"
                )


if __name__ == "__main__":
    main()
