"""Operators that read and write by index."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from edgetune_exporters.lowering.call import Call, meta_of
from edgetune_exporters.lowering.shapes import expand, transpose

Lowering = Callable[[Call], Any]


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
        sizes = [call.meta(0).shape[axis] for axis in front]
        result = _sum_by_row(call, base, sizes, coordinates, [*shape, *rest], values, count)
    else:
        result = call.op("ScatterND", [base, coordinates, values])
    return transpose(call, result, [int(axis) for axis in np.argsort(front)])


def _sum_by_row(
    call: Call,
    base: str,
    sizes: Sequence[int],
    coordinates: str,
    found: Sequence[int],
    values: str,
    count: int,
) -> str:
    """Add `values`, of shape `found`, to the rows of `base` that `coordinates` name.

    count: how many leading axes of `base`, of shape `sizes`, name a row. By ScatterElements, which
    onnxruntime runs on one thread: its ScatterND adds to one row from several threads at once and
    loses terms now and then (its issues 18048 and 23396).
    """
    rows, width = math.prod(sizes[:count]), math.prod(sizes[count:])
    positions = math.prod(found) // max(width, 1)
    strides = [math.prod(sizes[axis + 1 : count]) for axis in range(count)]
    flat = call.reshape(coordinates, [positions, count])
    if count > 1:
        positive = call.op("Mod", [flat, call.emitter.integers(sizes[:count])])
        weighted = call.op("Mul", [positive, call.emitter.integers(strides)])
        axes = call.emitter.integers([1])
        flat = call.op("ReduceSum", [weighted, axes], {"keepdims": 1})
    index = call.op("Expand", [flat, call.emitter.integers([positions, width])])
    is_matrix = list(sizes) == [rows, width]
    matrix = base if is_matrix else call.reshape(base, [rows, width])
    inputs = [matrix, index, call.reshape(values, [positions, width])]
    total = call.op("ScatterElements", inputs, {"axis": 0, "reduction": "add"})
    return total if is_matrix else call.reshape(total, sizes)


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
