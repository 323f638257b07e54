"""Operators that rearrange, cut and join tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from edgetune_exporters.lowering.call import Call, meta_of

Lowering = Callable[[Call], Any]
_END = np.iinfo(np.int64).max
_REORDERINGS = ("aten.permute.default", "aten.transpose.int", "aten.t.default")


def _reshape_to_result(call: Call) -> str:
    if call.meta(0).shape == call.result.shape:
        return call.tensor(0)
    return call.reshape(call.tensor(0), call.result.shape)


def reordering(node: Any) -> list[int] | None:
    """The order in which a node takes its argument's axes; None when it does something else."""
    operator = str(node.target)
    if operator not in _REORDERINGS:
        return None
    rank = meta_of(node).dim()
    if operator == "aten.permute.default":
        return [axis % rank for axis in node.args[1]]
    order = list(range(rank))
    first, second = node.args[1:3] if len(node.args) > 1 else (0, 1)
    if rank > 1:
        order[first], order[second] = order[second], order[first]
    return order


def reordered(call: Call, node: Any, order: Sequence[int]) -> str:
    """A node's axes in that order; what has just been reordered, and for this alone, at once.

    What comes back to where it was is that itself, whoever else reads what lies between.
    """
    earlier = reordering(node)
    if earlier is not None:
        at_once = [earlier[axis] for axis in order]
        if len(node.users) == 1 or at_once == sorted(at_once):
            return reordered(call, node.args[0], at_once)
    return transpose(call, call.name_of(node), order)


def _reordered(call: Call) -> str:
    order = reordering(call.node)
    assert order is not None
    return reordered(call, call.arg(0), order)


def transpose(call: Call, name: str, order: Sequence[int]) -> str:
    """Reorder axes; nothing is emitted when the order is already right."""
    if list(order) == list(range(len(order))):
        return name
    return call.op("Transpose", [name], {"perm": list(order)})


def _expand(call: Call) -> str:
    return expand(call, call.tensor(0), call.meta(0).shape, call.result.shape)


def expand(call: Call, name: str, found: Sequence[int], wanted: Sequence[int]) -> str:
    """Broadcast to `wanted`; nothing is emitted when the shape is already right."""
    if tuple(found) == tuple(wanted):
        return name
    return call.op("Expand", [name, call.emitter.integers(wanted)])


def _repeat(call: Call) -> str:
    times = call.arg(1)
    shape = [1] * (len(times) - call.meta(0).dim()) + list(call.meta(0).shape)
    name = call.reshape(call.tensor(0), shape)
    return call.op("Tile", [name, call.emitter.integers(times)])


def _cat(call: Call) -> str:
    parts = [node for node in call.arg(0) if meta_of(node).numel() or meta_of(node).dim() > 1]
    names = [call.operand(node, call.result.dtype) for node in parts]
    axis = call.arg(1, 0) % call.result.dim()
    return names[0] if len(names) == 1 else call.op("Concat", names, {"axis": axis})


def _stack(call: Call) -> str:
    axis = call.arg(1, 0) % call.result.dim()
    shape = list(call.result.shape)
    shape[axis] = 1
    names = [call.reshape(call.name_of(node), shape) for node in call.arg(0)]
    return call.op("Concat", names, {"axis": axis})


def cut(call: Call, name: str, axis: int, start: int, end: int, step: int = 1) -> str:
    """Slice one axis."""
    e = call.emitter
    return call.op(
        "Slice",
        [name, e.integers([start]), e.integers([end]), e.integers([axis]), e.integers([step])],
    )


def _slice(call: Call) -> str:
    axis = call.arg(1, 0) % call.meta(0).dim()
    size = call.meta(0).shape[axis]
    start, end = call.arg(2), call.arg(3)
    start = 0 if start is None else start
    end = size if end is None else min(end, size)
    if (start, end, call.arg(4, 1)) == (0, size, 1):
        return call.tensor(0)
    return cut(call, call.tensor(0), axis, start, end, call.arg(4, 1))


def _select(call: Call) -> str:
    axis = call.arg(1) % call.meta(0).dim()
    index = call.emitter.constant(np.asarray(call.arg(2) % call.meta(0).shape[axis], np.int64))
    return call.op("Gather", [call.tensor(0), index], {"axis": axis})


def _split(call: Call) -> tuple[str, ...]:
    axis = call.arg(2, 0) % call.meta(0).dim()
    size = call.meta(0).shape[axis]
    sizes = call.arg(1)
    if isinstance(sizes, int):
        sizes = [min(sizes, size - start) for start in range(0, size, sizes)]
    lengths = call.emitter.integers(sizes)
    return call.emitter.multi("Split", [call.tensor(0), lengths], len(sizes), {"axis": axis})


def _unbind(call: Call) -> tuple[str, ...]:
    axis = call.arg(1, 0) % call.meta(0).dim()
    positions = [np.asarray(i, np.int64) for i in range(call.meta(0).shape[axis])]
    return tuple(
        call.op("Gather", [call.tensor(0), call.emitter.constant(p)], {"axis": axis})
        for p in positions
    )


def _pad(call: Call) -> str:
    rank, pads = call.meta(0).dim(), list(call.arg(1))
    before, after = [0] * rank, [0] * rank
    for index in range(len(pads) // 2):
        before[rank - 1 - index], after[rank - 1 - index] = pads[2 * index : 2 * index + 2]
    name = call.tensor(0)
    for axis in range(rank):  # negative padding cuts
        if before[axis] < 0 or after[axis] < 0:
            size = call.meta(0).shape[axis]
            name = cut(call, name, axis, max(0, -before[axis]), size + min(0, after[axis]))
    grown = [max(0, p) for p in (*before, *after)]
    if not any(grown):
        return name
    dtype = call.result.dtype
    value = call.arg(2, 0)
    return call.op("Pad", [name, call.emitter.integers(grown), call.scalar(value, dtype)])


def _flip(call: Call) -> str:
    axes = [axis % call.meta(0).dim() for axis in call.arg(1)]
    e, count = call.emitter, len(axes)
    return call.op(
        "Slice",
        [
            call.tensor(0),
            e.integers([-1] * count),
            e.integers([-_END] * count),
            e.integers(axes),
            e.integers([-1] * count),
        ],
    )


def _slice_scatter(call: Call) -> str:
    """`source` written over a range of the base: the parts around it are kept."""
    axis = call.arg(2, 0) % call.meta(0).dim()
    size, start = call.meta(0).shape[axis], call.arg(3) or 0
    end = size if call.arg(4) is None else min(call.arg(4), size)
    if call.arg(5, 1) != 1:
        raise call.refuse("writing with a step")
    parts = [
        cut(call, call.tensor(0), axis, 0, start) if start > 0 else "",
        call.tensor(1),
        cut(call, call.tensor(0), axis, end, size) if end < size else "",
    ]
    names = [part for part in parts if part]
    return names[0] if len(names) == 1 else call.op("Concat", names, {"axis": axis})


def _triangle(call: Call) -> str:
    upper = "triu" in str(call.node.target)
    mask = torch.ones(call.result.shape[-2:], dtype=torch.bool)
    diagonal = call.arg(1, 0)
    kept = mask.triu(diagonal) if upper else mask.tril(diagonal)
    zero = call.scalar(0, call.result.dtype)
    return call.op("Where", [call.emitter.constant(kept.numpy()), call.tensor(0), zero])


_VIEWS = (
    "view.default", "_unsafe_view.default", "reshape.default", "unsqueeze.default",
    "squeeze.default", "squeeze.dim", "squeeze.dims", "flatten.using_ints",
)  # fmt: skip

LOWERINGS: dict[str, Lowering] = {
    **{f"aten.{name}": _reshape_to_result for name in _VIEWS},
    **dict.fromkeys(_REORDERINGS, _reordered),
    "aten.expand.default": _expand,
    "aten.repeat.default": _repeat,
    "aten.cat.default": _cat,
    "aten.stack.default": _stack,
    "aten.slice.Tensor": _slice,
    "aten.select.int": _select,
    "aten.split.Tensor": _split,
    "aten.split_with_sizes.default": _split,
    "aten.unbind.int": _unbind,
    "aten.constant_pad_nd.default": _pad,
    "aten.flip.default": _flip,
    "aten.slice_scatter.default": _slice_scatter,
    "aten.triu.default": _triangle,
    "aten.tril.default": _triangle,
}
