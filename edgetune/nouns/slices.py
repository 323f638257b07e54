"""The trainable value of a tensor of which only a share is trained: its slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from edgetune.nouns.candidate import Share
from edgetune.nouns.loss import Array

Shares = Mapping[str, Share]
NO_SHARES: Shares = MappingProxyType({})


def take_slices(whole: Array, share: Share | None) -> Array:
    """A copy of the slices of `whole` that are trained; without a share, of all of it."""
    if share is None:
        return whole.copy()
    return np.take(whole, share.indices, share.axis)


def put_slices(whole: Array, share: Share | None, slices: Array) -> None:
    """Write `slices`, of the share's shape, over those of `whole`; without a share, over it all."""
    if share is None:
        np.copyto(whole, slices)
    else:
        rows = np.moveaxis(whole, share.axis, 0)  # a view
        rows[list(share.indices)] = np.moveaxis(slices, share.axis, 0)


def share_problems(name: str, share: Share, shape: Sequence[int]) -> list[str]:
    """What keeps `share` from being slices of the tensor `name`, which has `shape`."""
    if not 0 <= share.axis < len(shape):
        return [f"{name}: has slices along axis {share.axis}, the tensor is {list(shape)}"]
    ascending = all(a < b for a, b in zip(share.indices, share.indices[1:], strict=False))
    if not share.indices or not ascending:
        return [f"{name}: the indices of its slices are {_first(share)}, expected ascending ones"]
    size = shape[share.axis]
    return [
        f"{name}: there is no slice {index} along axis {share.axis}, expected 0 to {size - 1}"
        for index in sorted({share.indices[0], share.indices[-1]})
        if not 0 <= index < size
    ]


def describe_share(share: Share | None) -> str:
    """A share in a few words, for messages."""
    if share is None:
        return "all of it"
    return f"{len(share.indices)} slices along axis {share.axis} ({_first(share)})"


def _first(share: Share) -> str:
    shown = ", ".join(str(index) for index in share.indices[:4])
    return f"{shown}, ..." if len(share.indices) > 4 else shown or "none"
