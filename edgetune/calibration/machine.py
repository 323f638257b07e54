"""What a machine tells about itself, and what its storage and memory sustain."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgetune.calibration.timing import Clock, Duration, interleaved
from edgetune.errors import StorageError
from edgetune.guards.cgroups import memory_cgroups

_COPIED_BYTES = 32 * 2**20  # more than the caches of small devices
_STORED_BYTES = 16 * 2**20
_REPETITIONS = 3


@dataclass(frozen=True)
class Storage:
    """Rates of a folder, in bytes per second. read: None where the page cache cannot be avoided."""

    write_bytes_per_second: float
    read_bytes_per_second: float | None


def cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_name(root: Path = Path("/")) -> str:
    """The processor by the name that Linux gives it; else that of its architecture."""
    for path, key in (
        (root / "proc" / "device-tree" / "model", None),
        (root / "proc" / "cpuinfo", "model name"),
    ):
        with suppress(OSError):
            text = path.read_bytes().decode("utf-8", "replace").strip("\0\n ")
            if key is None:
                return f"{text}, {platform.machine()}"
            names = [line.partition(":")[2] for line in text.splitlines() if line.startswith(key)]
            if names:
                return f"{names[0].strip()}, {platform.machine()}"
    return platform.machine() or "unknown"


def usable_memory_bytes(root: Path = Path("/")) -> int | None:
    """What the kernel gives to all processes, or this one's cgroup gets; None if not told."""
    found = []
    with suppress(OSError, ValueError, IndexError):
        lines = (root / "proc" / "meminfo").read_text().splitlines()
        found.append(1024 * int(lines[0].split()[1]))  # MemTotal comes first, in KiB
    limits = [group.limit_bytes() for group in memory_cgroups(root)]
    found += [limit for limit in limits if limit is not None]
    return min(found, default=None)


def memory_copy(within_seconds: float, clock: Clock = time.perf_counter) -> Duration:
    """Seconds per byte, read plus written, of copying an array that no small cache holds."""
    source = np.ones(_COPIED_BYTES // 8)
    target = np.zeros_like(source)
    found = interleaved({"copy": lambda: np.copyto(target, source)}, within_seconds, clock)["copy"]
    return Duration(found.seconds / (2 * _COPIED_BYTES), found.spread, found.rounds)


def storage(folder: Path, clock: Clock = time.perf_counter) -> Storage:
    """Write and read rates of `folder`: a file of 16 MiB, synced, three times. Raises StorageError.

    The file is gone afterwards.
    """
    path = folder / f".edgetune-calibrate-{os.getpid()}"
    data = np.random.default_rng(0).bytes(_STORED_BYTES)  # nothing that a disk could compress
    try:
        with path.open("wb+", buffering=0) as file:
            handle = file.fileno()
            written = [_timed(lambda: _write(handle, data), clock) for _ in range(_REPETITIONS)]
            read = None
            if hasattr(os, "posix_fadvise"):
                read = [_timed(lambda: _read(handle), clock) for _ in range(_REPETITIONS)]
    except OSError as error:
        raise StorageError(
            f"cannot measure the storage of {folder}: {error.strerror or error}; give another "
            "folder with --storage"
        ) from error
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)
    return Storage(
        _STORED_BYTES / statistics.median(written),
        None if read is None else _STORED_BYTES / statistics.median(read),
    )


def _timed(run: Callable[[], None], clock: Clock) -> float:
    before = clock()
    run()
    return max(clock() - before, 1e-9)


def _write(handle: int, data: bytes) -> None:
    os.lseek(handle, 0, os.SEEK_SET)
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
    os.fsync(handle)


def _read(handle: int) -> None:
    # So that the disk is read, and not the copy that the system kept.
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.lseek(handle, 0, os.SEEK_SET)
    while os.read(handle, 2**20):
        pass
