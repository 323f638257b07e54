"""Operators that read and write by index."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import fx

from edgetune_exporters.lowering.call import Call, meta_of
from edgetune_exporters.lowering.shapes import expand, transpose

Lowering = Callable[[Call], Any]

_ZEROS = (torch.ops.aten.zeros.default, torch.ops.aten.zeros_like.default)
_FULL = (torch.ops.aten.full.default, torch.ops.aten.full_like.default)


def _embedding(call: Call) -> str:
    return call.op("Gather", [call.tensor(0), call.tensor(1)])


def _index_select(call: Call) -> str:
    axis = call.arg(1) % call.meta(0).dim()
    return call.op("Gather", [call.tensor(0), call.tensor(2)], {"axis": axis})


def _gather(call: Call) -> str:
    axis = call.arg(1) % call.meta(0).dim()
    return call.op("GatherElements", [call.tensor(0), call.tensor(2)], {"axis": axis})


def _indices(call: Call, indices: Sequence[fx.Node | None]) -> tuple[list[int], list[fx.Node]]:
    """(axes, index tensors); refuses boolean masks, whose result has no fixed shape."""
    axes = [axis for axis, index in enumerate(indices) if index is not None]
    tensors = [index for index in indices if index is not None]
    if any(meta_of(index).dtype == torch.bool for index in tensors):
        raise call.refuse("indexing with a boolean mask: its result has no fixed shape")
    if axes != list(range(axes[0], axes[0] + len(axes))):
        raise call.refuse("index tensors on axes that are not next to each other")
    return axes, tensors


def _coordinates(call: Call, tensors: Sequence[fx.Node]) -> tuple[str, list[int]]:
    """Index tensors broadcast and stacked on a last axis, and their common shape."""
    shape = list(np.broadcast_shapes(*[tuple(meta_of(index).shape) for index in tensors]))
    columns = []
    for index in tensors:
        name = expand(call, call.operand(index, torch.int64), meta_of(index).shape, shape)
        columns.append(call.reshape(name, [*shape, 1]))
    joined = columns[0] if len(columns) == 1 else call.op("Concat", columns, {"axis": len(shape)})
    return joined, shape


def _index(call: Call) -> str:
    axes, tensors = _indices(call, call.arg(1))
    if len(tensors) == 1:
        return call.op("Gather", [call.tensor(0), call.name_of(tensors[0])], {"axis": axes[0]})
    if axes[0] != 0:
        raise call.refuse("several index tensors behind an axis that is taken whole")
    coordinates, _ = _coordinates(call, tensors)
    return call.op("GatherND", [call.tensor(0), coordinates])


def _index_put(call: Call) -> str:
    axes, tensors = _indices(call, call.arg(1))
    rank, first, count = call.meta(0).dim(), axes[0], len(axes)
    if first != 0 and count > 1:
        raise call.refuse("several index tensors behind an axis that is taken whole")
    front = [*axes, *[axis for axis in range(rank) if axis not in axes]]
    base = transpose(call, call.tensor(0), front)
    coordinates, shape = _coordinates(call, tensors)
    rest = [call.meta(0).shape[axis] for axis in front[count:]]
    found = list(call.meta(2).shape)
    values = call.tensor(2)
    if first != 0 and len(found) > 1:  # (before, index, after) -> (index, before, after)
        found = [1] * (first + len(shape) + rank - first - 1 - len(found)) + found
        values = call.reshape(values, found)
        at = list(range(first, first + len(shape)))
        order = [*at, *[axis for axis in range(len(found)) if axis not in at]]
        values = transpose(call, values, order)
        found = [found[axis] for axis in order]
    values = expand(call, values, found, [*shape, *rest])
    if call.arg(3, False):
        sizes = [call.meta(0).shape[axis] for axis in axes]
        places = _place_numbers(call, coordinates, sizes, prod(shape))
        values = _summed_by_place(call, places, values, shape, rest)
        if not _is_zero(call.arg(0)):
            values = call.op("Add", [call.op("GatherND", [base, coordinates]), values])
    result = call.op("ScatterND", [base, coordinates, values])
    return transpose(call, result, [int(axis) for axis in np.argsort(front)])


def _place_numbers(call: Call, coordinates: str, sizes: Sequence[int], count: int) -> str:
    """One number per index tuple: equal where the tuples, negative ones too, are."""
    strides = [prod(sizes[axis + 1 :]) for axis in range(len(sizes))]
    places = call.op("Mod", [coordinates, call.emitter.integers(sizes)])
    if len(sizes) > 1:
        places = call.op("Mul", [places, call.emitter.integers(strides)])
        axes = call.emitter.integers([-1])
        places = call.op("ReduceSum", [places, axes], {"keepdims": 0})
    return call.reshape(places, [count])


def _summed_by_place(
    call: Call, places: str, values: str, shape: Sequence[int], rest: Sequence[int]
) -> str:
    """At every position of `shape` the sum of all `values` that go to the same place as its own.

    So it does not matter which of them is written there last. ScatterND could add them up itself,
    but onnxruntime does so on several threads without a lock: where indices repeat, as token ids
    do, terms are lost now and then (onnxruntime's issues 18048 and 23396; seen with 1.32).
    """
    count, dtype = prod(shape), call.result.dtype
    columns, rows = (call.reshape(places, size) for size in ([count, 1], [1, count]))
    same = call.cast(call.op("Equal", [columns, rows]), torch.bool, dtype)
    flat = call.reshape(values, [count, prod(rest)])
    return call.reshape(call.op("MatMul", [same, flat]), [*shape, *rest])


def _is_zero(base: fx.Node) -> bool:
    return base.target in _ZEROS or (base.target in _FULL and bool(base.args[1] == 0))


def _scatter(reduction: str | None) -> Lowering:
    def lower(call: Call) -> str:
        axis = call.arg(1) % call.meta(0).dim()
        source, index = call.arg(3), call.meta(2)
        if isinstance(source, fx.Node):
            updates = call.name_of(source)
        else:
            scalar = call.scalar(source, call.result.dtype)
            updates = expand(call, scalar, [], index.shape)
        attributes: dict[str, Any] = {"axis": axis}
        if reduction:
            attributes["reduction"] = reduction
        return call.op("ScatterElements", [call.tensor(0), call.tensor(2), updates], attributes)

    return lower


def _select_scatter(call: Call) -> str:
    axis = call.arg(2) % call.meta(0).dim()
    shape = list(call.meta(0).shape)
    position = np.full([*shape[:axis], 1, *shape[axis + 1 :]], call.arg(3) % shape[axis], np.int64)
    updates = call.reshape(call.tensor(1), position.shape)
    index = call.emitter.constant(position)
    return call.op("ScatterElements", [call.tensor(0), index, updates], {"axis": axis})


def _topk(call: Call) -> tuple[str, ...]:
    axis = call.arg(2, -1) % call.meta(0).dim()
    attributes = {"axis": axis, "largest": int(call.arg(3, True)), "sorted": int(call.arg(4, True))}
    count = call.emitter.integers([call.arg(1)])
    return call.emitter.multi("TopK", [call.tensor(0), count], 2, attributes)


LOWERINGS: dict[str, Lowering] = {
    "aten.embedding.default": _embedding,
    "aten.index_select.default": _index_select,
    "aten.gather.default": _gather,
    "aten.index.Tensor": _index,
    "aten.index_put.default": _index_put,
    "aten._unsafe_index.Tensor": _index,
    "aten._unsafe_index_put.default": _index_put,
    "aten.scatter.src": _scatter(None),
    "aten.scatter.value": _scatter(None),
    "aten.scatter_add.default": _scatter("add"),
    "aten.select_scatter.default": _select_scatter,
    "aten.topk.default": _topk,
}
