"""How a loss normalises: the part of it that the host must know to be exact.

The graphs compute `sum_n scale[n] * l[n]`, where `l[n]` is the UNNORMALISED loss of sample n (for
a token or pixel loss, the sum over its positions, class weights included). The host passes
`scale[n] = sample_weight[n] / normalizer`, where the normalizer is that of the WHOLE batch. So
gradient accumulation over micro-batches, partial last batches (padded with scale 0) and class
weights are all exact, and nothing has to be divided on the device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class LossSpec:
    """What normalises the loss, and what counts as correct.

    kind: "cross_entropy" (integer targets), "mean_squared_error", "mean_absolute_error", "huber",
        "binary_cross_entropy" (with logits), or "custom" (one loss per sample).
    classes: number of classes of integer targets, None where targets are no class indices.
    class_weights: weight of each class in the normalizer, cross entropy only.
    ignore_index: the target value that does not count, cross entropy only.
    elements: loss terms per sample of an element-wise loss; 1 for "custom".
    """

    kind: str
    classes: int | None = None
    class_weights: tuple[float, ...] | None = None
    ignore_index: int | None = None
    elements: int = 1

    @property
    def has_accuracy(self) -> bool:
        return self.kind in ("cross_entropy", "binary_cross_entropy")

    def normalizer(self, targets: Array, sample_weights: Array) -> float:
        """What the summed loss of a batch is divided by, as PyTorch's reduction="mean" does.

        targets: (batch, ...) as the loss takes them; sample_weights: (batch,).
        """
        weights = sample_weights.astype(np.float64)
        if self.kind != "cross_entropy":
            return float(weights.sum() * self.elements)
        counted = targets != self.ignore_index
        per_target = counted.astype(np.float64)
        if self.class_weights is not None:
            safe = np.where(counted, targets, 0)
            per_target *= np.asarray(self.class_weights, np.float64)[safe]
        return float((per_target.reshape(len(targets), -1).sum(axis=1) * weights).sum())

    def counted(self, targets: Array) -> int:
        """Number of predictions that can be right or wrong in `targets`: the accuracy's divisor."""
        if self.kind == "cross_entropy" and self.ignore_index is not None:
            return int((targets != self.ignore_index).sum())
        return int(targets.size)
