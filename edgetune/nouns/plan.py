"""The decision: what is trained, how, and what it will cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgetune.nouns.budget import Budget
from edgetune.nouns.cost import StepCost
from edgetune.nouns.optimizer import Optimizer
from edgetune.nouns.selection import Selection


@dataclass(frozen=True)
class Certificate:
    """How good the plan is known to be: `objective <= optimum <= bound`.

    objective: summed importance of what is selected. bound: an upper bound on the best objective
    any plan within the budget has. gap: `(bound - objective) / bound`, 0 when it is the best.
    method: which planner made it, or "patterns" when the user chose (then there is no bound).
    """

    method: str
    objective: float
    bound: float | None = None
    gap: float | None = None


@dataclass(frozen=True)
class UpdatePlan:
    """What is trained on which device, within which budget, at which predicted cost.

    batch: samples per optimizer step; micro_batch: samples per run of the graphs, divides batch.
    parameter_count, trainable_count: numbers of scalars. scores: importance by tensor name.
    """

    device: str
    selection: Selection
    batch: int
    micro_batch: int
    optimizer: Optimizer
    budget: Budget
    cost: StepCost
    certificate: Certificate
    parameter_count: int
    trainable_count: int
    scores: Mapping[str, float] = field(default_factory=dict)

    @property
    def trainable_share(self) -> float:
        return self.trainable_count / self.parameter_count
