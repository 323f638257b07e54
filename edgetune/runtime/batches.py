"""From a dataset to micro-batches: order, padding, and the scale that makes the sums exact.

The order of epoch e (from 0) under seed s is
`numpy.random.Generator(numpy.random.PCG64([s, e])).permutation(n)`, cut into batches from the
front, the last one possibly smaller: a benchmark reproduces it in PyTorch with a batch sampler.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetune.data.dataset import Dataset
from edgetune.errors import DataError
from edgetune.nouns.manifest import Manifest
from edgetune.runtime.session import Array, MicroBatch, Samples

Rows = npt.NDArray[np.int64]

_ROWS_AT_ONCE = 1024  # bounds the memory that normalising a whole dataset takes


@dataclass(frozen=True)
class BatchPlan:
    """Which samples one batch holds, and what its sums are divided by.

    rows: indices into the dataset. normalizer: of the loss, over the whole batch.
    counted: predictions that can be right or wrong, 0 where the loss has no accuracy.
    """

    rows: Rows
    normalizer: float
    counted: int


def epoch_order(count: int, seed: int, epoch: int) -> tuple[Rows, Mapping[str, Any]]:
    """The order of `count` samples in `epoch`, and the generator's state after drawing it."""
    generator = np.random.Generator(np.random.PCG64([seed, epoch]))
    order: Rows = generator.permutation(count).astype(np.int64, copy=False)
    return order, generator.bit_generator.state


def batch_count(samples: int, batch: int) -> int:
    """Number of batches of at most `batch` samples."""
    return -(-samples // batch)


def plan_batch(dataset: Dataset, rows: Rows, manifest: Manifest, where: str) -> BatchPlan:
    """The batch of the samples `rows`; `where` names it in errors.

    A sample of weight 0 is no prediction that counts. Raises DataError when nothing in the batch
    counts: its mean loss would be 0 / 0.
    """
    loss, names = manifest.loss, [spec.name for spec in manifest.signature.targets]
    normalizer, counted = 0.0, 0
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        chunk = rows[start : start + _ROWS_AT_ONCE]
        weights = _weights(dataset, chunk)
        # a loss without targets of its own has one term per sample
        values = dataset.targets[names[0]][chunk] if names else chunk
        normalizer += loss.normalizer(values, weights)
        counted += loss.counted(values[weights > 0]) if loss.has_accuracy else 0
    if normalizer <= 0:
        raise DataError(
            f"{where} has nothing to learn from: all of its {len(rows)} targets are ignored or "
            "have weight zero; remove those samples, or use larger batches"
        )
    return BatchPlan(rows, normalizer, counted)


def micro_batches(dataset: Dataset, plan: BatchPlan, micro_batch: int) -> Iterator[MicroBatch]:
    """The batch in pieces of exactly `micro_batch` samples, made one at a time.

    The scales are `sample weight / normalizer` of the whole batch, so the pieces' losses and
    gradients add up to the batch's. What is missing at the end is the batch's first sample with
    scale 0.
    """
    for start in range(0, len(plan.rows), micro_batch):
        real = plan.rows[start : start + micro_batch]
        rows = np.full(micro_batch, plan.rows[0])
        rows[: len(real)] = real
        scale = np.zeros(micro_batch, np.float32)
        scale[: len(real)] = _weights(dataset, real).astype(np.float64) / plan.normalizer
        yield MicroBatch(
            _Taken(dataset.inputs, rows),
            {name: np.asarray(array[rows]) for name, array in dataset.targets.items()},
            scale,
            Samples(dataset.fingerprint(), len(dataset), rows),
        )


class _Taken(Mapping[str, Array]):
    """Some rows of arrays by name, taken when they are asked for: kept features need no inputs."""

    def __init__(self, arrays: Mapping[str, Array], rows: Rows) -> None:
        self._arrays, self._rows = arrays, rows

    def __getitem__(self, name: str) -> Array:
        return np.asarray(self._arrays[name][self._rows])

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __contains__(self, name: object) -> bool:
        return name in self._arrays


def evaluation_plan(dataset: Dataset, manifest: Manifest) -> BatchPlan:
    """The whole dataset, in order, as one batch: normalised over all of it."""
    rows = np.arange(len(dataset), dtype=np.int64)
    return plan_batch(dataset, rows, manifest, "the data to evaluate on")


def _weights(dataset: Dataset, rows: Rows) -> npt.NDArray[np.float32]:
    if dataset.sample_weights is None:
        return np.ones(len(rows), np.float32)
    return dataset.sample_weights[rows]
