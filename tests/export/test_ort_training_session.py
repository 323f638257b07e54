"""The session on the ONNX Runtime training API."""

from __future__ import annotations

from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch

from edgetune.errors import (
    CheckpointError,
    DataError,
    RuntimeSetupError,
    TrainingError,
    UsageError,
)
from edgetune.nouns.optimizer import Optimizer
from edgetune.runtime import onnxruntime_packages, ort_training_session
from tests.export.ort_examples import (
    BATCH,
    Values,
    batch_of,
    convolutional,
    mlp,
    normal,
    session_of,
    torch_parameters,
)

pytest.importorskip("onnxruntime.training.api", exc_type=ImportError)


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_resume_is_bit_for_bit(kind: str, tmp_path: Path) -> None:
    example = convolutional()
    session = session_of(example, tmp_path, optimizer=Optimizer(kind))
    start = session.state()

    def train(steps: range) -> None:
        for step in steps:
            session.accumulate(batch_of(example, seed=step))
            session.update(0.01 / (1 + step), None)

    train(range(2))
    middle = session.state()
    train(range(2, 5))
    expected, end = session.values(), session.state()
    other = ort_training_session.OrtTrainingSession(tmp_path, session.manifest, "digest")
    other.accumulate(batch_of(example, seed=99))  # must be forgotten
    session = other
    for state, steps in ((middle, range(2, 5)), (start, range(5))):
        session.load_state(state)
        train(steps)
        for key, value in session.values().items():
            np.testing.assert_array_equal(value, expected[key])
        np.testing.assert_array_equal(session.state()["ort_checkpoint"], end["ort_checkpoint"])


def test_values_round_trip_and_are_copies(tmp_path: Path) -> None:
    example = mlp()
    session, batch = session_of(example, tmp_path), batch_of(example)
    values, loss = session.values(), session.evaluate(batch).loss
    assert list(values) == list(example.parameters)
    session.accumulate(batch)
    session.update(0.1, None)
    assert not np.array_equal(values["fc1.weight"], session.values()["fc1.weight"])
    session.load_values(values)
    assert session.evaluate(batch).loss == loss


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fc1.weigth": normal(1)}, "fc1.weigth is not known; .*fc1.weight"),
        ({"fc1.weight": normal(2, 2)}, r"fc1.weight is float32\[2, 2\], expected float32\[16, 8"),
        ({"fc1.weight": np.zeros((16, 8))}, "is float64"),
    ],
)
def test_values_that_do_not_fit(change: Values, message: str, tmp_path: Path) -> None:
    session = session_of(mlp(), tmp_path)
    before = session.values()
    with pytest.raises(DataError, match=message):
        session.load_values({**before, **change})
    with pytest.raises(DataError, match=r"fc2\.bias is missing"):
        session.load_values({k: v for k, v in before.items() if k != "fc2.bias"})
    np.testing.assert_array_equal(session.values()["fc1.weight"], before["fc1.weight"])


@pytest.mark.parametrize("count", [1, BATCH, BATCH + 1, 3 * BATCH])
def test_predict_pads_to_the_micro_batch(count: int, tmp_path: Path) -> None:
    example = mlp()
    session, x = session_of(example, tmp_path), normal(count, 8, seed=5)
    expected = example.reference(torch_parameters(example), {"x": torch.from_numpy(x)})
    found = session.predict({"x": x})["y"]
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_discard_forgets(tmp_path: Path) -> None:
    example = mlp()
    session = session_of(example, tmp_path, optimizer=Optimizer("sgd"))
    session.accumulate(batch_of(example, 1))
    session.discard()
    with pytest.raises(UsageError, match="accumulate a micro-batch"):
        session.update(0.1, None)
    session.accumulate(batch_of(example, 2))
    norm = session.update(0.0, None)
    session.accumulate(batch_of(example, 2))
    assert session.update(0.0, None) == norm


def test_gradient_that_is_not_finite_changes_nothing(tmp_path: Path) -> None:
    example = mlp()
    session, batch = session_of(example, tmp_path), batch_of(example)
    session.accumulate(batch)
    session.update(0.01, None)
    values, state = session.values(), session.state()
    session.accumulate(replace(batch, inputs={"x": np.full((BATCH, 8), np.nan, np.float32)}))
    with pytest.raises(TrainingError, match="nothing was updated"):
        session.update(0.01, 1.0)
    for key, value in session.values().items():
        np.testing.assert_array_equal(value, values[key])
    np.testing.assert_array_equal(session.state()["ort_checkpoint"], state["ort_checkpoint"])


def test_batch_that_does_not_fit_is_a_data_error(tmp_path: Path) -> None:
    example = mlp()
    session, batch = session_of(example, tmp_path), batch_of(example)
    with pytest.raises(DataError, match="does not fit the bundle"):
        session.accumulate(replace(batch, inputs={"x": normal(BATCH, 9)}))
    with pytest.raises(DataError, match="does not fit the bundle"):
        session.evaluate(replace(batch, inputs={}))
    with pytest.raises(DataError, match="nothing to predict"):
        session.predict({"x": normal(0, 8)})


def test_checkpoints_that_do_not_fit(tmp_path: Path) -> None:
    example = mlp()
    session = session_of(example, tmp_path)
    state = session.state()
    damaged = {"ort_checkpoint": state["ort_checkpoint"][:-100]}
    other = ort_training_session.OrtTrainingSession(tmp_path, session.manifest, "another")
    for bad, message in (
        ({}, "holds nothing"),
        ({"exp_avg/x": normal(1)}, "expected the bytes 'ort_checkpoint'"),
        (damaged, "cannot be read"),
        (other.state(), "made from the bundle another, this is digest"),
    ):
        with pytest.raises(CheckpointError, match=message):
            session.load_state(bad)
    np.testing.assert_array_equal(session.state()["ort_checkpoint"], state["ort_checkpoint"])


def test_both_packages_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = session_of(mlp(), tmp_path)
    installed = {"onnxruntime": "1.23.0", "onnxruntime-training-cpu": "1.19.2"}

    def version(name: str) -> str:
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(onnxruntime_packages.metadata, "version", version)
    with pytest.raises(RuntimeSetupError, match="both onnxruntime and onnxruntime-training-cpu"):
        ort_training_session.OrtTrainingSession(tmp_path, session.manifest, "digest")
    del installed["onnxruntime"]
    ort_training_session.OrtTrainingSession(tmp_path, session.manifest, "digest")


def test_missing_package_is_a_setup_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = session_of(mlp(), tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime.training", None)
    with pytest.raises(RuntimeSetupError, match=r"needs onnxruntime-training-cpu 1\.19\.2"):
        ort_training_session.OrtTrainingSession(tmp_path, session.manifest, "digest")


def test_damaged_bundle_is_a_bundle_error(tmp_path: Path) -> None:
    session = session_of(mlp(), tmp_path)
    (tmp_path / "training_model.onnx").write_bytes(b"broken")
    with pytest.raises(ort_training_session.BundleError, match="cannot load the bundle"):
        ort_training_session.OrtTrainingSession(tmp_path, session.manifest, "digest")
