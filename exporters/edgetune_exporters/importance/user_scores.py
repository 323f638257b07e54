"""Scores that a user gives: a JSON file {name of a parameter: score}."""

from __future__ import annotations

import json
from collections.abc import Collection
from math import isfinite
from pathlib import Path
from typing import Any

from edgetune.errors import DataError, nearest, raise_all
from edgetune_exporters.capture import CapturedModel


def read_scores(path: Path, trainable: Collection[str], model: CapturedModel) -> dict[str, float]:
    """The scores in `path` by parameter name.

    trainable: names of the parameters that the loss depends on. Raises DataError when the file
    cannot be read, and one that lists every entry of an unknown name or without a finite number.
    """
    entries = _entries(path)
    folded = {
        f"{each.batch_norm}.{part}": f"{each.weight} and {each.bias}"
        for each in model.folded
        for part in ("weight", "bias")
    }
    problems = [] if entries else ["it holds no score"]
    for name, score in entries:
        if name in trainable:
            if not isinstance(score, float):
                problems.append(f"{name} has {score!r}, expected a number")
            elif not isfinite(score):
                problems.append(f"{name} has {score}, expected a finite number")
        elif name in model.parameters:
            problems.append(f"the loss does not depend on {name}")
        elif name in folded:
            problems.append(f"{name} became part of a convolution: score {folded[name]} instead")
        else:
            problems.append(f"the model has no parameter {name}{nearest(name, trainable)}")
    names = [name for name, _ in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    problems += [f"{name} stands there more than once" for name in twice]
    raise_all(DataError, f"cannot use the scores in {path}", problems)
    return dict(entries)


def _entries(path: Path) -> list[tuple[str, Any]]:
    """(name, value) pairs as they stand in the file, repeated names included."""
    try:
        text = path.read_text(encoding="utf-8")
        pairs = json.loads(text, object_pairs_hook=_Pairs, parse_int=float)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the scores in {path}: {error}") from error
    if not isinstance(pairs, _Pairs):
        raise DataError(f"the scores in {path} are no JSON object of names and numbers")
    return list(pairs)


class _Pairs(list[tuple[str, Any]]):
    """A JSON object before repeated names are lost."""
