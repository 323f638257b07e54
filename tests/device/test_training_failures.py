from __future__ import annotations

import errno
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetune.data.dataset import Dataset
from edgetune.errors import (
    DataError,
    StorageError,
    TrainingError,
    UsageError,
)
from edgetune.files.checkpoint import read_checkpoint
from edgetune.runtime.batches import epoch_order
from edgetune.runtime.session import MicroBatch, MicroResult
from edgetune.runtime.trainer import Trainer
from tests.device.fake_session import FakeSession
from tests.device.training_cases import (
    TRAIN,
    VALIDATION,
    Scripted,
    config,
)

# Failures -----------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_any_update_with_it(
    tmp_path: Path, bad: float
) -> None:
    class Diverges(FakeSession):
        def accumulate(self, batch: MicroBatch) -> MicroResult:
            result = super().accumulate(batch)
            return MicroResult(bad, 0) if self.updates == 4 else result

    path, session = tmp_path / "run", Diverges()
    with pytest.raises(TrainingError) as caught:
        Trainer(session, config(checkpoint_path=path)).fit(TRAIN)
    assert f"the loss is {bad} in epoch 2 of 3, step 5: nothing was updated" in str(caught.value)
    assert "lower the learning rate" in str(caught.value)
    assert f"the last good checkpoint stays at {path}" in str(caught.value)
    assert (session.updates, session.discarded) == (4, 1)
    saved = read_checkpoint(path)
    assert saved.step == 3
    assert all(np.isfinite(array).all() for array in saved.state.values())


def test_gradients_that_are_not_finite_name_the_step(tmp_path: Path) -> None:
    class Explodes(FakeSession):
        def accumulate(self, batch: MicroBatch) -> MicroResult:
            result = super().accumulate(batch)
            if self.updates == 1:
                self._gradients["bias"] += np.inf
            return result

    session = Explodes()
    with pytest.raises(TrainingError, match="norm is not finite in epoch 1 of 3, step 2: nothing"):
        Trainer(session, config()).fit(TRAIN)
    assert (session.updates, session.discarded) == (1, 1)


def test_a_validation_loss_that_is_not_finite_stops() -> None:
    with pytest.raises(TrainingError, match="the validation loss is nan in epoch 2 of 5"):
        Trainer(Scripted([1.0, math.nan]), config(epochs=5)).fit(TRAIN, VALIDATION)


def test_a_full_disk_stops_with_the_last_checkpoint_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, calls = tmp_path / "run", []
    really_sync = os.fsync

    def fills_up(handle: int) -> None:
        calls.append(handle)
        if len(calls) > 4:  # two for each checkpoint: the file's and the folder's
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        really_sync(handle)

    monkeypatch.setattr(os, "fsync", fills_up)
    with pytest.raises(StorageError, match="No space left on device"):
        Trainer(FakeSession(), config(checkpoint_path=path, checkpoint_every_steps=1)).fit(TRAIN)
    assert read_checkpoint(path).step == 2
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("train", "validation", "message"),
    [
        pytest.param(
            Dataset(TRAIN.inputs, {"y": TRAIN.targets["y"] + 1}),
            VALIDATION,
            "cannot use the training data: 'y' holds the label 3",
            id="training",
        ),
        pytest.param(
            TRAIN,
            Dataset(VALIDATION.inputs, TRAIN.targets),
            "cannot use the validation data: the numbers of samples differ",
            id="validation",
        ),
    ],
)
def test_data_is_checked_before_the_first_step(
    train: Dataset, validation: Dataset, message: str
) -> None:
    session = FakeSession()
    with pytest.raises(DataError, match=message):
        Trainer(session, config()).fit(train, validation)
    assert session.updates == 0


def test_a_batch_with_nothing_to_learn_is_named() -> None:
    targets = np.full(21, -100)
    targets[:20] = TRAIN.targets["y"][:20]
    last = epoch_order(21, 0, 0)[0][20]
    targets[[last, 20]] = targets[[20, last]]
    with pytest.raises(DataError, match="batch 3 of epoch 1 of 3 has nothing to learn from"):
        Trainer(FakeSession(), config(batch=10)).fit(Dataset(TRAIN.inputs, {"y": targets}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"epochs": 0}, "epochs is 0, expected an integer of at least 1", id="epochs"),
        pytest.param({"batch": 0}, "batch is 0, expected an integer of at least 1", id="batch"),
        pytest.param({"batch": -8}, "batch is -8", id="batch-negative"),
        pytest.param({"batch": 2.0}, r"batch is 2\.0", id="batch-float"),
        pytest.param({"batch": True}, "batch is True", id="batch-bool"),
        pytest.param({"seed": -1}, "seed is -1, expected an integer of at least 0", id="seed"),
        pytest.param({"learning_rate": 0.0}, r"learning_rate is 0\.0, expected a finite", id="lr"),
        pytest.param({"learning_rate": math.nan}, "learning_rate is nan", id="lr-nan"),
        pytest.param({"schedule": "step"}, "'step', expected one of constant, cosine", id="sched"),
        pytest.param({"warmup_steps": -1}, "warmup_steps is -1", id="warm-up"),
        pytest.param({"clip_norm": 0}, "clip_norm is 0, expected a finite number", id="clip"),
        pytest.param({"patience": 0}, "patience is 0", id="patience"),
        pytest.param({"monitor": "f1"}, "'f1', expected one of loss, accuracy", id="monitor"),
        pytest.param(
            {"checkpoint_every_steps": 5},
            "checkpoint_every_steps needs a checkpoint_path",
            id="checkpoints-without-a-path",
        ),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=f"cannot train with this configuration: .*{message}"):
        config(**changes)


def test_all_that_is_wrong_with_a_configuration_is_told_at_once() -> None:
    with pytest.raises(UsageError, match=r"(?s)3 problems.*epochs.*batch.*schedule"):
        config(epochs=0, batch=0, schedule="x")


def test_patience_needs_validation_data() -> None:
    with pytest.raises(UsageError, match="patience needs validation data"):
        Trainer(FakeSession(), config(patience=1)).fit(TRAIN)
