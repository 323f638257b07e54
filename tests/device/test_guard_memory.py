from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from edgetune.guards.cgroups import memory_cgroups
from edgetune.guards.guard import Stop
from edgetune.guards.memory import MARGIN_BYTES, MemoryGuard, StepPeak
from edgetune.guards.memory_room import Neighbours, ProcessMemory, Room, memory_files
from tests.device.guard_cases import (
    MIB,
    cgroup_v1,
    cgroup_v2,
    limit_v1,
    limit_v2,
    memory_tree,
    moment,
)
from tests.device.sensor_trees import write

# Which cgroups ------------------------------------------------------------------------------


def test_every_group_up_to_the_mount_is_looked_at(tmp_path: Path) -> None:
    top = cgroup_v2(tmp_path, "/system.slice/train.service")
    limit_v2(top / "system.slice/train.service", 300, 100)
    limit_v2(top / "system.slice", 200, 150)
    groups = memory_cgroups(tmp_path)
    assert [g.name for g in groups] == ["/system.slice/train.service", "/system.slice", "/"]
    assert [g.limit_bytes() for g in groups] == [300 * MIB, 200 * MIB, None]
    memory_tree(tmp_path)
    free = {room.where: room.free_bytes // MIB for room in memory_files(tmp_path).rooms()}
    expected = {"the cgroup /system.slice/train.service": 200, "the cgroup /system.slice": 50}
    assert free == {**expected, "the machine": 4000}


@pytest.mark.parametrize(
    ("path", "mount_root", "names"),
    [
        pytest.param("/a/b", "/", ["/a/b", "/a", "/"], id="the-whole-hierarchy"),
        pytest.param("/docker/c1", "/docker/c1", ["/"], id="a-container's-own-part"),
        pytest.param("/docker/c1", "/docker/c2", ["/"], id="a-part-of-something-else"),
        pytest.param("/../x", "/", ["/"], id="outside-of-the-namespace"),
        pytest.param("/gone", "/", ["/"], id="a-group-that-the-mount-does-not-show"),
    ],
)
def test_a_mount_shows_a_part_of_the_hierarchy(
    tmp_path: Path, path: str, mount_root: str, names: list[str]
) -> None:
    top = cgroup_v1(tmp_path, path, mount_root)
    (top / "a/b").mkdir(parents=True)
    limit_v1(top, 100, 50)
    assert [group.name for group in memory_cgroups(tmp_path)] == names


def test_version_1_wins_where_it_has_the_controller(tmp_path: Path) -> None:
    top = cgroup_v1(tmp_path, "/x", where="/sys/fs/with\\040space")
    limit_v1(top / "x", 64, 10)
    own, root = memory_cgroups(tmp_path)
    assert own.limit_bytes() == 64 * MIB
    limit_v1(root.folder, None, 10)
    assert root.limit_bytes() is None


@pytest.mark.parametrize("mountinfo", ["", "nonsense\n1 2 3 - x\n"])
def test_without_cgroups_the_machine_alone_limits(tmp_path: Path, mountinfo: str) -> None:
    write(memory_tree(tmp_path) / "proc/self/mountinfo", mountinfo)
    assert memory_cgroups(tmp_path) == ()
    (room,) = memory_files(tmp_path).rooms()
    assert room == Room("the machine", 8000 * MIB, 4000 * MIB)


def test_a_system_that_tells_nothing_is_not_guarded(tmp_path: Path) -> None:
    files = memory_files(tmp_path)
    assert files.process() is None
    assert files.rooms() == []
    assert MemoryGuard(StepPeak(lambda: None), files, limit_bytes=1).check(moment()) is None


# How much room ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stat", "used"),
    [
        pytest.param({}, 90, id="nothing-known"),
        pytest.param({"inactive_file": 30}, 60, id="inactive-pages-are-taken-back"),
        pytest.param({"active_file": 30, "mapped": 10}, 70, id="active-ones-but-for-the-mapped"),
        pytest.param({"active_file": 10, "mapped": 30}, 90, id="mapped-is-never-taken-back"),
        pytest.param({"inactive_file": 95}, 0, id="never-below-nothing"),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_page_cache_is_not_counted_against_the_limit(
    tmp_path: Path, version: int, stat: dict[str, int], used: int
) -> None:
    stat = dict(stat)
    mapped = stat.pop("mapped", 0)
    if version == 1:
        limit_v1(cgroup_v1(tmp_path, "/"), 100, 90, mapped_file=mapped, **stat)
    else:
        limit_v2(cgroup_v2(tmp_path, "/"), 100, 90, file_mapped=mapped, **stat)
    (room,) = memory_files(tmp_path).rooms()
    assert room.used_bytes == used * MIB


def test_the_process_is_read_as_the_kernel_counts_it(tmp_path: Path) -> None:
    assert memory_files(memory_tree(tmp_path, 60, 70)).process() == ProcessMemory(
        60 * MIB, 70 * MIB
    )
    late = memory_files(memory_tree(tmp_path, 80, 70)).process()
    assert late == ProcessMemory(80 * MIB, 80 * MIB)


# What the next step needs -------------------------------------------------------------------


def used(resident: int, peak: int) -> ProcessMemory:
    return ProcessMemory(resident * MIB, peak * MIB)


def test_the_plan_is_believed_until_a_step_was_measured() -> None:
    peak = StepPeak(lambda: 100 * MIB)
    assert peak.expected_bytes(used(60, 65), 0) == (100 * MIB, False)
    assert peak.expected_bytes(used(70, 80), 0) == (100 * MIB, False)  # half of the first step
    assert peak.expected_bytes(used(70, 85), 1) == (85 * MIB, True)


def test_a_step_that_takes_more_than_planned_is_believed_at_once() -> None:
    peak = StepPeak(lambda: 100 * MIB)
    peak.expected_bytes(used(60, 65), 0)
    assert peak.expected_bytes(used(70, 120), 0) == (120 * MIB, False)


def test_what_is_held_since_comes_on_top() -> None:
    peak = StepPeak(lambda: 100 * MIB)
    peak.expected_bytes(used(60, 65), 0)
    peak.expected_bytes(used(70, 85), 1)
    assert peak.expected_bytes(used(70.5, 85), 2) == (85 * MIB, True)  # type: ignore[arg-type]
    assert peak.expected_bytes(used(81, 85), 3) == (95 * MIB, True)
    assert peak.expected_bytes(used(50, 85), 4) == (85 * MIB, True)  # graphs are loaded anew


@pytest.mark.parametrize(
    ("peak_mib", "expected"),
    [
        pytest.param(90, 100, id="it-kept-to-it"),
        pytest.param(101, 121, id="it-did-not"),
    ],
)
def test_the_prediction_bounds_a_process_that_kept_to_it(peak_mib: int, expected: int) -> None:
    """It holds 21 MiB more than after its peak, of which 1 MiB means nothing."""
    peak = StepPeak(lambda: 100 * MIB)
    peak.expected_bytes(used(60, 65), 0)
    peak.expected_bytes(used(65, peak_mib), 1)
    assert peak.expected_bytes(used(86, peak_mib), 2) == (expected * MIB, True)


@pytest.mark.parametrize(("predicted", "expected"), [(100, 100), (None, 300)])
def test_a_peak_from_before_the_first_step_only_bounds(
    predicted: int | None, expected: int
) -> None:
    """Loading took 300 MiB for a moment, and no step has reached that."""
    peak = StepPeak(lambda: None if predicted is None else predicted * MIB)
    peak.expected_bytes(used(60, 300), 0)
    assert peak.expected_bytes(used(70, 300), 1) == (expected * MIB, True)


def test_another_micro_batch_is_planned_anew() -> None:
    predicted = [100 * MIB]
    peak = StepPeak(lambda: predicted[0])
    peak.expected_bytes(used(60, 65), 0)
    assert peak.expected_bytes(used(70, 95), 1) == (95 * MIB, True)
    predicted[0] = 80 * MIB
    assert peak.expected_bytes(used(70, 95), 1) == (80 * MIB, False)
    assert peak.expected_bytes(used(70, 95), 2) == (80 * MIB, True)


# The rule -----------------------------------------------------------------------------------


def guard(root: Path, limit: int | None = None, predicted: int | None = 100) -> MemoryGuard:
    peak = StepPeak(lambda: None if predicted is None else predicted * MIB)
    bound = None if limit is None else limit * MIB
    return MemoryGuard(peak, memory_files(root), bound, "--memory")


@pytest.mark.parametrize(
    ("limit", "predicted", "stops"),
    [
        pytest.param(100, 100, False, id="just-fits"),
        pytest.param(99, 100, True, id="does-not-fit"),
        pytest.param(99, None, False, id="nothing-foreseen"),
        pytest.param(59, None, True, id="held-already"),
        pytest.param(None, 100, False, id="unbounded"),
    ],
)
def test_the_process_keeps_to_its_budget(
    tmp_path: Path, limit: int | None, predicted: int | None, stops: bool
) -> None:
    verdict = guard(memory_tree(tmp_path), limit, predicted).check(moment())
    assert isinstance(verdict, Stop) == stops


def test_a_stop_says_what_is_held_needed_and_allowed(tmp_path: Path) -> None:
    verdict = guard(memory_tree(tmp_path), 90).check(moment())
    assert isinstance(verdict, Stop)
    assert (verdict.budget, verdict.unit) == ("memory", "B")
    figures = (60 * MIB, 90 * MIB, 40 * MIB)
    assert (verdict.measured, verdict.allowed, verdict.needs) == figures
    assert verdict.reason == (
        "the process holds 60.0 MiB, and the next step would take 40.0 MiB more, as far as is "
        "planned; the limit is 90.0 MiB (--memory)"
    )


@pytest.mark.parametrize(
    ("used_mib", "cached", "stops"),
    [
        pytest.param(60, 0, False, id="room-for-what-is-planned"),
        pytest.param(61, 0, True, id="a-little-less"),
        pytest.param(90, 30, False, id="cached-pages-make-room"),
    ],
)
@pytest.mark.parametrize("level", ["", "a", "a/b"])
def test_the_tightest_group_counts(
    tmp_path: Path, level: str, used_mib: int, cached: int, stops: bool
) -> None:
    top = cgroup_v2(memory_tree(tmp_path), "/a/b")
    for folder in (top, top / "a", top / "a/b"):
        limit_v2(folder, 1000, used_mib)
    limit_v2(top / level, 100, used_mib, inactive_file=cached)
    verdict = guard(tmp_path).check(moment())
    assert isinstance(verdict, Stop) == stops
    if isinstance(verdict, Stop):
        assert f"the cgroup /{level} holds 61.0 MiB, and" in verdict.reason
        assert verdict.allowed == 100 * MIB


def test_a_machine_without_a_memory_controller_is_guarded_too(tmp_path: Path) -> None:
    assert guard(memory_tree(tmp_path, available=40)).check(moment()) is None
    verdict = guard(memory_tree(tmp_path, available=39)).check(moment())
    assert isinstance(verdict, Stop)
    assert verdict.reason.startswith("the machine holds 7.77 GiB, and the next step would take")


def test_room_for_the_checkpoint_is_always_left(tmp_path: Path) -> None:
    """Also where a step takes nothing more."""
    top = cgroup_v1(memory_tree(tmp_path), "/")
    small = dataclasses.replace(guard(tmp_path, predicted=None), checkpoint_bytes=3 * MIB)
    limit_v1(top, 60 + 3 + MARGIN_BYTES // MIB, 60)
    assert small.check(moment()) is None
    limit_v1(top, 60 + 2 + MARGIN_BYTES // MIB, 60)
    assert isinstance(small.check(moment()), Stop)


def test_a_measured_step_needs_a_margin_beside_a_limit_that_kills(tmp_path: Path) -> None:
    top = cgroup_v1(memory_tree(tmp_path, 60, 65), "/")
    limit_v1(top, 1000, 60)
    rule = guard(tmp_path)
    assert rule.check(moment()) is None
    memory_tree(tmp_path, 70, 90)
    for limit, stops in ((90 + 4, False), (90 + 3, True)):
        limit_v1(top, limit, 70)
        verdict = rule.check(moment(steps=1))
        assert isinstance(verdict, Stop) == stops
    assert "20.0 MiB more, as steps before it did; the limit" in verdict.reason  # type: ignore[union-attr]


def test_what_others_take_meanwhile_is_allowed_for(tmp_path: Path) -> None:
    top = cgroup_v1(memory_tree(tmp_path, 60, 65), "/")
    rule = guard(tmp_path)
    limit_v1(top, 200, 60)
    assert rule.check(moment()) is None
    limit_v1(top, 200, 100)  # 100 are free, 40 are needed, and 40 more went to others
    assert rule.check(moment()) is None
    limit_v1(top, 200, 125)
    verdict = rule.check(moment())
    assert isinstance(verdict, Stop)
    assert "as far as is planned, while others grow by 40.0 MiB; the limit" in verdict.reason


def test_growth_of_others_is_forgotten_and_ones_own_is_none() -> None:
    others = Neighbours()
    resident, seen = 50, []
    for use in (100, 130, 130, 130, 130, 130, 120):
        seen.append(others.growth_bytes(Room("r", 1000, use), resident))
    assert seen == [0, 30, 30, 30, 30, 0, 0]
    assert others.growth_bytes(Room("r", 1000, 220), resident + 100) == 0
