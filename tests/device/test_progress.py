from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest

from edgetune.errors import StorageError
from edgetune.runtime import process_memory
from edgetune.runtime.progress import JsonLines, LogRecord, ProgressBar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_shows_where_the_run_is_in_one_line() -> None:
    stream = Terminal()
    bar = ProgressBar(stream=stream)
    bar.show(epoch=1, epochs=5, batch=3, batches=6, loss=0.12345, step_seconds=0.0251)
    line = stream.getvalue()
    assert line.startswith("\repoch 2/5 [##########..........]  3/6  loss 0.1235")
    assert "step 25.1 ms" in line
    assert "\n" not in line
    bar.close()
    assert stream.getvalue().endswith("\r")


def test_a_bar_is_not_drawn_more_often_than_eyes_can_follow() -> None:
    stream = Terminal()
    bar = ProgressBar(stream=stream)
    for batch in range(1, 101):
        bar.show(0, 1, batch, 100, 1.0, 1e-4)
    assert stream.getvalue().count("epoch") < 50
    assert "100/100" in stream.getvalue()


def test_a_line_is_never_wider_than_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    stream = Terminal()
    ProgressBar(stream=stream).show(0, 1, 1, 1, 1.0, 1e-4)
    assert len(stream.getvalue()) == 1 + 29


@pytest.mark.parametrize(
    ("stream", "quiet"),
    [pytest.param(io.StringIO(), False, id="no-terminal"), pytest.param(Terminal(), True, id="q")],
)
def test_the_bar_is_silent(stream: io.StringIO, quiet: bool) -> None:
    bar = ProgressBar(quiet=quiet, stream=stream)
    bar.show(0, 1, 1, 1, 1.0, 1e-4)
    bar.close()
    assert stream.getvalue() == ""


def test_the_log_is_readable_after_every_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with JsonLines(path) as log:
        log.write(LogRecord("step", 0, 1, 0.5))
        assert json.loads(path.read_text())["loss"] == 0.5


def test_the_log_is_valid_json_also_where_a_number_is_not_finite(tmp_path: Path) -> None:
    with JsonLines(tmp_path / "log") as log:
        log.write(LogRecord("step", 0, 1, math.nan, grad_norm=math.inf))
    line = json.loads((tmp_path / "log").read_text(), parse_constant=pytest.fail)
    assert line["loss"] is None
    assert line["grad_norm"] is None


def test_a_line_that_was_cut_off_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text('{"event": "step"}\n{"event": "st')
    for step in (1, 2):
        with JsonLines(path) as log:
            log.write(LogRecord("step", 0, step, 0.5))
    lines = path.read_text().splitlines()
    assert len(lines) == 4
    assert [json.loads(line)["step"] for line in lines[2:]] == [1, 2]


def test_a_log_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot write the log"):
        JsonLines(tmp_path)
    if Path("/dev/full").exists():
        with pytest.raises(StorageError, match="No space left"), JsonLines(Path("/dev/full")) as g:
            g.write(LogRecord("step", 0, 1, 0.5))


def test_resident_memory_is_read_from_the_kernel() -> None:
    peak, current = process_memory.peak_bytes(), process_memory.current_bytes()
    if current is None or peak is None:
        pytest.skip("this system does not tell")
    assert 2**20 < current < peak * 1.1  # the kernel counts in batches of pages
    assert peak < 2**40


def test_without_proc_the_peak_comes_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = process_memory.peak_bytes()
    monkeypatch.setattr(process_memory, "_STATUS", tmp_path / "none")
    found = process_memory.peak_bytes()
    assert expected is not None
    assert found == pytest.approx(expected, rel=0.5)
    assert process_memory.current_bytes() is None
