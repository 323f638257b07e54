"""Whether one bundle can be trained here: its files, the runtime, memory, disk and profile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgetune.doctor.board import Match
from edgetune.doctor.finding import Finding
from edgetune.doctor.memory import tightest_room
from edgetune.errors import BundleError, EdgetuneError, StorageError
from edgetune.files.atomic import check_writable
from edgetune.files.bundle import check_digests, read_manifest
from edgetune.files.device_profiles import profile_ids
from edgetune.guards.memory_room import MemoryFiles
from edgetune.nouns.manifest import Manifest
from edgetune.nouns.plan import UpdatePlan
from edgetune.runtime.open_session import open_checked
from edgetune.runtime.self_test import read_self_test, run_self_test
from edgetune.units import format_bytes

_FP32_BYTES = 4


def bundle_findings(
    folder: Path, files: MemoryFiles, match: Match | None, free_disk_bytes: int
) -> Iterator[Finding]:
    """All there is to say of the bundle in `folder`; what is damaged is not run. Never raises.

    free_disk_bytes: where its checkpoint goes, beside the folder.
    """
    try:
        manifest, digest = read_manifest(folder)
        check_digests(folder, manifest.digests)
    except BundleError as error:
        yield Finding("bundle", "problem", "cannot be used", str(error))
        return
    yield Finding("bundle", "ok", f"{folder}: {len(manifest.digests)} files have their digests")
    memory = memory_finding(manifest, files)
    yield memory
    if memory.verdict == "problem":
        advice = "the step was not tried: there is no room for it"
        yield Finding("bundle runs", "note", manifest.format, advice)
    else:
        yield _runs(folder, manifest, digest)
    yield disk_finding(manifest.plan, folder, free_disk_bytes)
    yield profile_finding(manifest.plan, match)


def _runs(folder: Path, manifest: Manifest, digest: str) -> Finding:
    """By its self-test: loss, gradients and updates."""
    try:
        session = open_checked(folder, manifest, digest)
        recorded = read_self_test(folder)
        report = run_self_test(session, recorded)
    except EdgetuneError as error:
        return Finding("bundle runs", "problem", f"{manifest.format}: no", str(error))
    reference = recorded.reference
    if report.problems:
        found = f"{manifest.format}: it computes something else than {reference}"
        return Finding("bundle runs", "problem", found, "; ".join(report.problems))
    return Finding("bundle runs", "ok", f"{manifest.format}; its self-test agrees with {reference}")


def memory_finding(manifest: Manifest, files: MemoryFiles) -> Finding:
    """The plan's peak against what this process holds or could get."""
    rooms = files.rooms()
    if not rooms:
        return Finding("bundle memory", "note", "unknown; this system does not tell what is free")
    process = files.process()
    tightest = tightest_room(rooms)
    free = tightest.free_bytes + (process.resident_bytes if process is not None else 0)
    room = f"{format_bytes(free)} free ({tightest.where})"
    if manifest.format != "portable":
        advice = "what a process of ort-training takes is not predicted: edgetune profile measures"
        return Finding("bundle memory", "note", room, advice)
    peak = manifest.plan.cost.peak_bytes
    found = f"training takes {format_bytes(peak)} and your data set; {room}"
    if peak <= free:
        return Finding("bundle memory", "ok", found)
    advice = f"end other programs, or export with --memory {_whole_mib(free)}MiB or less"
    return Finding("bundle memory", "problem", found, advice)


def _whole_mib(count: int) -> int:
    return count // 2**20


def disk_bytes(plan: UpdatePlan) -> int:
    """What checkpoints and the delta take: a new checkpoint is written beside the old one.

    A checkpoint holds the values, the optimizer's state and the values of the best epoch.
    """
    values = _FP32_BYTES * plan.trainable_count
    return 2 * (2 + len(plan.optimizer.slots)) * values + values


def disk_finding(plan: UpdatePlan, folder: Path, free_bytes: int) -> Finding:
    """Room and permission beside the bundle."""
    where = folder.resolve().parent
    found = (
        f"checkpoints and delta take {format_bytes(disk_bytes(plan))}; "
        f"{format_bytes(free_bytes)} free in {where}"
    )
    try:
        check_writable(where / f"{folder.resolve().name}.checkpoint")
    except StorageError as error:
        return Finding(
            "bundle disk", "problem", found, f"{error}: --checkpoint and --out move them"
        )
    if disk_bytes(plan) <= free_bytes:
        return Finding("bundle disk", "ok", found)
    advice = "make room, or put them elsewhere with --checkpoint and --out"
    return Finding("bundle disk", "problem", found, advice)


def profile_finding(plan: UpdatePlan, match: Match | None) -> Finding:
    """The device of the plan against this one. Raises DeviceError as `profile_ids` does."""
    planned = f"planned for {plan.device}"
    if plan.device not in profile_ids():
        return Finding("bundle profile", "ok", f"{planned}, a profile of your own")
    if match is not None and (plan.device == match.profile or _is_mode(plan.device, match.profile)):
        return Finding("bundle profile", "ok", planned)
    here = "another machine" if match is None or match.is_generic else f"a {match.profile}"
    advice = (
        "what was predicted is of that device: edgetune profile measures here, edgetune replan "
        "says what could be trained here"
    )
    return Finding("bundle profile", "note", f"{planned}; this is {here}", advice)


def _is_mode(device: str, profile: str) -> bool:
    """Whether `device` is a power mode of `profile`, which nothing tells from here."""
    return device.startswith(f"{profile}-")
