"""What a run has reached: its position, sums and best epoch, to and from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgetune.data.dataset import Dataset
from edgetune.errors import CheckpointError, raise_all
from edgetune.files.checkpoint import (
    Checkpoint,
    EpochRecord,
    Tally,
    read_checkpoint,
    write_checkpoint,
)
from edgetune.nouns.plain import to_plain
from edgetune.runtime.batches import BatchPlan, batch_count, epoch_order
from edgetune.runtime.evaluation import Evaluation
from edgetune.runtime.session import Array, TrainingSession
from edgetune.runtime.trainer_config import TrainerConfig


class TrainingRun:
    """A run between two steps. batch: samples per update. The rest is as in `Checkpoint`."""

    def __init__(
        self,
        session: TrainingSession,
        config: TrainerConfig,
        train: Dataset,
        validation: Dataset | None,
    ) -> None:
        self._session = session
        self._config = config
        self._samples = len(train)
        self.batch = session.manifest.plan.batch if config.batch is None else config.batch
        self.step = 0
        self.epoch = 0
        self.batch_in_epoch = 0
        self.history: list[EpochRecord] = []
        self.best_epoch: int | None = None
        self._rate = 0.0
        self._tally = Tally()
        self._best_metric: float | None = None
        self._best_values: dict[str, Array] = {}
        self._stale_epochs = 0
        self.holds_best = False
        self._keeps_best = config.restore_best and (config.patience is not None or config.keep_best)
        self._fixed: dict[str, Any] = config.trajectory(self.batch)
        if config.checkpoint_path is not None:
            self._fixed["training data"] = train.fingerprint()
            if validation is not None and config.patience is not None:
                self._fixed["validation data"] = validation.fingerprint()

    @property
    def out_of_patience(self) -> bool:
        patience = self._config.patience
        return patience is not None and self._stale_epochs >= patience

    def add_step(self, plan: BatchPlan, loss: float, correct: int, rate: float) -> None:
        """Count one update with the mean `loss` over the batch `plan`."""
        self.step += 1
        self.batch_in_epoch += 1
        self._rate = rate
        tally = self._tally
        self._tally = Tally(
            tally.loss + loss * plan.normalizer,
            tally.weight + plan.normalizer,
            tally.correct + correct,
            tally.counted + plan.counted,
        )

    def end_epoch(self, measured: Evaluation | None) -> EpochRecord:
        """Close the epoch with its validation result, if any, and move to the next."""
        tally = self._tally
        record = EpochRecord(
            epoch=self.epoch,
            train_loss=tally.loss / tally.weight,
            train_accuracy=tally.correct / tally.counted if tally.counted else None,
            validation_loss=None if measured is None else measured.loss,
            validation_accuracy=None if measured is None else measured.accuracy,
            learning_rate=self._rate,
        )
        self.history.append(record)
        if measured is not None:
            self._keep_best(measured)
        self.epoch += 1
        self.batch_in_epoch = 0
        self._tally = Tally()
        return record

    def restore_best(self, stopped: bool = False) -> None:
        """Put the best epoch's values into the session, where they are kept.

        stopped: whether a budget ended the run; without patience that is what they are kept for.
        """
        if self._best_values and (stopped or self._config.patience is not None):
            self._session.load_values(self._best_values)
            self.holds_best = True

    def save(self) -> Path | None:
        """Write the checkpoint, and return where; None when none is configured."""
        path = self._config.checkpoint_path
        if path is not None:
            write_checkpoint(path, self._checkpoint())
        return path

    def resume(self) -> None:
        """Continue from the configured checkpoint; raises CheckpointError when it does not fit."""
        path = self._config.checkpoint_path
        if path is None:
            raise CheckpointError("cannot resume: no checkpoint is configured")
        saved = read_checkpoint(path)
        raise_all(CheckpointError, f"cannot resume from {path}", self._differences(saved))
        self._session.load_state(saved.state, copy=False)
        self.step, self.epoch, self.batch_in_epoch = saved.step, saved.epoch, saved.batch_in_epoch
        self.history = list(saved.history)
        self.best_epoch, self._best_metric = saved.best_epoch, saved.best_metric
        self._best_values = dict(saved.best_values) if self._keeps_best else {}
        self._stale_epochs = saved.stale_epochs
        self._rate, self._tally = saved.learning_rate, saved.tally

    def _keep_best(self, measured: Evaluation) -> None:
        higher_is_better = self._config.monitor == "accuracy"
        metric = measured.accuracy if higher_is_better else measured.loss
        assert metric is not None  # Trainer refuses to monitor an accuracy that is not there
        best = self._best_metric
        if best is None or (metric > best if higher_is_better else metric < best):
            self._best_metric, self.best_epoch, self._stale_epochs = metric, self.epoch, 0
            if self._keeps_best:
                self._best_values.clear()  # before the next copy is made
                self._best_values = self._session.values()
        else:
            self._stale_epochs += 1

    def _checkpoint(self) -> Checkpoint:
        _, random_state = epoch_order(self._samples, self._config.seed, self.epoch)
        return Checkpoint(
            state=self._session.state(copy=False),
            bundle_digest=self._session.digest,
            step=self.step,
            epoch=self.epoch,
            batch_in_epoch=self.batch_in_epoch,
            learning_rate=self._rate,
            seed=self._config.seed,
            random_state=random_state,
            configuration=self._fixed,
            tally=self._tally,
            history=tuple(self.history),
            best_metric=self._best_metric,
            best_epoch=self.best_epoch,
            stale_epochs=self._stale_epochs,
            best_values=self._best_values,
        )

    def _differences(self, saved: Checkpoint) -> list[str]:
        """All reasons why continuing `saved` would not be the same run."""
        if saved.bundle_digest != self._session.digest:
            return [
                f"it was made from the bundle {saved.bundle_digest[:12]}, and this one is "
                f"{self._session.digest[:12]}"
            ]
        before = {"seed": saved.seed, **saved.configuration}
        now = {"seed": self._config.seed, **to_plain(self._fixed)}
        problems = [
            f"the {name} was {before.get(name)}, and is {now.get(name)} now"
            for name in sorted({*before, *now})
            if before.get(name) != now.get(name)
        ]
        if problems:
            return problems
        if saved.epoch > self._config.epochs:
            return [f"it has {saved.epoch} epochs behind it, and {self._config.epochs} are asked"]
        if saved.batch_in_epoch > batch_count(self._samples, self.batch):
            return [f"it is at batch {saved.batch_in_epoch} of an epoch that has fewer"]
        _, random_state = epoch_order(self._samples, saved.seed, saved.epoch)
        if random_state != saved.random_state:
            return [f"numpy {np.__version__} draws another order than the numpy it was made with"]
        return []
