from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgetune.calibration import calibrate as calibrating
from edgetune.calibration.calibrate import Calibration, Power, calibrate
from edgetune.calibration.machine import Storage, storage, usable_memory_bytes
from edgetune.calibration.profile_text import profile_text
from edgetune.calibration.rates import Timed, rates_of, time_workloads
from edgetune.calibration.timing import Duration, duration_of, interleaved
from edgetune.calibration.workloads import workloads
from edgetune.cli.calibrate_command import describe_calibration
from edgetune.errors import DeviceError, MeterError, StorageError
from edgetune.files.device_profiles import load_profile
from edgetune.meters import ScriptedMeter
from edgetune.nouns.profile import INT8, OPERATOR_CLASSES, PREFIX, UPDATE
from edgetune.runtime.onnxruntime_packages import import_onnxruntime


class FakeClock:
    """Time that goes on only when something takes time."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def takes(
        self, seconds: float, log: list[str] | None = None, name: str = ""
    ) -> Callable[[], None]:
        def run() -> None:
            self.now += seconds
            if log is not None:
                log.append(name)

        return run


def test_runs_take_turns_and_the_first_round_does_not_count() -> None:
    clock, log = FakeClock(), []
    runs = {"a": clock.takes(1.0, log, "a"), "b": clock.takes(3.0, log, "b")}
    found = interleaved(runs, 0.0, clock)
    assert {name: duration.seconds for name, duration in found.items()} == {"a": 1.0, "b": 3.0}
    assert found["a"].rounds == 5
    assert log == ["a", "b", *["a", "a", "b", "b"] * 5]


@pytest.mark.parametrize(
    ("within", "rounds"),
    [
        pytest.param(1.0, 5, id="no-time-still-five"),
        pytest.param(20.0, 10, id="as-the-time-allows"),
        pytest.param(1e9, 200, id="never-endless"),
    ],
)
def test_rounds_go_on_until_the_time_is_over(within: float, rounds: int) -> None:
    clock, shares = FakeClock(), list[float]()
    found = interleaved({"a": clock.takes(1.0)}, within, clock, shares.append)
    assert found["a"].rounds == rounds
    assert shares == sorted(shares) and shares[-1] == 1.0


@pytest.mark.parametrize(
    ("times", "seconds", "noisy"),
    [
        pytest.param([1.0, 1.0, 1.0, 1.0, 9.0], 1.0, False, id="one-disturbed"),
        pytest.param([1.0, 1.0, 2.0, 2.0], 1.5, True, id="half-disturbed"),
    ],
)
def test_a_duration_is_a_median_with_its_spread(
    times: list[float], seconds: float, noisy: bool
) -> None:
    found = duration_of(times)
    assert found.seconds == seconds
    assert found.noisy == noisy


def timed(measures: str, amount: float, seconds: float, spread: float = 0.0) -> Timed:
    return Timed("of a size", measures, amount, Duration(seconds, spread, 7))


def test_the_rate_of_a_class_is_all_its_work_over_all_its_time() -> None:
    found = rates_of([timed("matmul", 300, 1), timed("matmul", 100, 3, 0.2), timed("bytes", 8, 2)])
    assert 1 / found["matmul"].seconds == pytest.approx(100)
    assert found["matmul"].spread == 0.2
    assert 1 / found["bytes"].seconds == pytest.approx(4)


KEYS = [k for k in (*OPERATOR_CLASSES, *PREFIX.values(), INT8, UPDATE) if k != "elementwise"]
TIMED = (
    *(timed(key, 1e9, 0.5) for key in (*KEYS, "bytes")),
    timed("dispatch", 200, 1e-3),
    timed("group", 100, 1e-5),
)
CALIBRATION = Calibration(
    cores=4,
    cpu='a "quick" \\ CPU',
    onnxruntime="1.0",
    timed=TIMED,
    rates=rates_of(TIMED),
    copy=Duration(1e-9, 0.0, 5),
    usable_memory_bytes=2**30,
    process_bytes=2**26,
    power=Power(1.5, 4.0, "board", "ina3221", "a meter"),
    storage=Storage(1e7, 2e7),
)


def written(path: Path, calibration: Calibration, like: str | None = None) -> Path:
    path.write_text(profile_text(calibration, "mine", "a host", "2026-11-25", like))
    return path


def test_a_calibration_becomes_a_profile_of_measured_numbers(tmp_path: Path) -> None:
    profile = load_profile(str(written(tmp_path / "mine.toml", CALIBRATION)))
    assert (profile.id, profile.cores, profile.cpu) == ("mine", 4, 'a "quick" \\ CPU')
    assert profile.power_scope == "board" and profile.meter == "ina3221"
    numbers = {
        "bandwidth": profile.bandwidth_bytes_per_second,
        "dispatch": profile.dispatch_seconds,
        "group": profile.group_seconds,
        "idle": profile.idle_watts,
        "load": profile.load_watts,
        **profile.flops_per_second,
    }
    single = ("dispatch", "group", "idle", "load")
    assert {k: n.value for k, n in numbers.items() if n and k in single} == {
        "dispatch": 5e-6,
        "group": 1e-7,
        "idle": 1.5,
        "load": 4.0,
    }
    for name, number in numbers.items():
        assert number is not None, name
        assert number.kind == "measured" and number.date == "2026-11-25"
        assert number.source.startswith("edgetune calibrate on a host")
    assert set(profile.flops_per_second) == {*KEYS, "peak"}


def test_what_was_not_measured_is_taken_over_and_says_so(tmp_path: Path) -> None:
    silent = replace(CALIBRATION, power=None)
    alone = load_profile(str(written(tmp_path / "alone.toml", silent)))
    assert alone.idle_watts is None and alone.total_memory_bytes is None
    like = load_profile(str(written(tmp_path / "like.toml", silent, "raspberry-pi-4b-4gb")))
    assert like.idle_watts is not None and like.total_memory_bytes is not None
    assert like.idle_watts.source.endswith("taken over from raspberry-pi-4b-4gb")
    assert like.flops_per_second["matmul"].kind == "measured"


def test_a_profile_that_cannot_be_is_refused(tmp_path: Path) -> None:
    too_large = replace(CALIBRATION, usable_memory_bytes=2**40)
    with pytest.raises(DeviceError, match="usable_memory_bytes: found 1\\.1e"):
        load_profile(str(written(tmp_path / "large.toml", too_large, "raspberry-pi-4b-4gb")))


def test_the_same_calibration_is_the_same_text() -> None:
    texts = {profile_text(CALIBRATION, "a", "b", "2026-11-25", None) for _ in range(2)}
    assert len(texts) == 1


@pytest.mark.parametrize(("spread", "said"), [(0.05, "no workload"), (0.3, "1 of 13 workloads")])
def test_a_busy_machine_is_said_to_be_one(spread: float, said: str) -> None:
    first = replace(TIMED[0], duration=replace(TIMED[0].duration, spread=spread))
    found = describe_calibration(replace(CALIBRATION, timed=(first, *TIMED[1:])))
    assert said in found
    assert ("30% noisy" in found) == (spread > 0.1)


def small(monkeypatch: pytest.MonkeyPatch) -> None:
    one_each = {w.measures: w for w in workloads()}
    monkeypatch.setattr(calibrating, "workloads", lambda: tuple(one_each.values()))
    monkeypatch.setattr(calibrating, "memory_copy", lambda *_: Duration(1e-10, 0.0, 5))


def test_power_is_metered_idle_first_and_then_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)
    slept: list[float] = []
    phases: list[str] = []
    found = calibrate(
        import_onnxruntime(),
        0.2,
        ScriptedMeter([3.0], "wall"),
        None,
        lambda phase, share: phases.append(phase),
        sleep=slept.append,
    )
    assert slept == [pytest.approx(0.02)]
    assert found.power is not None and found.power.scope == "wall"
    assert found.power.load_watts == pytest.approx(3.0)
    assert list(dict.fromkeys(phases)) == ["idle power", "memory", "operators", "storage"]
    assert {item.measures for item in found.timed} == set(found.rates)


def test_without_a_meter_power_stays_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)
    found = calibrate(import_onnxruntime(), 0.1, None, None, lambda *_: None)
    assert found.power is None and found.storage is None
    assert "no meter" in describe_calibration(found)


def test_a_meter_that_cannot_be_read_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)
    meter = ScriptedMeter([MeterError("gone")])
    with pytest.raises(MeterError, match="gone"):
        calibrate(import_onnxruntime(), 0.1, meter, None, lambda *_: None, sleep=lambda _: None)


def test_a_workload_that_onnxruntime_refuses_is_named() -> None:
    broken = replace(workloads()[0], model=b"no model")
    with pytest.raises(DeviceError, match="not run the convolution workload '3x3, 64"):
        time_workloads(import_onnxruntime(), [broken], 0.1)


def test_storage_leaves_nothing_behind(tmp_path: Path) -> None:
    found = storage(tmp_path)
    assert found.write_bytes_per_second > 0
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot measure the storage of .*--storage"):
        storage(tmp_path / "missing")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({}, None, id="nothing-tells"),
        pytest.param({"proc/meminfo": "MemTotal: 1000 kB\n"}, 1024000, id="the-whole-machine"),
        pytest.param(
            {"proc/meminfo": "MemTotal: 1000 kB\n", "sys/fs/cgroup/memory.max": "4096\n"},
            4096,
            id="a-limit",
        ),
        pytest.param(
            {"proc/meminfo": "MemTotal: 1000 kB\n", "sys/fs/cgroup/memory.max": "max\n"},
            1024000,
            id="no-limit",
        ),
    ],
)
def test_usable_memory_is_what_the_kernel_or_the_cgroup_gives(
    tmp_path: Path, files: dict[str, str], expected: int | None
) -> None:
    process = {
        "proc/self/cgroup": "0::/\n",
        "proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
    }
    for name, text in {**process, **files}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found: Any = usable_memory_bytes(tmp_path)
    assert found == expected
