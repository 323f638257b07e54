from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgetune.runtime import process_memory
from edgetune.runtime.process_memory import current_bytes, peak_bytes

STATUS = "Name:\tpython\nVmPeak:\t  900 kB\nVmHWM:\t   300 kB\nVmRSS:\t   200 kB\nThreads:\t1\n"

on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")


@on_linux
def test_the_peak_grows_with_what_is_held_and_stays() -> None:
    slack = 2**20  # the kernel counts per thread, and adds up now and then
    before = peak_bytes()
    held = bytearray(64 * 2**20)
    held[::4096] = b"x" * len(held[::4096])  # touch every page
    during = peak_bytes()
    assert before is not None
    assert during is not None
    current = current_bytes()
    assert current is not None
    assert during + slack >= current >= 64 * 2**20
    del held
    after = peak_bytes()
    assert after is not None
    assert before <= during + slack
    assert during <= after + slack


def test_the_kernels_numbers_are_kibibytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "status").write_text(STATUS)
    monkeypatch.setattr(process_memory, "_STATUS", tmp_path / "status")
    assert peak_bytes() == 300 * 1024
    assert current_bytes() == 200 * 1024


@pytest.mark.parametrize(("platform", "expected"), [("darwin", 5000), ("freebsd14", 5000 * 1024)])
@pytest.mark.parametrize("status", [None, "Name:\tpython\n"], ids=["no-proc", "no-fields"])
def test_without_proc_the_peak_is_what_getrusage_says(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    platform: str,
    expected: int,
    status: str | None,
) -> None:
    if status is not None:
        (tmp_path / "status").write_text(status)
    monkeypatch.setattr(process_memory, "_STATUS", tmp_path / "status")
    monkeypatch.setattr(sys, "platform", platform)
    usage = SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda _: SimpleNamespace(ru_maxrss=5000))
    monkeypatch.setitem(sys.modules, "resource", usage)
    assert peak_bytes() == expected
    assert current_bytes() is None


def test_where_nothing_tells_it_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_memory, "_STATUS", tmp_path / "absent")
    monkeypatch.setitem(sys.modules, "resource", None)
    assert peak_bytes() is None
    assert current_bytes() is None
