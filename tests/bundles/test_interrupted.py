"""A run that is stopped at any moment, also without notice, continues bit for bit."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from edgetune.files.checkpoint import read_checkpoint
from tests.bundles.support import (
    PYTHON,
    assert_one_error,
    bundle_of,
    data_of,
    edgetune,
    subprocess_environment,
    train,
)

NAME, EPOCHS = "cnn1d", 40
SETTINGS = ("--epochs", str(EPOCHS), "--schedule", "cosine", "--clip-norm", "1", "--seed", "3")
STEPS_BEFORE = 10


def start(folder: Path) -> subprocess.Popen[str]:
    """Training in a process of its own, every step with a checkpoint."""
    paths = {"out": folder / "delta", "checkpoint": folder / "checkpoint", "log": folder / "log"}
    options = [item for name, path in paths.items() for item in (f"--{name}", str(path))]
    return subprocess.Popen(
        [
            *(*PYTHON, "train", str(bundle_of(NAME)), "--data", str(data_of(NAME))),
            *(*options, *SETTINGS, "--checkpoint-every", "1"),
        ],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=subprocess_environment(),
    )


def wait_for_steps(process: subprocess.Popen[str], log: Path) -> None:
    while not log.exists() or log.read_bytes().count(b"\n") < STEPS_BEFORE:
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_continues_bit_for_bit(tmp_path: Path, number: signal.Signals) -> None:
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    process = start(stopped)
    wait_for_steps(process, stopped / "log")
    process.send_signal(number)
    out, err = process.communicate()
    assert out == ""
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130
        assert err.startswith(f"edgetune: interrupted: {number.name} after step ")
        assert f"resume from {stopped / 'checkpoint'}" in err
    assert not (stopped / "delta").exists()
    reached = read_checkpoint(stopped / "checkpoint")
    assert STEPS_BEFORE - 3 <= reached.step < EPOCHS * 3
    if number != signal.SIGKILL:
        assert {path.name for path in stopped.iterdir()} == {"checkpoint", "log"}

    assert train(NAME, stopped, *SETTINGS, "--resume").code == 0
    assert train(NAME, whole, *SETTINGS).code == 0
    for file in ("checkpoint", "delta"):
        assert (stopped / file).read_bytes() == (whole / file).read_bytes()


def test_more_epochs_continue_a_finished_run(tmp_path: Path) -> None:
    resumed, whole = tmp_path / "resumed", tmp_path / "whole"
    assert train("distilbert", resumed, "--epochs", "1").code == 0
    again = train("distilbert", resumed, "--epochs", "2", "--resume", "--json").json["result"]
    assert (again["epochs"], again["steps"]) == (2, 6)
    assert train("distilbert", whole, "--epochs", "2").code == 0
    assert (resumed / "delta").read_bytes() == (whole / "delta").read_bytes()


def test_a_run_is_never_overwritten_by_accident(tmp_path: Path) -> None:
    assert train("regression", tmp_path).code == 0
    kept = (tmp_path / "checkpoint").read_bytes()
    ran = train("regression", tmp_path, "--epochs", "5")
    assert_one_error(ran, 2, f"there is a checkpoint at {tmp_path / 'checkpoint'}", "--resume")
    assert (tmp_path / "checkpoint").read_bytes() == kept


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        pytest.param(["--lr", "0.5"], ["the learning_rate was 0.001, and is 0.5 now"], id="rate"),
        pytest.param(["--seed", "9"], ["the seed was 0, and is 9 now"], id="seed"),
        pytest.param(["--batch", "2"], ["the batch was 4, and is 2 now"], id="batch"),
    ],
)
def test_another_run_does_not_continue_this_one(
    tmp_path: Path, more: list[str], parts: list[str]
) -> None:
    assert train("regression", tmp_path).code == 0
    assert_one_error(train("regression", tmp_path, "--resume", *more), 6, *parts)


def test_a_checkpoint_of_another_bundle_is_refused_everywhere(tmp_path: Path) -> None:
    assert train("regression", tmp_path).code == 0
    checkpoint = tmp_path / "checkpoint"
    assert_one_error(train("multi_label", tmp_path, "--resume"), 6, "it was made from the bundle")
    for command in (
        ("evaluate", bundle_of("multi_label"), "--data", data_of("multi_label")),
        ("merge", bundle_of("multi_label"), "--out", tmp_path / "model.onnx"),
        ("delta", "make", bundle_of("multi_label"), "--out", tmp_path / "other"),
    ):
        ran = edgetune(*command, "--checkpoint", checkpoint)
        assert_one_error(ran, 6, "was made from another bundle than")
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint", "delta"}
