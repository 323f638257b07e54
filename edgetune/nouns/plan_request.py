"""What a user asks the planner for."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgetune.nouns.budget import Budget
from edgetune.nouns.optimizer import Optimizer
from edgetune.nouns.profile import DeviceProfile


@dataclass(frozen=True)
class PlanRequest:
    """A device, a budget, and how much of the rest is already decided.

    patterns: names to train, shell style; empty lets the planner choose within `budget`.
    batch: samples per update. micro_batch: samples at once, None lets the planner choose the
    largest divisor of `batch` that fits. calibration_samples: how many of the sample batch the
    importance is measured on.
    """

    profile: DeviceProfile
    budget: Budget = field(default_factory=Budget)
    optimizer: Optimizer = field(default_factory=Optimizer)
    patterns: tuple[str, ...] = ()
    batch: int = 8
    micro_batch: int | None = None
    calibration_samples: int = 64
