from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetune.errors import DataError
from edgetune.meters import read_trace, trace_energy, write_trace
from edgetune.meters.ledger import EnergyLedger
from edgetune.nouns.energy import PowerLimits, PowerSample

RATES = (1, 3, 10, 50, 100, 333, 1000)
LOW, HIGH = 2.0, 8.0

Power = Callable[[float], float]


def bursts(period: float, duty: float, phase: float = 0.0) -> tuple[Power, Power]:
    """Power that is HIGH in the first `duty` of every period, and its integral from 0."""

    def high_until(end: float) -> float:
        whole, part = divmod(end, period)
        return whole * duty * period + min(part, duty * period)

    return (
        lambda at: HIGH if math.fmod(at + phase, period) < duty * period else LOW,
        lambda end: LOW * end + (HIGH - LOW) * (high_until(end + phase) - high_until(phase)),
    )


def constant(watts: float) -> tuple[Power, Power]:
    return lambda _: watts, lambda end: watts * end


def ramp(slope: float) -> tuple[Power, Power]:
    return lambda at: LOW + slope * at, lambda end: LOW * end + slope * end**2 / 2


def wave(hertz: float) -> tuple[Power, Power]:
    turn = 2 * math.pi * hertz
    return (
        lambda at: 5 + 3 * math.sin(turn * at),
        lambda end: 5 * end + 3 * (1 - math.cos(turn * end)) / turn,
    )


LOADS = {
    "constant": constant(5.0),
    "nothing": constant(0.0),
    "ramp": ramp(0.5),
    "bursts of half a second": bursts(1.0, 0.5, 0.123),
    "rare bursts": bursts(3.7, 0.05, 1.0),
    "bursts faster than most rates": bursts(0.0437, 0.6, 0.01),
    "a slow wave": wave(0.3),
    "a fast wave": wave(7.77),
}


def recorded(load: Power, seconds: float, rate: float) -> list[PowerSample]:
    times = [number / rate for number in range(round(seconds * rate) + 1)]
    return [PowerSample(at, load(at)) for at in times]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("name", LOADS)
def test_a_trace_is_within_two_percent_or_its_bound_contains_the_exact_energy(
    name: str, rate: int
) -> None:
    load, exact = LOADS[name]
    reading = trace_energy(recorded(load, 12.0, rate), "board")
    error = abs(reading.joules - exact(12.0))
    assert error <= max(reading.error_bound_joules, 0.02 * exact(12.0)) + 1e-9
    assert reading.seconds == pytest.approx(12.0)
    assert reading.samples == 12 * rate + 1
    assert (reading.scope, reading.kind, reading.gaps) == ("board", "replayed", ())


@given(
    period=st.floats(0.05, 5.0),
    duty=st.floats(0.4, 0.6),
    phase=st.floats(0.0, 5.0),
    rate=st.sampled_from((50, 100, 1000)),
)
def test_the_bound_contains_every_load_that_is_steady_for_an_interval(
    period: float, duty: float, phase: float, rate: int
) -> None:
    load, exact = bursts(period, duty, phase)
    reading = trace_energy(recorded(load, 3.0, rate), "board")
    assert abs(reading.joules - exact(3.0)) <= reading.error_bound_joules + 1e-6


@given(
    period=st.floats(0.001, 20.0),
    duty=st.floats(0.0, 1.0),
    phase=st.floats(0.0, 20.0),
    rate=st.sampled_from((1, 3, 10, 40)),
)
def test_with_the_limits_known_the_bound_contains_every_load_at_low_rates(
    period: float, duty: float, phase: float, rate: int
) -> None:
    load, exact = bursts(period, duty, phase)
    reading = trace_energy(recorded(load, 6.0, rate), "board", limits=PowerLimits(LOW, HIGH))
    assert abs(reading.joules - exact(6.0)) <= reading.error_bound_joules + 1e-6


def test_a_trace_in_step_with_short_bursts_is_wrong_and_its_bound_says_so() -> None:
    load, exact = bursts(1.0, 0.4, 0.5)  # at every full second it is low
    samples = recorded(load, 20.0, 1)
    known = trace_energy(samples, "board", limits=PowerLimits(LOW, HIGH))
    averaged = trace_energy(samples, "board", steady_seconds=math.inf)
    assert known.joules == averaged.joules == LOW * 20.0
    assert known.error_bound_joules >= exact(20.0) - known.joules
    assert averaged.error_bound_joules < exact(20.0) - averaged.joules  # it was promised otherwise


def test_a_resolved_trace_has_a_small_bound_and_an_unresolved_one_a_wide() -> None:
    load, exact = LOADS["bursts of half a second"]
    shares = [
        trace_energy(recorded(load, 12.0, rate), "board").error_bound_joules / exact(12.0)
        for rate in (1000, 100, 1)
    ]
    assert shares == sorted(shares)
    assert shares[0] < 0.02
    assert shares[1] < 0.10
    assert shares[2] > 0.5


GAPS = {
    "constant": (constant(5.0), 5.0, 8.0),
    "a step in the gap": (bursts(100.0, 0.065), 5.0, 8.0),
    "bursts": (LOADS["bursts of half a second"], 4.05, 9.95),
}


@pytest.mark.parametrize("case", GAPS)
def test_a_gap_is_named_and_its_energy_in_the_bound(case: str) -> None:
    (load, exact), start, end = GAPS[case]
    samples = [s for s in recorded(load, 12.0, 100) if not start < s.seconds < end]
    reading = trace_energy(samples, "board")
    whole = trace_energy(recorded(load, 12.0, 100), "board")
    assert abs(reading.joules - exact(12.0)) <= reading.error_bound_joules
    assert whole.error_bound_joules < reading.error_bound_joules
    assert [(gap.start_seconds, gap.end_seconds) for gap in reading.gaps] == [
        (pytest.approx(start, abs=0.02), pytest.approx(end, abs=0.02))
    ]
    assert whole.gaps == ()


def test_at_random_places_bursts_of_any_length_are_within_the_bound() -> None:
    chance = random.Random(0)
    outside = 0
    for _ in range(200):
        load, exact = bursts(10 ** chance.uniform(-2, 1), chance.uniform(0.1, 0.9), 3.3)
        ledger = EnergyLedger(0.0, PowerLimits(LOW, HIGH), randomly_placed=True)
        ledger.add_watts(0.0, load(0.0))
        start = ledger.totals
        for number in range(300):
            at = (number + chance.random()) / 10
            ledger.add_watts(at, load(at))
        ledger.add_watts(30.0, load(30.0))
        bound = ledger.sampled_bound(start, ledger.totals, 0.0)
        outside += abs(ledger.totals.joules - exact(30.0)) > bound
        assert bound < 0.35 * exact(30.0)
    assert outside == 0


def test_irregular_samples_are_weighed_by_their_time() -> None:
    samples = [PowerSample(at, 2.0 + at) for at in (0.0, 0.001, 0.004, 0.005, 0.01, 0.012)]
    assert trace_energy(samples, "board").joules == pytest.approx(2.0 * 0.012 + 0.012**2 / 2)


# ------------------------------------------------------------------------------ files


@given(st.lists(st.tuples(st.floats(1e-6, 1e3), st.floats(0, 1e3)), min_size=2, max_size=20))
def test_a_written_trace_reads_back_the_same(rows: list[tuple[float, float]]) -> None:
    at, samples = 0.0, []
    for passed, watts in rows:
        at += passed
        samples.append(PowerSample(at, watts))
    with tempfile.TemporaryDirectory() as folder:
        write_trace(Path(folder) / "trace.csv", samples)
        assert read_trace(Path(folder) / "trace.csv") == tuple(samples)


def test_a_trace_is_a_table_of_seconds_and_watts(tmp_path: Path) -> None:
    write_trace(tmp_path / "trace.csv", [PowerSample(0.5, 2.0), PowerSample(1.0, 2.25)])
    assert (tmp_path / "trace.csv").read_text() == "seconds,watts\n0.5,2.0\n1.0,2.25\n"


BROKEN = {
    "time,power\n0,1\n1,1\n": "its first line must be seconds,watts",
    "": "its first line must be seconds,watts",
    "seconds,watts\n0,1\n": "it has 1 samples, expected two or more",
    "seconds,watts\n0,1\n1,x\n2,1\n": "line 3: '1,x' is not two numbers",
    "seconds,watts\n0,1\n1,1,1\n": "line 3: '1,1,1' is not two numbers",
    "seconds,watts\n0,1\n1,-1\n2,1\n": "line 3: '1,-1' must be finite, and watts not negative",
    "seconds,watts\n0,1\n1,nan\n2,1\n": "line 3: '1,nan' must be finite, and watts not negative",
    "seconds,watts\n1,1\n1,1\n2,1\n": "line 3: 1 s is not after the 1 s before it",
}


@pytest.mark.parametrize("text", BROKEN)
def test_a_trace_that_cannot_be_used_says_where(tmp_path: Path, text: str) -> None:
    (tmp_path / "trace.csv").write_text(text)
    with pytest.raises(DataError) as error:
        read_trace(tmp_path / "trace.csv")
    assert str(error.value).startswith("cannot read the power trace ")
    assert BROKEN[text] in str(error.value)


def test_all_problems_of_a_trace_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("seconds,watts\n0,1\nx,1\n1,-1\n2,1\n")
    with pytest.raises(DataError, match="2 problems"):
        read_trace(tmp_path / "trace.csv")
    with pytest.raises(DataError, match="No such file"):
        read_trace(tmp_path / "absent.csv")
