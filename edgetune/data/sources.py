"""Where data is read from: `.npz`, `.csv`, a folder of images by class, `file.py:factory`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetune.data.csv_file import read_csv
from edgetune.data.image_folder import read_image_folder
from edgetune.data.named_arrays import NamedArrays
from edgetune.errors import DataError, UsageError
from edgetune.files.npz import read_npz
from edgetune.nouns.loss import LossSpec
from edgetune.nouns.signature import Signature
from edgetune.user_code import call_factory

Array = npt.NDArray[Any]

_FACTORY = re.compile(r".+\.py:\w+")


def read_source(spec: str, signature: Signature, loss: LossSpec) -> NamedArrays:
    """The arrays that `spec` names, as they are. Raises DataError, or RuntimeSetupError."""
    if _FACTORY.fullmatch(spec):
        return _call_factory(spec, signature)
    path = Path(spec)
    if not path.exists():
        raise DataError(f"cannot read the data {spec}: there is no such file or folder")
    if path.is_dir():
        return NamedArrays(unsorted=read_image_folder(path, signature, loss))
    if path.suffix == ".npz":
        return NamedArrays(unsorted=_read_npz(path))
    if path.suffix == ".csv":
        return NamedArrays(unsorted=read_csv(path, signature))
    raise DataError(
        f"cannot read the data {spec}: expected an .npz or .csv file, a folder with one "
        "sub-folder of images per class, or file.py:factory"
    )


def _read_npz(path: Path) -> dict[str, Array]:
    try:
        return read_npz(path)
    except ValueError as error:
        raise DataError(
            f"cannot read the data {path}: {error}; expected what numpy.savez writes, without "
            "arrays of objects"
        ) from error


def _call_factory(spec: str, signature: Signature) -> NamedArrays:
    try:
        returned = call_factory(spec)
    except UsageError as error:  # it is data that is wrong, not the command
        raise DataError(f"cannot read the data {spec}: {error}") from error
    return _from_factory(spec, returned, signature)


def _from_factory(spec: str, returned: Any, signature: Signature) -> NamedArrays:
    if isinstance(returned, Mapping):
        return NamedArrays(unsorted=_arrays(returned))
    if isinstance(returned, tuple) and len(returned) == 2:
        inputs, targets = returned
        if not isinstance(inputs, Mapping) and len(signature.inputs) == 1:
            inputs = {signature.inputs[0].name: inputs}
        if not isinstance(targets, Mapping) and len(signature.targets) == 1:
            targets = {signature.targets[0].name: targets}
        if isinstance(inputs, Mapping) and isinstance(targets, Mapping):
            return NamedArrays(_arrays(inputs), _arrays(targets))
    raise DataError(
        f"cannot read the data {spec}: the factory returned {type(returned).__name__}, expected "
        "a dict of arrays or (inputs, targets), each a dict of arrays, or one array where the "
        "bundle has one"
    )


def _arrays(values: Mapping[str, Any]) -> dict[str, Array]:
    # asanyarray keeps a memory map a memory map
    return {str(name): np.asanyarray(value) for name, value in values.items()}
