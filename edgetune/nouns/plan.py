"""The decision: what is trained, how, and what it will cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgetune.nouns.budget import Budget
from edgetune.nouns.cost import StepCost
from edgetune.nouns.optimizer import Optimizer
from edgetune.nouns.precision import Precision
from edgetune.nouns.selection import Selection


@dataclass(frozen=True)
class Certificate:
    """How good the plan is known to be: `objective <= optimum <= bound`.

    method: "exact" (a mixed-integer program), or how the user chose: "patterns", "threshold",
        "top-k".
    objective: summed importance of what is selected. everything: that of all that could be.
    bound: an upper bound on the objective of any plan within the budget, None when the user chose.
    gap: `(bound - objective) / bound`; 0 says that no plan within the budget is better.
    binding: the budgets that keep the plan from being better.
    prices: for each of them what one more unit (byte, joule, second) would add to the objective, by
        the linear relaxation.
    """

    method: str
    objective: float
    everything: float = 0.0
    bound: float | None = None
    gap: float | None = None
    binding: tuple[str, ...] = ()
    prices: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class UpdatePlan:
    """What is trained on which device, within which budget, at which predicted cost.

    batch: samples per optimizer step; micro_batch: samples per run of the graphs, divides batch.
    recomputes: whether light activations are made again in the backward instead of kept.
    precision: of the frozen prefix; everything that is trained, and what follows it, is fp32.
    parameter_count, trainable_count: numbers of scalars. criterion: what the scores measure.
    scores: importance by candidate name, of those that are selected.
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
    recomputes: bool = False
    precision: Precision = "fp32"
    criterion: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)

    @property
    def trainable_share(self) -> float:
        return self.trainable_count / self.parameter_count
