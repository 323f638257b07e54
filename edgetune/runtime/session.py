"""What the trainer asks of whatever executes a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgetune.nouns.manifest import Manifest

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]


@dataclass(frozen=True, eq=False)
class Samples:
    """Which samples of which data: rows (micro_batch,) of the `count` samples of `dataset`."""

    dataset: str
    count: int
    rows: npt.NDArray[np.int64]


@dataclass(frozen=True)
class MicroBatch:
    """Exactly `plan.micro_batch` samples.

    inputs, targets: arrays by name, first dimension micro_batch. A batch that does not fill up
    repeats a real sample with scale 0 (never zeros: a padded token row could be NaN).
    scale: (micro_batch,) float32, `sample_weight / normalizer` of the whole batch (nouns/loss.py).
    samples: where they are from, None when nobody will ask for the same ones again.
    """

    inputs: Arrays
    targets: Arrays
    scale: npt.NDArray[np.float32]
    samples: Samples | None = None


@dataclass(frozen=True)
class MicroResult:
    """loss: the batch loss's share of this micro-batch. correct: right predictions
    among the rows whose scale is not 0; 0 where the loss has no accuracy.
    """

    loss: float
    correct: int


class TrainingSession(Protocol):
    """Executes a bundle's graphs; holds the trainable values and the optimizer's state."""

    @property
    def manifest(self) -> Manifest: ...

    @property
    def digest(self) -> str:
        """SHA-256 of the bundle's manifest: what checkpoints are tied to."""

    def accumulate(self, batch: MicroBatch) -> MicroResult:
        """Add the gradients of one micro-batch to those of the batch so far."""

    def update(self, learning_rate: float, clip_norm: float | None) -> float:
        """One optimizer step with the accumulated gradients, which are then forgotten.

        Returns the gradients' global L2 norm before clipping. Raises TrainingError when it is not
        finite; values and state are then unchanged.
        """

    def gradients(self) -> dict[str, Array]:
        """Copies of the gradients accumulated so far, by parameter name; empty when none are."""

    def load_gradients(self, gradients: Arrays) -> None:
        """Put `gradients` in the place of accumulated ones; raises DataError on a mismatch."""

    def discard(self) -> None:
        """Forget the accumulated gradients."""

    def smaller(self) -> bool:
        """Go over to the next smaller micro-batch that the bundle carries, gradients forgotten.

        False where there is none. `manifest.plan.micro_batch` and `.cost` are then the smaller
        one's.
        """

    def evaluate(self, batch: MicroBatch) -> MicroResult:
        """Loss and right predictions, no gradients."""

    def predict(self, inputs: Arrays) -> dict[str, Array]:
        """The model's outputs for any number of samples."""

    def write_inference_model(self, out: Path) -> None:
        """Write a self-contained ONNX inference model with the present values, atomically."""

    def values(self, *, copy: bool = True) -> dict[str, Array]:
        """The trainable values, by parameter name.

        copy: without, what needs no slicing is the session's own memory, not writable and
        valid until the session next changes.
        """

    def load_values(self, values: Arrays) -> None:
        """Replace the trainable values; raises DataError when a name or shape differs."""

    def state(self, *, copy: bool = True) -> dict[str, Array]:
        """All that `load_state` needs to continue bit for bit: values, slots, update count.

        copy: as for `values`.
        """

    def load_state(self, state: Arrays, *, copy: bool = True) -> None:
        """Continue from what `state` returned; raises CheckpointError when it does not fit.

        copy: without, the session may keep the arrays, contiguous ones, and write to them.
        """
