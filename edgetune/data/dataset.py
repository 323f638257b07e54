"""Data as training takes it: named arrays whose first dimension is the sample.

`load_data` reads what a user names on the command line (the formats are in `data_sources.py`);
`check_data` finds everything that is wrong with a dataset and says it once (`data_checks.py` looks
at the values).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetune.data.checks import (
    label_problems,
    row_chunks,
    value_problems,
    weight_problems,
)
from edgetune.data.named_arrays import WEIGHT_NAME, sort_by_signature
from edgetune.data.sources import read_source
from edgetune.errors import DataError, nearest, raise_all
from edgetune.nouns.loss import LossSpec
from edgetune.nouns.signature import ArraySpec, Signature

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples, by name as in the bundle's signature.

    inputs, targets: arrays of shape (samples, ...). They may be memory-mapped; only the rows of
    one micro-batch are read at a time. sample_weights: (samples,) float32, None is all one.
    """

    inputs: Mapping[str, Array]
    targets: Mapping[str, Array]
    sample_weights: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        for array in (*self.targets.values(), *self.inputs.values()):
            return len(array)
        return 0

    @property
    def bytes(self) -> int:
        """Memory that the arrays take, which a plan's prediction does not contain."""
        return sum(array.nbytes for array in (*self.inputs.values(), *self.targets.values()))

    def fingerprint(self) -> str:
        """Number of samples and CRC-32 of names, types and values: tells other data apart."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        crc = 0
        arrays = {**self.inputs, **self.targets}
        if self.sample_weights is not None:
            arrays[WEIGHT_NAME] = self.sample_weights
        for name, array in sorted(arrays.items()):
            crc = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), crc)
            for _, rows in row_chunks(array):
                crc = zlib.crc32(rows.tobytes(), crc)
        return f"{len(self)} samples with CRC-32 {crc:08x}"


def load_data(spec: str, signature: Signature, loss: LossSpec) -> Dataset:
    """The dataset that `spec` names, checked by `check_data`.

    An `.npz` file has the signature's names as keys; with a single input also `x`, with a single
    target also `y`, `targets` or `labels`; and optionally `sample_weight`, one per sample.
    `file.py:factory` calls a function that returns a dict like that, or (inputs, targets), each an
    array or a dict of arrays.
    A `.csv` file has a header; with a column named as the target (or by one of the names above)
    that is the target, else the last one is. With a single input all other columns are its
    features, in the file's order; with several, each is a number with a column of its name.
    A folder has one sub-folder of images per class, the classes in sorted order; the images are
    turned upright, made RGB or grey and resized as the input's shape (C, H, W), (H, W, C) or
    (H, W) says, and scaled to [0, 1] if it holds floats. Normalise otherwise in a factory.

    Element types are converted where nothing is lost but precision: float64 to float32, int32 to
    int64, integers to floats; floats never to integers. Raises DataError with all problems, and
    RuntimeSetupError for images without Pillow.
    """
    source = read_source(spec, signature, loss)
    dataset = Dataset(*sort_by_signature(source, signature))
    check_data(dataset, signature, loss, what=spec)
    return dataset


def check_data(
    dataset: Dataset, signature: Signature, loss: LossSpec, what: str = "the data"
) -> None:
    """Raise one DataError with everything in `dataset` that does not fit; `what` names it."""
    problems = [
        *_name_problems("input", dataset.inputs, signature.inputs),
        *_name_problems("target", dataset.targets, signature.targets),
        *_length_problems(dataset),
    ]
    for specs, arrays in (
        (signature.inputs, dataset.inputs),
        (signature.targets, dataset.targets),
    ):
        for spec in specs:
            if spec.name in arrays:
                problems += _array_problems(spec, arrays[spec.name])
    for spec in signature.targets:
        array = dataset.targets.get(spec.name)
        if array is not None and loss.classes is not None and array.dtype.kind in "iu":
            problems += label_problems(spec.name, array, loss)
    if dataset.sample_weights is not None:
        problems += weight_problems(dataset.sample_weights)
    raise_all(DataError, f"cannot use {what}", problems)


def _name_problems(role: str, arrays: Mapping[str, Array], specs: Sequence[ArraySpec]) -> list[str]:
    known = [spec.name for spec in specs]
    missing = [name for name in known if name not in arrays]
    return [
        f"the {role} {name!r} is missing{nearest(name, [n for n in arrays if n not in known])}"
        for name in missing
    ] + [
        f"the {role} {name!r} is not known{nearest(name, known) or _known(known)}"
        for name in arrays
        if name not in known
    ]


def _known(names: Sequence[str]) -> str:
    return f"; expected {', '.join(names)}"


def _length_problems(dataset: Dataset) -> list[str]:
    arrays = {**dataset.inputs, **dataset.targets}
    if dataset.sample_weights is not None:
        arrays[WEIGHT_NAME] = dataset.sample_weights
    flat = [f"{name!r} has no sample dimension" for name, array in arrays.items() if not array.ndim]
    if flat:
        return flat
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        listing = ", ".join(f"{name!r} has {length}" for name, length in lengths.items())
        return [f"the numbers of samples differ: {listing}"]
    if lengths and not next(iter(lengths.values())):
        return ["there are no samples"]
    return []


def _array_problems(spec: ArraySpec, array: Array) -> list[str]:
    problems = []
    if array.ndim and array.shape[1:] != spec.shape:
        problems.append(
            f"{spec.name!r} has samples of shape {array.shape[1:]}, expected {spec.shape}"
        )
    if array.dtype != np.dtype(spec.dtype):
        hint = "" if array.dtype.kind != "O" else " (arrays of objects are not data)"
        problems.append(f"{spec.name!r} is {array.dtype}, expected {spec.dtype}{hint}")
    return problems + value_problems(spec.name, array)
