"""A table with a header as inputs and targets."""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetune.data.named_arrays import TARGET_ALIASES, WEIGHT_NAME
from edgetune.errors import DataError, raise_all
from edgetune.nouns.signature import ArraySpec, Signature

Array = npt.NDArray[Any]

_PROBLEMS_SHOWN = 10


def read_csv(path: Path, signature: Signature) -> dict[str, Array]:
    """The columns of `path` by the signature's names; see `load_data` for which is which.

    Raises DataError naming lines and columns.
    """
    header, table = _read_table(path)
    if len(signature.targets) != 1 or math.prod(signature.targets[0].shape) != 1:
        raise DataError(
            f"cannot read the data {path}: a CSV has one target column, and this bundle's targets "
            f"are {', '.join(map(str, signature.targets))}; use an .npz file"
        )
    target = _target_column(header, signature.targets[0])
    taken = {target, WEIGHT_NAME}
    features = [name for name in header if name not in taken]
    arrays = _inputs(path, header, table, features, signature.inputs)
    arrays[signature.targets[0].name] = _shaped(
        path, table[:, [header.index(target)]], signature.targets[0], target
    )
    if WEIGHT_NAME in header:
        arrays[WEIGHT_NAME] = table[:, header.index(WEIGHT_NAME)]
    return arrays


def _target_column(header: Sequence[str], spec: ArraySpec) -> str:
    for name in (spec.name, *TARGET_ALIASES):
        if name in header:
            return name
    return [name for name in header if name != WEIGHT_NAME][-1]


def _inputs(
    path: Path,
    header: Sequence[str],
    table: npt.NDArray[np.float64],
    features: Sequence[str],
    specs: Sequence[ArraySpec],
) -> dict[str, Array]:
    if len(specs) == 1:
        spec = specs[0]
        expected = math.prod(spec.shape)
        if len(features) != expected:
            raise DataError(
                f"cannot read the data {path}: it has {len(features)} feature columns, expected "
                f"{expected} for {spec}"
            )
        columns = [header.index(name) for name in features]
        return {spec.name: _shaped(path, table[:, columns], spec, spec.name)}
    known = {spec.name: spec for spec in specs}
    problems = [
        f"the input {spec} needs {math.prod(spec.shape)} columns; use an .npz file"
        for spec in specs
        if math.prod(spec.shape) != 1
    ]
    problems += [f"there is no column {name!r}" for name in known if name not in features]
    problems += [f"the column {name!r} is no input" for name in features if name not in known]
    raise_all(DataError, f"cannot read the data {path}", problems)
    return {
        name: _shaped(path, table[:, [header.index(name)]], spec, name)
        for name, spec in known.items()
    }


def _shaped(path: Path, columns: Array, spec: ArraySpec, name: str) -> Array:
    """`columns` (samples, elements) in the spec's shape; whole numbers where it has integers."""
    shaped = columns.reshape(len(columns), *spec.shape)
    if np.dtype(spec.dtype).kind not in "iu":
        return shaped
    fractional = ~(np.isfinite(columns) & (columns == np.floor(columns))).all(axis=1)
    if fractional.any():
        first = int(np.argmax(fractional))
        raise DataError(
            f"cannot read the data {path}: the column {name!r} holds {columns[first].ravel()[0]} "
            f"in sample {first}, expected whole numbers"
        )
    return shaped.astype(np.int64)


def _read_table(path: Path) -> tuple[list[str], npt.NDArray[np.float64]]:
    """Header and numbers (samples, columns)."""
    numbers = array("d")
    problems: list[str] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            header = [name.strip() for name in next(rows, [])]
            raise_all(DataError, f"cannot read the data {path}", _header_problems(header))
            for row in rows:
                if row and len(problems) < _PROBLEMS_SHOWN:
                    problems += _append_row(numbers, row, header, rows.line_num)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read the data {path}: {error}") from error
    raise_all(DataError, f"cannot read the data {path}", problems[:_PROBLEMS_SHOWN])
    return header, np.frombuffer(numbers, np.float64).reshape(-1, len(header))


def _header_problems(header: Sequence[str]) -> list[str]:
    if len(header) < 2:
        return ["it needs a header line with at least two columns"]
    twice = sorted({name for name in header if header.count(name) > 1})
    problems = [f"the header has {name!r} more than once" for name in twice]
    if all(_number(name) is not None for name in header):
        problems.append("its first line holds numbers, expected a header with the columns' names")
    return problems


def _append_row(
    numbers: array[float], row: Sequence[str], header: Sequence[str], line: int
) -> list[str]:
    if len(row) != len(header):
        return [f"line {line} has {len(row)} cells, expected {len(header)}"]
    values = [_number(cell) for cell in row]
    wrong = [
        f"line {line}, column {name!r}: {cell!r} is not a number"
        for name, cell, value in zip(header, row, values, strict=True)
        if value is None
    ]
    numbers.extend(value for value in values if value is not None)
    return wrong


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
