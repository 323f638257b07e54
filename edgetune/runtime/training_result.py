"""What a training run came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgetune.files.checkpoint import EpochRecord
from edgetune.guards.guard import BudgetName, Stop


@dataclass(frozen=True)
class TrainingResult:
    """What a run came to, with what it did before it was resumed.

    epochs, steps: done. train_loss, validation_loss: of the last epoch, None before one is done.
    best_epoch: from 0, the best on validation data, None without. peak_bytes: peak resident memory
    of the process, None where the system does not tell. median_step_seconds: of this call's last
    steps without pauses, None when it had nothing left to do.
    stopped_by: the budget that ended the run, None when it came to its own end; then the checkpoint
    is where a resumed run continues. paused_seconds: how long it was paused, by budget.
    holds_best: whether the session now holds the values of best_epoch, not the last ones.
    micro_batch: samples at once in the last step; less than the plan's where memory ran short.
    """

    epochs: int
    steps: int
    train_loss: float | None
    validation_loss: float | None
    history: tuple[EpochRecord, ...]
    stopped_early: bool
    best_epoch: int | None
    peak_bytes: int | None
    median_step_seconds: float | None
    stopped_by: Stop | None = None
    paused_seconds: Mapping[BudgetName, float] = field(default_factory=dict)
    holds_best: bool = False
    micro_batch: int | None = None
