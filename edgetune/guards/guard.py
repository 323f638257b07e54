"""What a guard is: a rule that is asked before each piece of work whether a budget allows it.

The trainer, which knows this file and `Watch` alone, does what the answer says: waits, or ends the
run with a checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

BudgetName = Literal["memory", "energy", "time", "temperature", "power", "battery"]

Work = Literal["step", "micro-batch", "update", "evaluation"]
"""What comes next: the first micro-batch of a step, another one of it, the update that ends it, or
a micro-batch of validation."""

STOP_EXIT_CODES: dict[BudgetName, int] = {
    "memory": 20,
    "energy": 21,
    "time": 22,
    "temperature": 23,
    "power": 24,
    "battery": 25,
}
"""What the command line returns for a run that a budget stopped; docs/commands.md lists them."""


@dataclass(frozen=True)
class Moment:
    """Where a run is when a guard is asked: before a piece of work.

    seconds: since this call of `fit` began, pauses included.
    next: what comes next.
    steps, pieces: whole steps, and micro-batches also of validation, that this call has done.
    paused_by: the budget that the run is being paused for, None while it works.
    paused_seconds: how long that pause is already.
    """

    seconds: float
    next: Work
    steps: int
    pieces: int
    paused_by: BudgetName | None = None
    paused_seconds: float = 0.0


@dataclass(frozen=True)
class Pause:
    """Do nothing for `seconds`, then ask again."""

    seconds: float


@dataclass(frozen=True)
class Stop:
    """End the run, with a checkpoint; a smaller micro-batch may do instead where it is memory.

    budget: which one. measured, allowed: where it stands and where it ends, in `unit`; measured is
        None where it cannot be read any more.
    needs: what comes next was expected to add so much; None where nothing is foreseen.
    reason: all of that as a sentence, with what to do.
    """

    budget: BudgetName
    measured: float | None
    allowed: float
    unit: str
    reason: str
    needs: float | None = None


class Guard(Protocol):
    """One rule. Frozen: what changes is in the meters and files that it reads, and in `Moment`."""

    @property
    def budget(self) -> BudgetName:
        """What it holds."""

    @property
    def every_seconds(self) -> float:
        """How often it is worth asking; 0 is before every piece of work."""

    def check(self, moment: Moment) -> Stop | Pause | None:
        """None when the next piece of work may begin. Never raises."""


def unreadable(
    budget: BudgetName, allowed: float, unit: str, sensor: str, holds: str, where: str
) -> Stop:
    """The stop of a budget that nobody can hold any more, because its sensor is gone.

    sensor: what cannot be read, such as `the battery`. holds: what was known by it, such as
    `it is above 30 %`. where: what to look at.
    """
    reason = (
        f"{sensor} cannot be read any more, so nobody knows whether {holds}; look at {where}, then "
        "continue with --resume"
    )
    return Stop(budget, None, allowed, unit, reason)


def needed(moment: Moment, used: float, planned: float | None) -> float:
    """How much of something comes next, when `used` were used until `moment`: what the mean step or
    micro-batch took, validation and pauses in it. An update is little, and ends what is paid for.

    planned: of one step, which is believed until one is done; None is unknown.
    """
    if moment.next == "update":
        return 0.0
    if moment.next == "step":
        return used / moment.steps if moment.steps else planned or 0.0
    return used / moment.pieces if moment.pieces else 0.0
