from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgetune.errors import MeterError, UsageError
from edgetune.files.device_profiles import load_profile
from edgetune.meters import (
    ModelMeter,
    ReplayMeter,
    Sampler,
    ScriptedMeter,
    open_ina3221,
    open_rapl,
)
from edgetune.meters.sampler import CPU_SHARE
from edgetune.nouns.energy import PowerLimits, PowerSample
from tests.device.sensor_trees import board, hwmon, rapl, write


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def free() -> float:
    """Readings cost nothing, so that the sampler never slows down."""
    return 0.0


def run(sampler: Sampler, clock: Clock, seconds: float, seed: int = 0) -> None:
    """What the thread does in `seconds`: a sample at a random place of every interval."""
    chance, begun = random.Random(seed), clock.now
    interval = sampler.interval_seconds
    for number in range(round(seconds / interval)):
        clock.now = begun + (number + chance.random()) * interval
        sampler.sample()
    clock.now = begun + seconds


def trace(power: Callable[[float], float], seconds: float, rate: int = 1000) -> list[PowerSample]:
    return [PowerSample(n / rate, power(n / rate)) for n in range(round(seconds * rate) + 1)]


class Changing:
    """A meter whose readings the test sets; an exception is raised."""

    name, source, scope, kind = "changing", "changing", "board", "measured"
    update_seconds, relative_error = 0.0, None

    def __init__(self, reading: float | Exception = 5.0) -> None:
        self.reading = reading

    def watts(self) -> float:
        if isinstance(self.reading, Exception):
            raise self.reading
        return self.reading


LOADS: dict[str, tuple[Callable[[float], float], float]] = {
    "constant": (lambda _: 5.0, 5.0 * 30),
    "ramp": (lambda at: 2 + at / 10, 2.0 * 30 + 45.0),
    "bursts": (lambda at: 8.0 if at % 1.0 < 0.25 else 2.0, 3.5 * 30),
    "bursts in step with the sampling": (lambda at: 8.0 if at % 0.1 < 0.04 else 2.0, 4.4 * 30),
}


@pytest.mark.parametrize("rate", [1, 10, 100])
@pytest.mark.parametrize("name", LOADS)
def test_the_energy_of_a_replayed_trace_is_within_its_bound(name: str, rate: int) -> None:
    power, exact = LOADS[name]
    clock = Clock()
    meter = ReplayMeter(trace(power, 40.0), clock=clock)
    sampler = Sampler(meter, rate, clock=clock, cpu_clock=free)
    sampler.sample()
    mark = sampler.mark()
    run(sampler, clock, 30.0)
    reading = sampler.energy_since(mark)
    assert abs(reading.joules - exact) <= max(reading.error_bound_joules, 0.02 * exact)
    assert reading.seconds == pytest.approx(30.0)
    assert (reading.samples, reading.kind, reading.scope) == (30 * rate, "replayed", "board")
    assert reading.source == "replay of a trace"
    assert reading.mean_watts == pytest.approx(reading.joules / 30)


def test_many_short_stretches_add_up_to_the_whole() -> None:
    clock = Clock()
    meter = ReplayMeter(trace(LOADS["ramp"][0], 40.0), clock=clock)
    sampler = Sampler(meter, 20, clock=clock, cpu_clock=free)
    sampler.sample()
    whole, parts = sampler.mark(), 0.0
    for number in range(30):
        mark = sampler.mark()
        run(sampler, clock, 1.0, number)
        parts += sampler.energy_since(mark).joules
    assert parts == pytest.approx(sampler.energy_since(whole).joules)
    assert parts == pytest.approx(LOADS["ramp"][1], rel=1e-3)


def test_known_limits_make_the_bound_of_a_steady_load_smaller() -> None:
    bounds = []
    for limits in (None, PowerLimits(4.0, 6.0), PowerLimits(0.0, 100.0)):
        clock = Clock()
        sampler = Sampler(Changing(), 10, limits, clock=clock, cpu_clock=free)
        sampler.sample()
        mark = sampler.mark()
        run(sampler, clock, 30.0)
        reading = sampler.energy_since(mark)
        assert reading.joules == pytest.approx(150.0)
        bounds.append(reading.error_bound_joules)
    assert bounds[1] < bounds[0] < bounds[2]


def test_a_sensor_that_holds_its_values_has_a_wider_bound() -> None:
    bounds = []
    for held in (0.0, 1.0):
        clock = Clock()
        meter = ReplayMeter(trace(LOADS["bursts"][0], 40.0), clock=clock)
        meter.update_seconds = held
        sampler = Sampler(meter, 10, clock=clock, cpu_clock=free)
        sampler.sample()
        mark = sampler.mark()
        run(sampler, clock, 30.0)
        bounds.append(sampler.energy_since(mark).error_bound_joules)
    assert bounds[1] > 5 * bounds[0]


# ------------------------------------------------------------------------------ lost sensors


def test_a_sensor_that_is_lost_and_found_leaves_a_gap_with_its_reason() -> None:
    clock, meter = Clock(), Changing()
    sampler = Sampler(meter, 10, clock=clock, cpu_clock=free)
    sampler.sample()
    mark = sampler.mark()
    run(sampler, clock, 10.0)
    steady = sampler.energy_since(mark)
    meter.reading = MeterError("cannot read in1_input: No such device")
    run(sampler, clock, 20.0)
    lost = sampler.energy_since(mark)
    assert lost.joules == pytest.approx(150.0)
    assert [gap.reason for gap in lost.gaps] == ["cannot read in1_input: No such device"]
    assert lost.gaps[0].end_seconds - lost.gaps[0].start_seconds == pytest.approx(20.0, abs=0.2)
    assert lost.error_bound_joules >= 20 * 5.0  # it may have been twice the highest
    assert sampler.latest is None
    meter.reading = 7.0
    run(sampler, clock, 10.0)
    found = sampler.energy_since(mark)
    assert found.joules == pytest.approx(50 + 20 * 6 + 70, rel=0.01)
    assert len(found.gaps) == 1
    assert found.error_bound_joules > 20 * 5.0 > steady.error_bound_joules
    assert sampler.latest is not None
    assert sampler.latest.watts == 7.0
    assert steady.gaps == ()


def test_a_gap_belongs_only_to_the_stretches_that_have_a_part_of_it() -> None:
    clock, meter = Clock(), Changing()
    sampler = Sampler(meter, 10, clock=clock, cpu_clock=free)
    sampler.sample()
    meter.reading = OSError("i2c")
    run(sampler, clock, 5.0)
    inside = sampler.mark()
    run(sampler, clock, 5.0)
    meter.reading = 5.0
    run(sampler, clock, 5.0)
    behind = sampler.mark()
    run(sampler, clock, 5.0)
    [gap] = sampler.energy_since(inside).gaps
    assert gap.start_seconds == pytest.approx(105.0)
    assert gap.end_seconds == pytest.approx(110.0, abs=0.2)
    assert gap.reason == "OSError('i2c')"
    reading = sampler.energy_since(behind)
    assert (reading.gaps, reading.joules) == ((), pytest.approx(25.0))
    assert reading.error_bound_joules < 5.0


def test_a_sensor_that_comes_and_goes_does_not_fill_the_memory() -> None:
    clock, meter = Clock(), Changing()
    sampler = Sampler(meter, 10, clock=clock, cpu_clock=free)
    sampler.sample()
    mark = sampler.mark()
    for number in range(500):
        meter.reading = MeterError(f"lost {number}") if number % 2 else 5.0
        run(sampler, clock, 0.1)
    gaps = sampler.energy_since(mark).gaps
    assert len(gaps) == 101
    assert gaps[-1].reason == "lost 499"
    assert gaps[-2].reason == "again and again, at last: lost 497"


def test_a_machine_that_stands_still_leaves_a_gap() -> None:
    clock = Clock()
    sampler = Sampler(Changing(), 10, clock=clock, cpu_clock=free)
    sampler.sample()
    mark = sampler.mark()
    clock.now += 60.0
    for _ in range(2):
        [gap] = sampler.energy_since(mark).gaps
        assert "no sample was taken in time" in gap.reason
        assert gap.end_seconds - gap.start_seconds == pytest.approx(60.0)
        sampler.sample()


def test_a_trace_that_ends_is_a_lost_sensor() -> None:
    clock = Clock()
    samples = [s for s in trace(lambda _: 4.0, 10.0, 100) if not 3.0 < s.seconds < 5.0]
    sampler = Sampler(ReplayMeter(samples, clock=clock), 20, clock=clock, cpu_clock=free)
    sampler.sample()
    mark = sampler.mark()
    run(sampler, clock, 15.0)
    reading = sampler.energy_since(mark)
    assert reading.joules == pytest.approx(60.0)
    assert [gap.reason for gap in reading.gaps] == [
        "replay of a trace: it has no samples from 3 s to 5 s",
        "replay of a trace: it ended after 10 s",
    ]


# ------------------------------------------------------------------------------ counters


def test_a_counter_is_exact_however_seldom_it_is_read(tmp_path: Path) -> None:
    powercap = rapl(tmp_path, {"intel-rapl:0": ("package-0", 0)}, range_uj=10**9)
    clock = Clock()
    sampler = Sampler(open_rapl(tmp_path), 1, clock=clock, cpu_clock=free)
    sampler.sample()
    clock.now += 10.0
    write(powercap / "intel-rapl:0/energy_uj", 80_000_000)
    mark = sampler.mark()
    clock.now += 2.0
    write(powercap / "intel-rapl:0/energy_uj", 81_000_000)
    sampler.sample()
    clock.now += 2.0
    write(powercap / "intel-rapl:0/energy_uj", 120_000_000)
    reading = sampler.energy_since(mark)
    assert reading.joules == pytest.approx(40.0)
    assert reading.error_bound_joules < 0.01 * 40.0
    assert (reading.samples, reading.scope, reading.gaps) == (2, "module", ())


def test_a_counter_that_began_again_is_a_gap(tmp_path: Path) -> None:
    powercap = rapl(tmp_path, {"intel-rapl:0": ("package-0", 0)}, range_uj=10**9)
    clock = Clock()
    sampler = Sampler(open_rapl(tmp_path), 1, clock=clock, cpu_clock=free)
    sampler.sample()
    mark = sampler.mark()
    for energy in (5_000_000, 10_000_000, 3, 5_000_000):
        clock.now += 1.0
        write(powercap / "intel-rapl:0/energy_uj", energy)
        sampler.sample()
    reading = sampler.energy_since(mark)
    assert reading.joules == pytest.approx(20.0)
    assert reading.error_bound_joules >= 10.0
    assert ["went back" in gap.reason for gap in reading.gaps] == [True]


def test_an_estimate_has_its_error_in_the_bound(tmp_path: Path) -> None:
    write(tmp_path / "proc/stat", "cpu  0 0 0 100 0 0 0 0")
    clock = Clock()
    meter = ModelMeter(load_profile("raspberry-pi-5-8gb"), tmp_path)
    sampler = Sampler(meter, 10, clock=clock, cpu_clock=free)
    sampler.sample()
    mark = sampler.mark()
    run(sampler, clock, 10.0)
    reading = sampler.energy_since(mark)
    assert reading.kind == "estimated"
    assert reading.error_bound_joules > 0.3 * reading.joules > 0


# ------------------------------------------------------------------------------ the thread


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen in 20 s")


def test_the_thread_samples_until_it_is_stopped(tmp_path: Path) -> None:
    hwmon(board(tmp_path, "orin-nx"), "1-0040", [("VDD_IN", 5000, 1000)])
    seen: list[PowerSample] = []
    with Sampler(open_ina3221(tmp_path), 200, observer=seen.append) as sampler:
        mark = sampler.mark()
        wait_for(lambda: len(seen) > 20)
    reading = sampler.energy_since(mark)
    taken = len(seen)
    assert reading.joules == pytest.approx(5.0 * reading.seconds)
    assert reading.seconds > 0
    assert sampler.cpu_seconds > 0
    assert all(sample.watts == 5.0 for sample in seen)
    assert "edgetune-sampler" not in [thread.name for thread in threading.enumerate()]
    time.sleep(0.05)
    assert len(seen) == taken
    assert sampler.energy_since(mark) == reading  # time stands still after the end


def test_a_sensor_that_hangs_does_not_hold_up_who_asks() -> None:
    class Hanging(Changing):
        def __init__(self) -> None:
            super().__init__()
            self.hangs, self.go_on = threading.Event(), threading.Event()
            self.readings = 0

        def watts(self) -> float:
            self.readings += 1
            if self.readings == 3:
                self.hangs.set()
                assert self.go_on.wait(20)
            return 5.0

    meter = Hanging()
    with Sampler(meter, 200) as sampler:
        mark = sampler.mark()
        assert meter.hangs.wait(20)
        reading = sampler.energy_since(mark)  # would wait for ever
        meter.go_on.set()
    assert reading.joules == pytest.approx(5.0 * reading.seconds)


def test_an_observer_may_ask_for_the_energy_so_far() -> None:
    asked: list[float] = []
    clock = Clock()
    sampler = Sampler(
        Changing(),
        10,
        observer=lambda _: asked.append(sampler.energy_since(mark).joules),
        clock=clock,
    )
    mark = sampler.mark()
    sampler.sample()
    run(sampler, clock, 10.0)
    assert asked == sorted(asked)
    assert asked[0] == 0.0
    assert asked[-1] == pytest.approx(50.0, abs=0.5)


def test_the_thread_survives_a_sensor_that_disappears(tmp_path: Path) -> None:
    folder = hwmon(board(tmp_path, "orin-nx"), "1-0040", [("VDD_IN", 5000, 1000)])
    with Sampler(open_ina3221(tmp_path), 200) as sampler:
        mark = sampler.mark()
        (folder / "curr1_input").unlink()
        wait_for(lambda: sampler.latest is None)
        write(folder / "curr1_input", 1000)
        wait_for(lambda: sampler.latest is not None)
        reading = sampler.energy_since(mark)
    assert any("curr1_input" in gap.reason for gap in reading.gaps)
    assert reading.joules == pytest.approx(5.0 * reading.seconds)


def test_a_meter_that_cannot_be_read_is_told_before_anything_begins() -> None:
    sampler = Sampler(ScriptedMeter([MeterError("no such sensor")]))
    with pytest.raises(MeterError, match="no such sensor"), sampler:
        raise AssertionError("it must not begin")
    with Sampler(ScriptedMeter([5.0, MeterError("gone")]), 200) as sampler:
        wait_for(lambda: sampler.latest is None)


@pytest.mark.parametrize("rate", [0.0, -1.0, 1001.0, math.nan])
def test_the_rate_must_make_sense(rate: float) -> None:
    with pytest.raises(UsageError, match="expected more than 0 and at most 1000"):
        Sampler(ScriptedMeter([5.0]), rate)


def test_a_meter_that_costs_much_is_read_more_seldom() -> None:
    class Costly(Changing):
        def watts(self) -> float:
            until = time.thread_time() + 0.02
            while time.thread_time() < until:
                pass
            return 5.0

    for meter, expected in ((Costly(), 0.02 / CPU_SHARE), (Changing(), 0.1)):
        sampler = Sampler(meter, 10)
        sampler.sample()
        sampler.sample()
        assert sampler.interval_seconds >= expected
    assert sampler.interval_seconds == pytest.approx(0.1)
