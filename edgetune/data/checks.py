"""Values that would spoil training without an error: each with the first place it is at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetune.nouns.loss import LossSpec

Array = npt.NDArray[Any]

_BYTES_AT_ONCE = 2**20  # a check makes masks: bound what they take, whatever the dataset's size


def value_problems(name: str, array: Array) -> list[str]:
    """The first sample of `array` (samples, ...) that holds a NaN or an Inf, if any."""
    if array.dtype.kind != "f" or not array.ndim:
        return []
    for start, rows in row_chunks(array):
        finite = np.isfinite(rows).reshape(len(rows), -1).all(axis=1)
        if not finite.all():
            first = int(np.argmin(finite))
            sample = rows[first]
            bad = sample[~np.isfinite(sample)].ravel()[0]
            kind = "NaN" if np.isnan(bad) else "Inf"
            return [f"{name!r} holds {kind}, first in sample {start + first}"]
    return []


def label_problems(name: str, array: Array, loss: LossSpec) -> list[str]:
    """The first sample with a class index outside [0, classes) that is not the ignored one."""
    if loss.classes is None or not array.ndim:
        return []
    for start, rows in row_chunks(array):
        wrong = (rows < 0) | (rows >= loss.classes)
        if loss.ignore_index is not None:
            wrong &= rows != loss.ignore_index
        if wrong.any():
            first = int(np.argmax(wrong.reshape(len(rows), -1).any(axis=1)))
            value = rows[first][wrong[first]].ravel()[0]
            ignored = "" if loss.ignore_index is None else f", or {loss.ignore_index} to ignore"
            return [
                f"{name!r} holds the label {value}, first in sample {start + first}: "
                f"expected 0 to {loss.classes - 1}{ignored}"
            ]
    return []


def weight_problems(weights: Array) -> list[str]:
    """What is wrong with the sample weights: (samples,) float32, finite, none negative."""
    if weights.ndim != 1:
        return [f"'sample_weight' has shape {weights.shape}, expected (samples,)"]
    if weights.dtype != np.float32:
        return [f"'sample_weight' is {weights.dtype}, expected float32"]
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        first = int(np.argmax(wrong))
        return [
            f"'sample_weight' is {weights[first]} in sample {first}: "
            "expected finite numbers that are not negative"
        ]
    if len(weights) and not weights.any():
        return ["'sample_weight' is zero for every sample"]
    return []


def row_chunks(array: Array) -> Iterator[tuple[int, Array]]:
    """(index of the first sample, samples) pieces of about _BYTES_AT_ONCE."""
    row_bytes = max(array[:1].nbytes, 1)
    step = max(_BYTES_AT_ONCE // row_bytes, 1)
    for start in range(0, len(array), step):
        yield start, array[start : start + step]
