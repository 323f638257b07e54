"""What each more byte, or joule, buys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from edgetune.nouns.cost import StepCost

Axis = Literal["memory", "energy"]
AXES: tuple[Axis, ...] = get_args(Axis)


@dataclass(frozen=True)
class FrontierPoint:
    """One plan. name: of a selection made by hand, "" for the best within a budget.

    amount: what it takes of the axis, in bytes or joules. importance: of the selection, as a share
    of all there is. tensors: how many are trained. gap: of the certificate, None for what was made
    by hand. planned: of what was made by hand, the importance of the best plan that takes no more
    of the axis; None where no plan keeps the other budgets.
    """

    name: str
    amount: float
    importance: float
    tensors: int
    micro_batch: int
    cost: StepCost
    gap: float | None
    planned: float | None = None
