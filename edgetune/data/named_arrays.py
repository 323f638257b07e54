"""Arrays under the names users give them, and under those of the bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetune.nouns.signature import ArraySpec, Signature

Array = npt.NDArray[Any]

WEIGHT_NAME = "sample_weight"
INPUT_ALIASES = ("x",)
TARGET_ALIASES = ("y", "targets", "labels")


@dataclass(frozen=True, eq=False)
class NamedArrays:
    """What a source of data gave.

    inputs, targets: arrays known to be one or the other. unsorted: only the name tells.
    """

    inputs: Mapping[str, Array] = field(default_factory=dict)
    targets: Mapping[str, Array] = field(default_factory=dict)
    unsorted: Mapping[str, Array] = field(default_factory=dict)


def sort_by_signature(
    source: NamedArrays, signature: Signature
) -> tuple[dict[str, Array], dict[str, Array], Array | None]:
    """(inputs, targets, sample weights), under the signature's names and converted to its types.

    Names that nothing explains stay, as inputs, for the check to report.
    """
    inputs, targets, loose = dict(source.inputs), dict(source.targets), dict(source.unsorted)
    weights = loose.pop(WEIGHT_NAME, None)
    input_names = {spec.name for spec in signature.inputs}
    target_names = {spec.name for spec in signature.targets} | set(TARGET_ALIASES) - input_names
    for name, array in loose.items():
        (targets if name in target_names else inputs)[name] = array
    _rename(inputs, signature.inputs, INPUT_ALIASES)
    _rename(targets, signature.targets, TARGET_ALIASES)
    return (
        _converted(inputs, signature.inputs),
        _converted(targets, signature.targets),
        None if weights is None else convert(weights, np.dtype(np.float32)),
    )


def convert(array: Array, dtype: np.dtype[Any]) -> Array:
    """`array` as `dtype` where nothing is lost but precision, else as it is.

    Floats and integers become floats of any width, integers become wider, and narrower when every
    value fits; floats never become integers.
    """
    if array.dtype == dtype or array.dtype.kind not in "biuf":
        return array
    if dtype.kind == "f":
        with np.errstate(over="ignore"):  # a value too large becomes Inf, which the check reports
            return array.astype(dtype)
    if np.can_cast(array.dtype, dtype, "safe"):
        return array.astype(dtype)
    if array.dtype.kind in "iu" and dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        if array.size == 0 or (array.min() >= bounds.min and array.max() <= bounds.max):
            return array.astype(dtype)
    return array


def _rename(arrays: dict[str, Array], specs: Sequence[ArraySpec], aliases: Sequence[str]) -> None:
    """Give the single array that came under an alias the name of the single spec."""
    if len(specs) != 1 or specs[0].name in arrays:
        return
    found = [alias for alias in aliases if alias in arrays]
    if len(found) == 1:
        arrays[specs[0].name] = arrays.pop(found[0])


def _converted(arrays: Mapping[str, Array], specs: Sequence[ArraySpec]) -> dict[str, Array]:
    types = {spec.name: np.dtype(spec.dtype) for spec in specs}
    return {name: convert(a, types[name]) if name in types else a for name, a in arrays.items()}
