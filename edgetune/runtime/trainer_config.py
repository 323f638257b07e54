"""What a user decides about a training run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetune.errors import UsageError, raise_all
from edgetune.runtime.learning_rate import SCHEDULES

MONITORS = ("loss", "accuracy")


@dataclass(frozen=True)
class TrainerConfig:
    """How to train. Raises UsageError with all that is wrong.

    epochs: passes over the data. batch: samples per update, None is the plan's; any positive
    number, what does not fill a micro-batch is padded exactly. seed: of the epochs' orders.
    learning_rate, schedule, warmup_steps: see learning_rate.py; the cosine ends with the run.
    clip_norm: largest global L2 norm of the gradients, None does not clip.
    patience: stop after so many epochs without a better validation `monitor` ("loss" or
        "accuracy"), None never stops. restore_best: with patience, end with the values of the
        best epoch. keep_best: hold those also without patience, for a run that a budget stops,
        which then ends with them; one that comes to its own end is not changed by it.
    checkpoint_path: written after every epoch, and every checkpoint_every_steps updates if given.
    log_path: JSON lines are appended to it. progress: a bar on stderr, if that is a terminal.
    """

    epochs: int = 1
    batch: int | None = None
    seed: int = 0
    learning_rate: float = 1e-3
    schedule: str = "constant"
    warmup_steps: int = 0
    clip_norm: float | None = None
    patience: int | None = None
    monitor: str = "loss"
    restore_best: bool = True
    keep_best: bool = False
    checkpoint_path: Path | None = None
    checkpoint_every_steps: int | None = None
    log_path: Path | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        problems = [
            *_integer("epochs", self.epochs, 1),
            *_integer("batch", self.batch, 1, optional=True),
            *_integer("seed", self.seed, 0),
            *_positive("learning_rate", self.learning_rate),
            *_one_of("schedule", self.schedule, SCHEDULES),
            *_integer("warmup_steps", self.warmup_steps, 0),
            *_positive("clip_norm", self.clip_norm, optional=True),
            *_integer("patience", self.patience, 1, optional=True),
            *_one_of("monitor", self.monitor, MONITORS),
            *_integer("checkpoint_every_steps", self.checkpoint_every_steps, 1, optional=True),
        ]
        if self.checkpoint_every_steps is not None and self.checkpoint_path is None:
            problems.append("checkpoint_every_steps needs a checkpoint_path")
        raise_all(UsageError, "cannot train with this configuration", problems)

    def trajectory(self, batch: int) -> dict[str, Any]:
        """What a resumed run must share with the one it continues, besides seed and data.

        batch: the effective batch. The number of epochs only matters where the schedule depends
        on the run's end.
        """
        fixed: dict[str, Any] = {
            "batch": batch,
            "learning_rate": self.learning_rate,
            "schedule": self.schedule,
            "warmup_steps": self.warmup_steps,
            "clip_norm": self.clip_norm,
            "patience": self.patience,
            "monitor": self.monitor,
            "restore_best": self.restore_best,
        }
        return fixed if self.schedule == "constant" else {**fixed, "epochs": self.epochs}


def _integer(name: str, value: Any, least: int, optional: bool = False) -> list[str]:
    if value is None and optional:
        return []
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        return [f"{name} is {value!r}, expected an integer of at least {least}"]
    return []


def _positive(name: str, value: Any, optional: bool = False) -> list[str]:
    if value is None and optional:
        return []
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value <= 0:
        return [f"{name} is {value!r}, expected a finite number greater than zero"]
    return []


def _one_of(name: str, value: str, known: tuple[str, ...]) -> list[str]:
    if value in known:
        return []
    return [f"{name} is {value!r}, expected one of {', '.join(known)}"]
