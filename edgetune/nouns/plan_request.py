"""What a user asks the planner for."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgetune.nouns.budget import Budget
from edgetune.nouns.optimizer import Optimizer
from edgetune.nouns.precision import Precision
from edgetune.nouns.profile import DeviceProfile


@dataclass(frozen=True)
class PlanRequest:
    """A device, a budget, and how much of the rest is already decided.

    patterns: names to train, shell style; `NAME:in/4` are shares (edgetune.nouns.candidate). Empty
        lets the planner choose within `budget`.
    batch: samples per update. micro_batch: samples at once, None lets the planner choose among the
        divisors of `batch`.
    shares: whether shares of tensors may be selected. recomputation: whether light activations may
        be made again in the backward instead of kept.
    precisions: in which the frozen prefix may compute, those that are faster first.
    int8_tolerance: by how much the loss of the calibration samples may rise, as a share of itself,
        when the prefix computes in 8 bits.
    criterion: one of CRITERIA, or "user" for the scores in the JSON file `scores_file`.
    calibration_samples: how many of the sample batch importance is measured on, drawn by `seed`.
    top_k, threshold: select the so many most important tensors, or those with at least that score,
        instead of the best within the budget.
    gap: relative gap at which the planner may stop. time_limit_seconds: when it must.
    """

    profile: DeviceProfile
    budget: Budget = field(default_factory=Budget)
    optimizer: Optimizer = field(default_factory=Optimizer)
    patterns: tuple[str, ...] = ()
    batch: int = 8
    micro_batch: int | None = None
    shares: bool = True
    recomputation: bool = True
    precisions: tuple[Precision, ...] = ("fp32",)
    int8_tolerance: float = 0.02
    criterion: str = "fisher"
    scores_file: str | None = None
    calibration_samples: int = 64
    seed: int = 0
    top_k: int | None = None
    threshold: float | None = None
    gap: float = 0.0
    time_limit_seconds: float | None = None
