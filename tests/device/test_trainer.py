from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetune.data.dataset import Dataset
from edgetune.errors import (
    DataError,
    UsageError,
)
from edgetune.runtime.batches import epoch_order
from edgetune.runtime.session import MicroBatch
from edgetune.runtime.trainer import Evaluation, Trainer, evaluate
from tests.device.fake_session import FakeSession, make_manifest
from tests.device.training_cases import (
    STEPS_PER_EPOCH,
    TRAIN,
    VALIDATION,
    Scripted,
    bits,
    config,
)

# Training -----------------------------------------------------------------------------------


def test_training_learns_and_reports() -> None:
    session = FakeSession()
    before = evaluate(session, VALIDATION)
    result = Trainer(session, config(epochs=20)).fit(TRAIN, VALIDATION)
    after = evaluate(session, VALIDATION)
    assert after.loss < before.loss / 2
    assert after.accuracy is not None
    assert after.accuracy > 0.8
    assert (result.epochs, result.steps) == (20, 20 * STEPS_PER_EPOCH)
    assert result.validation_loss == after.loss
    assert result.train_loss == result.history[-1].train_loss < result.history[0].train_loss
    assert [record.epoch for record in result.history] == list(range(20))
    assert result.best_epoch == int(np.argmin([r.validation_loss for r in result.history]))
    assert not result.stopped_early
    assert result.peak_bytes is None or result.peak_bytes > 2**20
    assert result.median_step_seconds is not None
    assert result.median_step_seconds > 0


def test_the_trajectory_is_that_of_the_loop_one_would_write_by_hand() -> None:
    session = FakeSession()
    Trainer(session, config(epochs=2, batch=7, seed=3, clip_norm=0.5)).fit(TRAIN)
    by_hand = FakeSession(make_manifest(micro_batch=7))
    for epoch in range(2):
        order, _ = epoch_order(len(TRAIN), 3, epoch)
        for start in range(0, 21, 7):
            rows = order[start : start + 7]
            scale = np.full(7, 1 / 7, np.float32)
            inputs, targets = {"x": TRAIN.inputs["x"][rows]}, {"y": TRAIN.targets["y"][rows]}
            by_hand.accumulate(MicroBatch(inputs, targets, scale))
            by_hand.update(0.05, 0.5)
    for name, value in session.values().items():
        np.testing.assert_allclose(value, by_hand.values()[name], rtol=1e-6)


@pytest.mark.parametrize("batch", [1, 3, 4, 5, 8, 20, 21, 100])
@pytest.mark.parametrize("micro_batch", [1, 4, 21])
def test_accumulation_does_not_change_the_trajectory(batch: int, micro_batch: int) -> None:
    values = []
    for size in (micro_batch, batch):
        session = FakeSession(make_manifest(micro_batch=size))
        result = Trainer(session, config(batch=batch, epochs=2)).fit(TRAIN)
        assert result.steps == 2 * math.ceil(21 / batch)
        values.append(session.values())
    for name in values[0]:
        np.testing.assert_allclose(values[0][name], values[1][name], rtol=1e-5, atol=1e-9)


def test_the_plans_batch_is_the_default() -> None:
    session = FakeSession(make_manifest(batch=10))
    assert Trainer(session, config(epochs=1)).fit(TRAIN).steps == 3


def test_the_training_loss_of_an_epoch_is_the_mean_over_its_samples() -> None:
    """With a rate so small that nothing moves, it equals an evaluation."""
    session = FakeSession()
    result = Trainer(session, config(epochs=1, learning_rate=1e-12)).fit(TRAIN)
    expected = evaluate(session, TRAIN)
    assert result.train_loss == pytest.approx(expected.loss, rel=1e-6)
    assert result.history[0].train_accuracy == expected.accuracy


def test_a_loss_without_accuracy_has_none() -> None:
    manifest = make_manifest()
    loss = dataclasses.replace(manifest.loss, kind="custom", classes=None, ignore_index=None)
    session = FakeSession(dataclasses.replace(manifest, loss=loss))
    assert evaluate(session, VALIDATION).accuracy is None
    with pytest.raises(UsageError, match="cannot monitor the accuracy: the loss custom has none"):
        Trainer(session, config(monitor="accuracy"))


def test_evaluation_changes_nothing_and_checks_its_data() -> None:
    session = FakeSession()
    before = bits(session)
    assert isinstance(evaluate(session, VALIDATION), Evaluation)
    assert bits(session) == before
    with pytest.raises(DataError, match="the target 'y' is missing"):
        evaluate(session, Dataset(VALIDATION.inputs, {}))


# Early stopping -----------------------------------------------------------------------------


LOSSES = [3.0, 2.0, 2.5, 2.0, 9.0]


@pytest.mark.parametrize(
    ("patience", "epochs", "stopped"),
    [
        pytest.param(None, 5, False, id="no-patience-runs-to-the-end"),
        pytest.param(1, 3, True, id="one"),
        pytest.param(2, 4, True, id="equal-is-not-better"),
        pytest.param(3, 5, False, id="runs-out-with-the-last-epoch"),
        pytest.param(4, 5, False, id="not-reached"),
    ],
)
def test_training_stops_when_patience_is_out(
    patience: int | None, epochs: int, stopped: bool
) -> None:
    session = Scripted(LOSSES)
    result = Trainer(session, config(epochs=5, patience=patience)).fit(TRAIN, VALIDATION)
    assert (result.epochs, result.stopped_early, result.best_epoch) == (epochs, stopped, 1)


@pytest.mark.parametrize(
    ("changes", "ends_with"),
    [
        pytest.param({"patience": 2}, 1, id="best"),
        pytest.param({"patience": 4}, 1, id="best-also-when-not-stopped"),
        pytest.param({"patience": 2, "restore_best": False}, 3, id="last-when-asked"),
        pytest.param({}, 4, id="last-without-patience"),
    ],
)
def test_the_best_values_are_restored(changes: dict[str, Any], ends_with: int) -> None:
    session = Scripted(LOSSES)
    Trainer(session, config(epochs=5, **changes)).fit(TRAIN, VALIDATION)
    for name, value in session.values().items():
        np.testing.assert_array_equal(value, session.at_evaluation[ends_with][name])


def test_accuracy_is_better_when_it_is_higher() -> None:
    session = FakeSession()
    changes = {"monitor": "accuracy", "patience": 50}
    result = Trainer(session, config(epochs=6, **changes)).fit(TRAIN, VALIDATION)
    assert result.best_epoch == int(np.argmax([r.validation_accuracy for r in result.history]))


# The log ------------------------------------------------------------------------------------


def test_the_log_has_one_json_object_per_step_and_epoch(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "run.jsonl"
    settings = config(epochs=2, log_path=path, schedule="cosine")
    result = Trainer(FakeSession(), settings).fit(TRAIN, VALIDATION)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["event"] for line in lines] == [*["step"] * 3, "epoch", "validation"] * 2
    assert [line["step"] for line in lines] == [1, 2, 3, 3, 3, 4, 5, 6, 6, 6]
    assert [line["epoch"] for line in lines] == [0] * 5 + [1] * 5
    steps = [line for line in lines if line["event"] == "step"]
    assert set(steps[0]) == {
        *("event", "epoch", "step", "loss", "accuracy", "learning_rate"),
        *("grad_norm", "step_seconds", "peak_bytes"),
    }
    assert steps[0]["learning_rate"] == 0.05
    assert all(line["grad_norm"] > 0 and line["step_seconds"] > 0 for line in steps)
    assert lines[-2]["loss"] == result.train_loss
    assert lines[-1]["loss"] == result.validation_loss
    assert lines[-1]["learning_rate"] is None
    Trainer(FakeSession(), settings).fit(TRAIN)
    assert len(path.read_text().splitlines()) == 10 + 8
