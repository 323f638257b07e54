"""What is alive when in a step, and what holds the peak."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgetune.nouns.cost import StepCost

Phase = Literal["loading", "prefix", "forward", "backward", "update", "checkpoint"]

THE_BATCH, END_OF_STEP = "the batch", "the end of the step"


@dataclass(frozen=True)
class TimelineMoment:
    """One operation of a step, in execution order; loading, update and checkpoint count as one.

    phase: the frozen prefix; forward and backward, which together are the tail; what is around.
    operator: name of the operation, or of the phase. module: of the model, "" when none is known.
    live_bytes: what is alive while it runs besides weights and state, with the allocator's overhead
    and the kernels' workspace; the largest over all moments is the cost's activation_bytes.
    """

    phase: Phase
    operator: str
    module: str
    operator_class: str
    live_bytes: int


@dataclass(frozen=True)
class Holder:
    """Something alive at the peak.

    bytes: of the tensor itself. made_by, kept_until: operations, or THE_BATCH and END_OF_STEP.
    made_in, kept_for: the modules of these operations, "" when none is known.
    """

    tensor: str
    bytes: int
    made_by: str
    kept_until: str
    made_in: str = ""
    kept_for: str = ""


@dataclass(frozen=True)
class Timeline:
    """The moments of loading, one micro-batch, the update and a checkpoint.

    cost: of the step; its peak_bytes are base, weights, state, and the live bytes of `moments` at
    the place `peak`. holders: what is alive there, the largest first. overhead: what the allocator
    takes per byte of them. workspace_bytes: what a kernel takes besides.
    """

    cost: StepCost
    moments: tuple[TimelineMoment, ...]
    peak: int
    holders: tuple[Holder, ...]
    overhead: float
    workspace_bytes: int
