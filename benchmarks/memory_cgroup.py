"""Memory cgroups in which the benchmarks run a device's processes: v1 or v2, and root is needed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Group:
    """A memory cgroup of a script. limit_bytes: None is unlimited."""

    def __init__(self, name: str, limit_bytes: int | None) -> None:
        v1, v2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
        self.folder = (v1 if v1.is_dir() else v2) / name
        self._limit, self._peak = (
            ("memory.limit_in_bytes", "memory.max_usage_in_bytes")
            if v1.is_dir()
            else ("memory.max", "memory.peak")
        )
        self.folder.mkdir()
        if limit_bytes is not None:
            (self.folder / self._limit).write_text(str(limit_bytes))

    @property
    def peak_bytes(self) -> int:
        """The most that was charged to it, page cache included."""
        return int((self.folder / self._peak).read_text())

    def start(self, command: Sequence[str]) -> subprocess.Popen[str]:
        """`command` as a process of the group."""
        inside = ["sh", "-c", f'echo $$ > {self.folder}/cgroup.procs && exec "$@"', "sh"]
        return start([*inside, *command])


def start(command: Sequence[str]) -> subprocess.Popen[str]:
    """`command` as a process of no group of its own, with this checkout's edgetune."""
    return subprocess.Popen(
        list(command),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def forget(folder: Path) -> None:
    """Have the kernel drop the cached pages of every file in `folder` that no process has mapped.

    What is cached already is charged to nobody who reads it again: a group would hold less than
    the same process on a device that has just started.
    """
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)  # pages that are not written yet are kept
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(handle)


@contextmanager
def group(name: str, limit_bytes: int | None = None) -> Iterator[Group]:
    """A cgroup that is gone afterwards."""
    made = Group(f"edgetune-{name}-{os.getpid()}", limit_bytes)
    try:
        yield made
    finally:
        made.folder.rmdir()
