"""What writing and reading a checkpoint takes in memory, and leaves on a disk that fails."""

from __future__ import annotations

import dataclasses
import errno
import os
import resource
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetune.errors import StorageError
from edgetune.files.checkpoint import read_checkpoint, write_checkpoint
from tests.device.test_checkpoint import make, same

ROOT = Path(__file__).parents[2]
LAYOUTS = {"contiguous": lambda array: array, "strided": np.transpose}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_neither_writing_nor_reading_holds_a_second_copy(tmp_path: Path, layout: Any) -> None:
    mib = 2**20
    big = {f"w{i}": layout(np.full((1024, 4096), i, np.float32)) for i in range(3)}
    checkpoint = dataclasses.replace(make(), state=big, best_values={"w0": big["w0"]})
    assert peak_bytes(lambda: write_checkpoint(tmp_path / "run", checkpoint)) < 4 * mib
    assert 64 * mib < peak_bytes(lambda: read_checkpoint(tmp_path / "run")) < (64 + 4) * mib


def peak_bytes(work: Callable[[], object]) -> int:
    """What `work` allocates at its peak, its result included."""
    tracemalloc.start()
    try:
        result = work()
        del result
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_disk_that_fails_at_the_last_moment_leaves_the_last_checkpoint_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "run"
    write_checkpoint(path, make(step=3))
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", refuse)
        with pytest.raises(StorageError, match="No space left on device; what was there before"):
            write_checkpoint(path, make(step=4))
    assert same(read_checkpoint(path), make(step=3))
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("file_bytes", [100, 2_000, 1_000_000, 3_000_000])
def test_a_full_disk_leaves_the_last_checkpoint_intact(tmp_path: Path, file_bytes: int) -> None:
    path, big = tmp_path / "run", {"w": np.ones(400_000), "v": np.zeros(400_000, np.float32)}
    write_checkpoint(path, make(step=3))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, limits[1]))
    try:
        with pytest.raises(StorageError, match="File too large; what was there before"):
            write_checkpoint(path, dataclasses.replace(make(step=4), state=big))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert same(read_checkpoint(path), make(step=3))
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_a_type_that_cannot_be_written_leaves_the_last_checkpoint_intact(tmp_path: Path) -> None:
    path = tmp_path / "run"
    write_checkpoint(path, make(step=3))
    with pytest.raises(TypeError, match=r"no name for the type of state/w \(complex128\)"):
        write_checkpoint(path, dataclasses.replace(make(step=4), state={"w": np.zeros(1, complex)}))
    assert same(read_checkpoint(path), make(step=3))
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


_WRITER = """
import dataclasses, sys
from pathlib import Path
import numpy as np
from edgetune.files.checkpoint import write_checkpoint
from tests.device.test_checkpoint import make
path, step = Path(sys.argv[1]), 0
while True:
    step += 1
    big = {"w": np.full(300_000, step, np.float32)}
    write_checkpoint(path, dataclasses.replace(make(step), state=big))
"""


def test_a_writer_killed_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "run"
    for delay in (0.0, 0.003, 0.011):
        path.unlink(missing_ok=True)
        writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], cwd=ROOT)
        try:
            deadline = time.monotonic() + 60
            while not path.exists() and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(delay)
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        found = read_checkpoint(path)
        assert set(found.state["w"]) == {np.float32(found.step)}
