"""How an operator makes only some slices of its result.

A rule answers for one operator, from shapes alone: given a share of the result, which shares of the
inputs make exactly that, and what else changes. It answers None where only the whole will do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from edgetune.nouns.candidate import Share

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Operator:
    """What a rule knows of a node.

    inputs: shapes; () for one that is left out. result: shape.
    integers: the values of the constant integer input at a position.
    """

    inputs: tuple[Shape, ...]
    result: Shape
    attributes: Mapping[str, Any]
    integers: Callable[[int], tuple[int, ...]]


@dataclass(frozen=True)
class Reading:
    """What a copy of the node must read and be to make only the share.

    shares: by position, what is read of an input; the other inputs are read whole. The indices may
        repeat. integers: by position, constant inputs that change. attributes: those that change.
    """

    shares: Mapping[int, Share]
    integers: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    attributes: Mapping[str, int] = field(default_factory=dict)


Rule = Callable[[Operator, Share], Reading | None]


def same_elements(shape: Shape, share: Share, other: Shape) -> Share | None:
    """The share of a tensor of the shape `other` with the same elements, in row-major order.

    share: of a tensor of the shape `shape`, which has as many elements. None when they are not
    slices along one axis of `other`.
    """
    before, after = prod(shape[: share.axis]), prod(shape[share.axis + 1 :])
    if not prod(shape):
        return None
    # The axes of `other` from `start` to `stop` are the fewest that contain the sliced axis whole.
    start = max(i for i in range(len(other)) if before % prod(other[:i]) == 0)
    stop = min(i for i in range(start + 1, len(other) + 1) if after % prod(other[i:]) == 0)
    middle = shape[share.axis]
    taken = np.zeros((before // prod(other[:start]), middle, after // prod(other[stop:])), bool)
    taken[:, list(share.indices)] = True
    taken = taken.reshape(other[start:stop])
    found = []
    for axis in range(taken.ndim):
        along = taken.any(tuple(other for other in range(taken.ndim) if other != axis))
        if not along.all():
            found.append((axis, along))
    if len(found) != 1 or found[0][1].mean() != taken.mean():
        return None
    axis, along = found[0]
    return Share(start + axis, tuple(np.flatnonzero(along).tolist()))


def _identity(operator: Operator, share: Share) -> Reading:
    return Reading({0: share})


def _reshape(operator: Operator, share: Share) -> Reading | None:
    source = same_elements(operator.result, share, operator.inputs[0])
    return Reading({0: source}, {1: share.shape(operator.result)}) if source else None


def _transpose(operator: Operator, share: Share) -> Reading:
    return Reading({0: Share(operator.attributes["perm"][share.axis], share.indices)})


def _slice(operator: Operator, share: Share) -> Reading | None:
    cut = [axis % len(operator.result) for axis in operator.integers(3)]
    return None if share.axis in cut else Reading({0: share})


def _pad(operator: Operator, share: Share) -> Reading | None:
    grown = operator.integers(1)[share.axis :: len(operator.result)]
    return None if any(grown) else Reading({0: share})


def _concat(operator: Operator, share: Share) -> Reading | None:
    if share.axis == operator.attributes["axis"] % len(operator.result):
        return None
    return Reading(dict.fromkeys(range(len(operator.inputs)), share))


def _reduce(operator: Operator, share: Share) -> Reading | None:
    rank = len(operator.inputs[0])
    reduced = [axis % rank for axis in operator.integers(1)]
    kept = [axis for axis in range(rank) if axis not in reduced]
    axis = share.axis if operator.attributes.get("keepdims", 1) else kept[share.axis]
    return None if axis in reduced else Reading({0: Share(axis, share.indices)})


def _elementwise(operator: Operator, share: Share) -> Reading:
    return Reading(_broadcast(operator, share, range(len(operator.inputs))))


def _broadcast(operator: Operator, share: Share, positions: Sequence[int]) -> dict[int, Share]:
    """The shares of inputs that are broadcast to the result: none of one that is repeated."""
    found = {}
    for position in positions:
        shape = operator.inputs[position]
        axis = share.axis - len(operator.result) + len(shape)
        if axis >= 0 and shape[axis] != 1:
            found[position] = Share(axis, share.indices)
    return found


def _matmul(operator: Operator, share: Share) -> Reading | None:
    left, right = operator.inputs
    rank = len(operator.result)
    if min(len(left), len(right)) < 2:
        return None
    if share.axis == rank - 1:
        return Reading({1: Share(len(right) - 1, share.indices)})
    if share.axis == rank - 2:
        return Reading({0: Share(len(left) - 2, share.indices)})
    return Reading(_broadcast(operator, share, (0, 1)))


def _gemm(operator: Operator, share: Share) -> Reading:
    position = share.axis  # rows come from the first operand, columns from the second
    turned = operator.attributes.get("transA" if position == 0 else "transB", 0)
    added = _broadcast(operator, share, range(2, len(operator.inputs)))
    return Reading({position: Share(position ^ turned, share.indices), **added})


def _convolution(operator: Operator, share: Share) -> Reading | None:
    """Samples come from the data, output channels from the kernel.

    An output channel of a grouped convolution reads the channels of its group only. Where the share
    takes unequally many channels of the groups, each of them becomes a group of its own.
    """
    if share.axis == 0:
        return Reading({0: share})
    if share.axis != 1:
        return None
    # A bias has the axis of the kernel.
    kernels = {i: Share(0, share.indices) for i in range(1, len(operator.inputs))}
    groups = operator.attributes.get("group", 1)
    if groups == 1:
        return Reading(kernels)
    per_group = operator.result[1] // groups
    read = [index // per_group for index in share.indices]
    taken = Counter(read)
    if len(set(taken.values())) == 1:
        read = list(taken)
    width = operator.inputs[1][1]
    channels = tuple(group * width + channel for group in read for channel in range(width))
    return Reading({0: Share(1, channels), **kernels}, attributes={"group": len(read)})


_ELEMENTWISE = (
    "Abs", "Add", "And", "Cast", "Clip", "Div", "Equal", "Erf", "Exp", "Greater", "GreaterOrEqual",
    "Less", "LessOrEqual", "Log", "Max", "Min", "Mul", "Neg", "Not", "Or", "Pow", "Reciprocal",
    "Relu", "Sigmoid", "Sign", "Sqrt", "Sub", "Tanh", "Where",
)  # fmt: skip

MOVEMENTS = ("Identity", "Reshape", "Transpose")
"""Operators that arrange elements anew."""

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    "Identity": _identity,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Slice": _slice,
    "Pad": _pad,
    "Concat": _concat,
    "ReduceSum": _reduce,
    "ReduceMean": _reduce,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Conv": _convolution,
}
