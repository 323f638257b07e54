"""Everything wrong that can be given to a device: one error, its exit code, nothing written."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetune.files.checkpoint import read_checkpoint
from tests.bundles.support import (
    assert_one_error,
    bundle_of,
    change_data,
    data_of,
    edgetune,
    listing,
    train,
)


def put(value: float, *where: int) -> Callable[[np.ndarray], np.ndarray]:
    """A change that puts `value` at one place."""

    def change(array: np.ndarray) -> np.ndarray:
        array[where] = value
        return array

    return change


# Data ---------------------------------------------------------------------------------------

DATA: list[Any] = [
    pytest.param(
        "cnn1d",
        {"windows": lambda a: a[:, :, :50]},
        ["'windows' has samples of shape (6, 50), expected (6, 100)"],
        id="shape",
    ),
    pytest.param(
        "cnn1d",
        {"windows": lambda a: a.astype(np.complex64)},
        ["'windows' is complex64, expected float32"],
        id="type",
    ),
    pytest.param(
        "distilbert",
        {"input_ids": lambda a: a.astype(np.float32)},
        ["'input_ids' is float32, expected int64"],
        id="floats-for-tokens",
    ),
    pytest.param(
        "cnn1d",
        {"windows": lambda a: a.astype(object)},
        ["expected what numpy.savez writes, without arrays of objects"],
        id="objects",
    ),
    pytest.param(
        "cnn1d",
        {"targets": put(5, 7)},
        ["'targets' holds the label 5, first in sample 7: expected 0 to 4"],
        id="label-too-large",
    ),
    pytest.param("cnn1d", {"targets": put(-1, 0)}, ["holds the label -1"], id="label-negative"),
    pytest.param(
        "cnn1d",
        {"windows": put(np.nan, 4, 2, 2)},
        ["'windows' holds NaN, first in sample 4"],
        id="nan",
    ),
    pytest.param(
        "regression",
        {"targets": put(np.inf, 3, 1)},
        ["'targets' holds Inf, first in sample 3"],
        id="inf-in-targets",
    ),
    pytest.param(
        "multi_label",
        {"sample_weight": put(-1, 2)},
        ["'sample_weight' is -1.0 in sample 2"],
        id="weight-negative",
    ),
    pytest.param(
        "cnn1d",
        {"windows": lambda a: a[:0], "targets": lambda a: a[:0], "sample_weight": None},
        ["there are no samples"],
        id="empty",
    ),
    pytest.param(
        "cnn1d",
        {"windows": lambda a: a[:5]},
        ["the numbers of samples differ: 'windows' has 5, 'targets' has 11"],
        id="lengths",
    ),
    pytest.param(
        "distilbert",
        {"attention_mask": None, "atention_mask": lambda _: np.ones((11, 16), np.int64)},
        ["'attention_mask' is missing", "atention_mask"],
        id="names",
    ),
]


@pytest.mark.parametrize(("name", "changes", "parts"), DATA)
@pytest.mark.parametrize("command", ["train", "validation", "evaluate"])
def test_wrong_data_is_refused_before_anything_happens(
    tmp_path: Path, command: str, name: str, changes: dict[str, Any], parts: list[str]
) -> None:
    data = change_data(name, tmp_path / "wrong.npz", **changes)
    before = listing(tmp_path)
    if command == "evaluate":
        ran = edgetune("evaluate", bundle_of(name), "--data", data)
    elif command == "train":
        ran = train(name, tmp_path, "--data", data)
    else:
        ran = train(name, tmp_path, "--validation", data)
    assert_one_error(ran, 3, str(data), *parts)
    assert listing(tmp_path) == before


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        pytest.param(None, ["there is no such file or folder"], id="missing"),
        pytest.param(b"", ["cannot read the data"], id="empty-file"),
        pytest.param(b"PK\3\4 and no more", ["cannot read the data"], id="truncated"),
    ],
)
def test_a_data_file_that_cannot_be_read_is_named(
    tmp_path: Path, content: bytes | None, parts: list[str]
) -> None:
    path = tmp_path / "data.npz"
    if content is not None:
        path.write_bytes(content)
    assert_one_error(train("cnn1d", tmp_path, "--data", path), 3, str(path), *parts)


def test_an_error_in_the_users_code_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def make():\n    return sensor.read()\n")
    ran = train("cnn1d", tmp_path, "--data", f"{tmp_path / 'mine.py'}:make")
    assert_one_error(
        ran, 3, "make() raised NameError: name 'sensor' is not defined", "(mine.py, line 2)"
    )


# Numbers that are not finite ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        pytest.param("regression", "1e30", id="sgd"),
        pytest.param("multi_label", "1e38", id="adamw"),
        pytest.param("distilbert", "1e38", id="momentum"),
    ],
)
def test_a_huge_learning_rate_stops_with_the_last_good_checkpoint(
    tmp_path: Path, name: str, rate: str
) -> None:
    """The values are lost sooner or later; they never replace what was good."""
    ran = train(name, tmp_path, "--lr", rate, "--checkpoint-every", "1", "--epochs", "9")
    assert_one_error(ran, 9, "lower the learning rate")
    assert not (tmp_path / "delta").exists()
    if (tmp_path / "checkpoint").exists():
        assert "the last good checkpoint stays at" in ran.err
        state = read_checkpoint(tmp_path / "checkpoint").state
        assert all(np.isfinite(value).all() for key, value in state.items() if ":" not in key)
    else:
        assert "checkpoint" not in ran.err


def test_one_step_per_epoch_does_not_save_what_is_lost(tmp_path: Path) -> None:
    ran = train("regression", tmp_path, "--lr", "1e40", "--batch", "99", "--epochs", "2")
    assert_one_error(ran, 9, "lower the learning rate")
    assert list(tmp_path.iterdir()) == []


# Storage ----------------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, really_sync = [], os.fsync

    def fills_up(handle: int) -> None:
        calls.append(handle)
        if len(calls) > 6:  # two for each checkpoint: the file's and the folder's
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        really_sync(handle)

    monkeypatch.setattr(os, "fsync", fills_up)
    ran = train("cnn1d", tmp_path, "--epochs", "9", "--checkpoint-every", "1")
    assert_one_error(ran, 10, "No space left on device", "what was there before is unchanged")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
    assert read_checkpoint(tmp_path / "checkpoint").step == 3
    monkeypatch.undo()
    assert train("cnn1d", tmp_path, "--epochs", "9", "--resume").code == 0


@pytest.mark.parametrize("option", ["--out", "--checkpoint", "--log"])
@pytest.mark.parametrize("kind", ["below-a-file", "is-a-folder"])
def test_what_cannot_be_written_is_said_before_training(
    tmp_path: Path, option: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" if kind == "is-a-folder" else tmp_path / "file" / "deeper" / "x"
    before = listing(tmp_path)
    ran = train("regression", tmp_path, option, path)
    refused_as_checkpoint = option == "--checkpoint" and kind == "is-a-folder"
    assert_one_error(ran, 2 if refused_as_checkpoint else 10, str(path))
    assert listing(tmp_path) == before


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["merge", bundle_of("regression")], id="merge"),
        pytest.param(["delta", "apply", "delta", "--to", bundle_of("regression")], id="tuned"),
        pytest.param(
            ["delta", "make", bundle_of("regression"), "--checkpoint", "checkpoint"], id="delta"
        ),
    ],
)
@pytest.mark.parametrize("full", [True, False], ids=["full-disk", "below-a-file"])
def test_results_that_cannot_be_written_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[Any], full: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train("regression", tmp_path).code == 0
    (tmp_path / "file").write_text("mine")
    before = listing(tmp_path)
    if full:

        def refuse(handle: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", refuse)
    ran = edgetune(*command, "--out", tmp_path / ("out" if full else "file/out"))
    assert_one_error(ran, 10, "cannot write")
    assert listing(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint", "delta", "file"}


# The command line and the installation ----------------------------------------------------------

BUNDLE, GOOD = str(bundle_of("regression")), str(data_of("regression"))


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        pytest.param([], 2, ["required: COMMAND", "edgetune --help"], id="nothing"),
        pytest.param(["dance"], 2, ["invalid choice: 'dance'"], id="command"),
        pytest.param(["train", BUNDLE], 2, ["--data", "edgetune train --help"], id="no-data"),
        pytest.param(
            ["train", BUNDLE, "--data", GOOD, "--epochs", "many"],
            2,
            ["argument --epochs: invalid int value: 'many'"],
            id="not-a-number",
        ),
        pytest.param(
            ["train", BUNDLE, "--data", GOOD, "--epochs", "0", "--batch", "0"],
            2,
            ["2 problems", "epochs is 0", "batch is 0"],
            id="settings",
        ),
        pytest.param(
            ["train", BUNDLE, "--data", GOOD, "--patience", "2"],
            2,
            ["patience needs validation data"],
            id="patience",
        ),
        pytest.param(
            ["train", BUNDLE, "--data", GOOD, "--monitor", "accuracy"],
            2,
            ["cannot monitor the accuracy: the loss mean_squared_error has none"],
            id="monitor",
        ),
        pytest.param(
            ["train", BUNDLE, "--data", GOOD, "--resume"],
            6,
            ["there is no checkpoint at", "start without resuming"],
            id="nothing-to-resume",
        ),
        pytest.param(
            ["evaluate", BUNDLE, "--data", GOOD, "--delta", "d", "--checkpoint", "c"],
            2,
            ["not allowed with argument"],
            id="two-sources",
        ),
        pytest.param(
            ["evaluate", BUNDLE, "--data", GOOD, "--delta", "absent"],
            6,
            ["cannot read the delta absent: No such file or directory"],
            id="no-delta",
        ),
        pytest.param(["delta", "show", GOOD], 6, ["is damaged, or no delta"], id="no-delta-file"),
        pytest.param(
            ["devices", "raspbery-pi-5"],
            4,
            ["raspbery-pi-5", "raspberry-pi-5-8gb"],
            id="device",
        ),
    ],
)
def test_what_cannot_be_understood_is_one_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    parts: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if arguments[:1] == ["train"]:
        arguments = [*arguments, "--checkpoint", "c", "--out", "d"]
    assert_one_error(edgetune(*arguments), code, *parts)
    assert list(tmp_path.iterdir()) == []


def test_two_onnxruntime_packages_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda package: "1.19.2")
    ran = edgetune("verify", bundle_of("regression"))
    assert_one_error(
        ran,
        8,
        "both onnxruntime and onnxruntime-training-cpu are installed and break each other",
        "pip uninstall -y",
    )


def test_no_onnxruntime_is_an_error_only_where_it_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert edgetune("devices").code == 0
    ran = edgetune("verify", bundle_of("regression"))
    assert_one_error(ran, 8, "onnxruntime cannot be imported", "pip install 'edgetune[device]'")
