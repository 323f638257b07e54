"""What one training step costs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StepCost:
    """The predicted cost of one step (one whole batch, all its micro-batches, one update).

    Bytes: peak_bytes is that of the whole process, and the sum of base_bytes (interpreter,
    onnxruntime, sessions), weight_bytes (frozen and trainable values), state_bytes (optimizer
    state and accumulated gradients) and activation_bytes (what is alive besides at the worst moment
    of a step: tensors, with the allocator's overhead, or the copies of a checkpoint; `peak_at`
    names the operation, "update" or "checkpoint").
    flops and moved_bytes: of the whole step. seconds and joules: None where the device's profile
    lacks the numbers they follow from.
    """

    peak_bytes: int
    base_bytes: int
    weight_bytes: int
    state_bytes: int
    activation_bytes: int
    peak_at: str
    flops: float
    moved_bytes: int
    seconds: float | None
    joules: float | None
