"""Signatures, losses and arrays that the tests of data share."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgetune.nouns.loss import LossSpec
from edgetune.nouns.signature import ArraySpec, Signature

LABELS = LossSpec("cross_entropy", 3, ignore_index=-100)
NUMBERS = LossSpec("mean_squared_error")


LABEL = ArraySpec("label", "int64", ())


def signature(*inputs: ArraySpec, target: ArraySpec = LABEL) -> Signature:
    return Signature(inputs or (ArraySpec("image", "float32", (2, 3)),), (target,), ())


ONE = signature()
TWO = signature(ArraySpec("tokens", "int64", (4,)), ArraySpec("mask", "float32", (4,)))
TABLE = signature(ArraySpec("features", "float32", (2,)))


def good(samples: int = 5) -> dict[str, Any]:
    x = np.arange(samples * 6, dtype=np.float32).reshape(samples, 2, 3)
    return {"image": x, "label": np.arange(samples) % 3}
