"""Data, settings and helpers that the tests of the trainer share."""

from __future__ import annotations

import dataclasses
import os
import signal
from typing import Any

import numpy as np

from edgetune.runtime.session import MicroBatch, MicroResult
from edgetune.runtime.trainer import TrainerConfig, TrainingResult
from tests.device.fake_session import FakeSession, make_dataset, make_manifest

TRAIN, VALIDATION = make_dataset(21), make_dataset(13, seed=1)
STEPS_PER_EPOCH = 3  # 21 samples in batches of 8


def config(**changes: Any) -> TrainerConfig:
    settings: dict[str, Any] = {"epochs": 3, "learning_rate": 0.05, "progress": False, **changes}
    return TrainerConfig(**settings)


def bits(session: FakeSession) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in session.state().items()}


def timeless(result: TrainingResult) -> TrainingResult:
    return dataclasses.replace(result, peak_bytes=None, median_step_seconds=None)


class StopsAt(FakeSession):
    """Sends itself a signal, or raises, while it accumulates for update number `at`."""

    def __init__(self, at: int, with_: signal.Signals | BaseException, **options: Any) -> None:
        super().__init__(**options)
        self._at, self._with = at, with_

    def accumulate(self, batch: MicroBatch) -> MicroResult:
        if self.updates + 1 == self._at:
            self._at = -1
            if isinstance(self._with, BaseException):
                raise self._with
            os.kill(os.getpid(), self._with)
        return super().accumulate(batch)


class Scripted(FakeSession):
    """Validation losses from a list, one per epoch; everything else as it is."""

    def __init__(self, losses: list[float]) -> None:
        super().__init__(make_manifest(micro_batch=21))
        self._losses = losses
        self.at_evaluation: list[dict[str, np.ndarray]] = []

    def evaluate(self, batch: MicroBatch) -> MicroResult:
        self.at_evaluation.append(self.values())
        return MicroResult(self._losses[len(self.at_evaluation) - 1], 0)
