from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetune.errors import DeviceError, MeterError, UsageError
from edgetune.guards import Limits, Watch, open_watch, with_plans_energy, with_plans_memory
from edgetune.guards.battery import BatteryGuard, open_batteries
from edgetune.guards.deadline import TimeGuard
from edgetune.guards.energy import EnergyGuard
from edgetune.guards.guard import STOP_EXIT_CODES, Guard, Pause, Stop, Work
from edgetune.guards.power import WINDOW_SECONDS, PowerGuard, PowerWindow
from edgetune.guards.temperature import TemperatureGuard, open_thermometer
from edgetune.meters.replay import ReplayMeter, ScriptedMeter
from edgetune.meters.sampler import Sampler
from edgetune.nouns.budget import Budget
from edgetune.nouns.energy import EnergyReading, PowerSample
from edgetune.nouns.manifest import Manifest
from edgetune.nouns.plain import to_plain
from tests.device.fake_session import make_manifest
from tests.device.guard_cases import (
    MIB,
    Board,
    Says,
    cgroup_v2,
    limit_v2,
    memory_tree,
    moment,
    stop,
    zone,
)
from tests.device.sensor_trees import supply, write

# Watch --------------------------------------------------------------------------------------


def watch(board: Board, *guards: Guard) -> Watch:
    made = Watch(guards, board.clock, board.sleep)
    made.start()
    return made


def test_a_watch_without_guards_is_content() -> None:
    assert Watch().check("step", 0) is None


def test_the_first_stop_counts_and_a_stop_beats_a_pause() -> None:
    board = Board()
    energy, time = stop("energy"), stop("time")
    made = watch(board, Says(Pause(1.0)), Says(energy, budget="energy"), Says(time))
    assert made.check("step", 0) is energy
    assert board.seconds == 0


def test_a_pause_is_asked_again_until_it_is_over() -> None:
    board = Board()
    hot = Says(Pause(1.0), Pause(1.0), None, budget="temperature")
    made = watch(board, hot)
    board.work(5.0)
    assert made.check("update", 3) is None
    assert board.seconds == pytest.approx(7.0)
    assert made.paused_seconds == {"temperature": pytest.approx(2.0)}
    assert [m.paused_by for m in hot.asked] == [None, "temperature", "temperature"]
    assert [m.paused_seconds for m in hot.asked] == pytest.approx([0.0, 1.0, 2.0])
    assert [(m.steps, m.next) for m in hot.asked] == [(3, "update")] * 3
    made.start()
    assert made.paused_seconds == {}


def test_other_budgets_are_held_during_a_pause() -> None:
    board = Board()
    made = watch(board, Says(*[Pause(1.0)] * 99, budget="temperature"), TimeGuard(10.0))
    verdict = made.check("step", 0)
    assert isinstance(verdict, Stop)
    assert verdict.budget == "time"
    assert board.seconds == pytest.approx(11.0)


def test_a_pause_ends_when_somebody_wants_the_run_to_end() -> None:
    board = Board()
    made = watch(board, Says(*[Pause(60.0)] * 99))
    assert made.check("step", 0, lambda: board.seconds > 3) is None
    assert made.cut_short
    assert board.seconds < 4
    assert made.check("step", 0, lambda: True) is None


def test_slow_sensors_are_asked_as_often_as_is_worth_it() -> None:
    board, slow = Board(), Says()
    slow.every_seconds = 10.0
    made = watch(board, slow)
    for _ in range(100):
        made.check("step", 0)
        board.work(0.5)
    assert [m.seconds for m in slow.asked] == [0.0, 10.0, 20.0, 30.0, 40.0]


def test_every_budget_has_an_exit_code_of_its_own() -> None:
    assert len(set(STOP_EXIT_CODES.values())) == len(STOP_EXIT_CODES)
    assert not set(STOP_EXIT_CODES.values()) & {*range(11), 130}


# Time and energy ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "stops"),
    [
        pytest.param(moment(0.0), False, id="begins"),
        pytest.param(moment(80.0, 4), False, id="one-more-fits"),
        pytest.param(moment(81.0, 4), True, id="one-more-does-not"),
        pytest.param(moment(85.0, 4, next="micro-batch"), False, id="what-is-begun-is-ended"),
        pytest.param(moment(95.0, 4, next="micro-batch"), True, id="unless-it-cannot-be"),
        pytest.param(moment(95.0, 4, next="update"), False, id="what-is-computed-is-used"),
        pytest.param(moment(101.0, 4, next="update"), True, id="unless-it-is-over"),
    ],
)
def test_no_step_begins_that_would_not_end_in_time(at: Any, stops: bool) -> None:
    verdict = TimeGuard(100.0).check(at)
    assert isinstance(verdict, Stop) == stops
    if isinstance(verdict, Stop):
        assert (verdict.measured, verdict.allowed, verdict.unit) == (at.seconds, 100.0, "s")
        assert "of 100.00 s are over, and what comes next takes" in verdict.reason


@pytest.mark.parametrize(("planned", "stops"), [(None, False), (5.0, False), (11.0, True)])
def test_the_first_step_is_as_long_as_planned(planned: float | None, stops: bool) -> None:
    assert isinstance(TimeGuard(10.0, planned).check(moment()), Stop) == stops
    reading = EnergyReading(0.0, 0.0, 0.0, "board", "meter", 0, "measured")
    assert isinstance(EnergyGuard(10.0, lambda: reading, planned).check(moment()), Stop) == stops


@pytest.mark.parametrize(
    ("joules", "work", "stops"),
    [
        (80.0, "step", False),
        (81.0, "step", True),
        (85.0, "micro-batch", False),
        (96.0, "evaluation", True),
        (96.0, "update", False),
    ],
)
def test_no_step_begins_that_energy_does_not_last_for(
    joules: float, work: Work, stops: bool
) -> None:
    reading = EnergyReading(joules, 1.5, 20.0, "wall", "a meter", 99, "estimated")
    verdict = EnergyGuard(100.0, lambda: reading).check(moment(20.0, 4, next=work))
    assert isinstance(verdict, Stop) == stops
    if isinstance(verdict, Stop):
        assert (verdict.measured, verdict.allowed, verdict.unit) == (joules, 100.0, "J")
        assert "(estimated, wall, +- 1.50 J: a meter); continue with --resume" in verdict.reason


def test_energy_is_that_of_a_replayed_trace() -> None:
    """5 W all the time: a budget of 50 J is over after 10 s, one step before."""
    board = Board()
    meter = ReplayMeter([PowerSample(s / 10, 5.0) for s in range(400)], clock=board.clock)
    sampler = Sampler(meter, clock=board.clock)
    sampler.sample()
    begun = sampler.mark()
    made = watch(board, EnergyGuard(50.0, lambda: sampler.energy_since(begun)))
    for step in range(99):
        found = made.check("step", step)
        if found is not None:
            break
        for _ in range(10):
            board.work(0.1)
            sampler.sample()
    assert step == 10
    assert found is not None
    assert found.measured == pytest.approx(50.0, rel=0.02)


def test_a_sensor_that_is_lost_does_not_end_the_run() -> None:
    board = Board()
    sampler = Sampler(ScriptedMeter([5.0, MeterError("gone")]), clock=board.clock)
    sampler.sample()
    begun = sampler.mark()
    rule = EnergyGuard(50.0, lambda: sampler.energy_since(begun))
    board.work(5.0)
    sampler.sample()
    assert rule.check(moment(5.0, 1)) is None
    board.work(5.0)
    assert isinstance(rule.check(moment(10.0, 2)), Stop)  # guessed from before: 50 J


# Power --------------------------------------------------------------------------------------


def power_guard(board: Board, cap: float) -> PowerGuard:
    sampler = board.sampler()
    begun = sampler.mark()
    return PowerGuard(cap, PowerWindow(lambda: sampler.energy_since(begun)))


@pytest.mark.parametrize(("piece_seconds", "window"), [(0.02, 10.0), (0.5, 10.0), (3.0, 30.0)])
@pytest.mark.parametrize("cap", [2.6, 4.0, 5.9])
def test_the_mean_over_every_window_stays_below_the_cap(
    piece_seconds: float, window: float, cap: float
) -> None:
    board = Board(idle_watts=2.0, load_watts=6.0)
    rule = power_guard(board, cap)
    made = watch(board, rule)
    while board.seconds < 12 * window:
        assert made.check("step", 0) is None
        board.work(piece_seconds)
    assert rule.window.seconds == pytest.approx(window)
    seconds, joules = zip((0.0, 0.0), *board.trace, strict=True)
    ends = np.arange(2 * window, board.seconds, 0.25)
    used = np.interp(ends, seconds, joules) - np.interp(ends - window, seconds, joules)
    assert max(used / window) <= cap * 1.02
    assert cap - 0.5 < board.used_joules / board.seconds  # not slower than it must be, either


def test_below_the_cap_nothing_is_paused() -> None:
    board = Board(load_watts=6.0)
    made = watch(board, power_guard(board, 6.1))
    for _ in range(200):
        assert made.check("step", 0) is None
        board.work(0.3)
    assert made.paused_seconds == {}


def test_a_device_that_rests_above_the_cap_cannot_hold_it() -> None:
    board = Board(idle_watts=3.0, load_watts=6.0)
    made = watch(board, power_guard(board, 2.5))
    assert made.check("step", 0) is None
    board.work(0.5)
    verdict = made.check("step", 1)
    assert isinstance(verdict, Stop)
    assert (verdict.budget, verdict.allowed) == ("power", 2.5)
    assert verdict.measured == pytest.approx(3.0, rel=0.05)
    assert "draws 3.0" in verdict.reason
    assert "at rest and 6.00 W at work (measured, board: a simulated board)" in verdict.reason
    assert made.paused_seconds["power"] < 2 * WINDOW_SECONDS


# Temperature --------------------------------------------------------------------------------


def test_it_pauses_above_and_resumes_well_below(tmp_path: Path) -> None:
    folder, board = zone(tmp_path, 0, "cpu-thermal", 79000), Board()
    rule = TemperatureGuard(80.0, open_thermometer(tmp_path))
    resting = {"paused_by": "temperature"}
    readings = [
        (79000, {}, None),
        (80001, {}, Pause),
        (76000, resting, Pause),
        (75000, resting, None),
        (76000, {}, None),
        (76000, {"paused_by": "power"}, None),
    ]
    for milli, changes, expected in readings:
        write(folder / "temp", milli)
        verdict = rule.check(moment(**changes))
        assert type(verdict) is (expected or type(None)), (milli, changes)
    assert board.seconds == 0


def test_what_does_not_cool_in_an_hour_ends_the_run(tmp_path: Path) -> None:
    zone(tmp_path, 0, "cpu-thermal", 90000)
    board = Board()
    made = watch(board, TemperatureGuard(80.0, open_thermometer(tmp_path)))
    verdict = made.check("step", 0)
    assert isinstance(verdict, Stop)
    assert (verdict.budget, verdict.measured, verdict.allowed) == ("temperature", 90.0, 80.0)
    assert "it is 90.0 °C after a pause of an hour" in verdict.reason
    assert board.seconds == pytest.approx(3601, abs=1)


@pytest.mark.parametrize("temp", ["", "nonsense", 200000, -273000])
def test_a_thermometer_that_is_lost_ends_the_run(tmp_path: Path, temp: str | int) -> None:
    folder = zone(tmp_path, 0, "cpu-thermal", 60000)
    rule = TemperatureGuard(80.0, open_thermometer(tmp_path))
    write(folder / "temp", temp)
    verdict = rule.check(moment())
    assert isinstance(verdict, Stop)
    assert verdict.measured is None
    assert "the thermal zones cannot be read any more" in verdict.reason
    json.dumps(to_plain(verdict), allow_nan=False)


@pytest.mark.parametrize(
    ("zones", "celsius"),
    [
        pytest.param([("cpu-thermal", 61000)], 61.0, id="raspberry-pi"),
        pytest.param(
            [("AO-therm", 70000), ("CPU-therm", 60000), ("GPU-therm", 62000), ("PMIC-Die", 100000)],
            62.0,
            id="jetson-nano-whose-power-chip-says-100",
        ),
        pytest.param([("iwlwifi_1", 90000), ("x86_pkg_temp", 55000)], 55.0, id="x86"),
        pytest.param([("acpitz", 45000)], 45.0, id="no-zone-of-a-processor"),
        pytest.param([("cpu-thermal", ""), ("acpitz", 45000)], 45.0, id="off"),
    ],
)
def test_the_processors_zones_are_read(
    tmp_path: Path, zones: list[tuple[str, Any]], celsius: float
) -> None:
    for number, (kind, temp) in enumerate(zones):
        zone(tmp_path, number, kind, temp)
    assert open_thermometer(tmp_path).celsius() == celsius


# Battery ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batteries", "stops"),
    [
        pytest.param([(31, "Discharging")], False, id="above"),
        pytest.param([(30, "Discharging")], False, id="at"),
        pytest.param([(29, "Discharging")], True, id="below"),
        pytest.param([(29, "Unknown")], True, id="below-and-says-nothing"),
        pytest.param([(29, "Charging")], False, id="on-the-charger"),
        pytest.param([(29, "Not charging")], False, id="held-by-the-charger"),
        pytest.param([(5, "Discharging"), (90, "Not charging")], False, id="two-one-after-another"),
        pytest.param([(5, "Discharging"), (40, "Not charging")], True, id="two-nearly-empty"),
    ],
)
def test_the_battery_keeps_its_floor(
    tmp_path: Path, batteries: list[tuple[int, str]], stops: bool
) -> None:
    for number, (capacity, status) in enumerate(batteries):
        supply(tmp_path, f"BAT{number}", type="Battery", capacity=capacity, status=status)
    supply(tmp_path, "mouse", type="Battery", scope="Device", capacity=1, status="Discharging")
    supply(tmp_path, "AC", type="Mains", online=1)
    verdict = BatteryGuard(30.0, open_batteries(tmp_path)).check(moment())
    assert isinstance(verdict, Stop) == stops
    if isinstance(verdict, Stop):
        assert (verdict.budget, verdict.allowed, verdict.unit) == ("battery", 30.0, "%")
        assert "% are left, and 30 % shall remain" in verdict.reason


def test_a_battery_that_is_lost_ends_the_run(tmp_path: Path) -> None:
    folder = supply(tmp_path, "BAT0", type="Battery", capacity=80, status="Discharging")
    rule = BatteryGuard(30.0, open_batteries(tmp_path))
    (folder / "capacity").unlink()
    verdict = rule.check(moment())
    assert isinstance(verdict, Stop)
    assert verdict.measured is None
    assert "the battery cannot be read any more" in verdict.reason


# From limits to a watch ---------------------------------------------------------------------


def manifest(**budget: Any) -> Manifest:
    from dataclasses import replace  # noqa: PLC0415

    made = make_manifest()
    return replace(made, plan=replace(made.plan, budget=Budget(**budget)))


@pytest.mark.parametrize(
    ("limits", "error", "message"),
    [
        (Limits(energy_joules=5.0), UsageError, "a budget of energy or power needs a meter"),
        (Limits(power_watts=5.0), UsageError, "a budget of energy or power needs a meter"),
        (Limits(celsius=80.0), DeviceError, "no thermal zone in .* leave --temperature out"),
        (Limits(battery_percent=30.0), DeviceError, "no battery in .* leave --battery-floor out"),
    ],
)
def test_what_cannot_be_held_is_refused(
    tmp_path: Path, limits: Limits, error: type[Exception], message: str
) -> None:
    with (
        pytest.raises(error, match=message),
        open_watch(limits, make_manifest, 0, root=tmp_path),
    ):
        raise AssertionError("not reached")


def test_a_watch_holds_what_the_limits_say(tmp_path: Path) -> None:
    board = Board()
    zone(tmp_path, 0, "cpu-thermal", 60000)
    supply(tmp_path, "BAT0", type="Battery", capacity=80, status="Discharging")
    limits = Limits(100, 5.0, 4.0, 60.0, 80.0, 30.0)
    memory_tree(tmp_path)
    with open_watch(limits, make_manifest, 0, board, tmp_path, board.clock, board.sleep) as made:
        assert made.energy is not None
        assert made.energy().kind == "measured"
        found = made.check("step", 0)
    assert found is not None
    assert found.budget == "memory"


def test_memory_is_guarded_without_any_limit(tmp_path: Path) -> None:
    limit_v2(cgroup_v2(memory_tree(tmp_path), "/"), 61, 60)
    with open_watch(Limits(), make_manifest, 0, root=tmp_path) as made:
        found = made.check("step", 0)
    assert found is not None
    assert found.budget == "memory"


def test_the_plans_budgets_are_the_default() -> None:
    plan = manifest(memory_bytes=100 * MIB, run_energy_joules=500.0, run_steps=10)
    limits = with_plans_memory(Limits(), plan, 20 * MIB)
    assert limits.memory_bytes == 120 * MIB
    assert limits.memory_from == "the plan's budget, 100.0 MiB, and 20.0 MiB of data"
    assert with_plans_energy(limits, plan, resumed=False).energy_joules == 500.0
    with pytest.raises(UsageError, match=r"500\.00 J for a whole run.* --energy, or --energy none"):
        with_plans_energy(limits, plan, resumed=True)


def test_a_plan_without_budgets_bounds_nothing() -> None:
    assert with_plans_memory(Limits(), manifest(), 5) == Limits()
    assert with_plans_energy(Limits(), manifest(), resumed=True) == Limits()
