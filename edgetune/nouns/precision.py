"""In how many bits the frozen prefix computes, and what fewer bits cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["fp32", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")


@dataclass(frozen=True)
class Int8Loss:
    """What a prefix in 8 bits costs before training, measured when it was exported.

    samples: how many it was calibrated and measured on. fp32_loss, int8_loss: their mean loss.
    feature_error: the Euclidean norm of the features' deviation, as a share of the features'.
    """

    samples: int
    fp32_loss: float
    int8_loss: float
    feature_error: float

    @property
    def rise(self) -> float:
        """By how much the loss rises, as a share of that of fp32."""
        return (self.int8_loss - self.fp32_loss) / max(abs(self.fp32_loss), 1e-12)
