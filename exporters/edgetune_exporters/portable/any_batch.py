"""The inference graph for any batch size, from two lowerings at fixed ones.

Shapes in a lowered graph are constants. Where two batch sizes give the same operators and differ in
nothing but the batch within such shapes, those are computed from the input instead; otherwise the
graph keeps its fixed batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

Shape = npt.NDArray[np.int64]

# Primes, so that no other dimension is mistaken for the batch.
BATCHES = (5, 7)

_BATCH, _RANGE = "batch", "batch.range"
# Where each operator takes the shape of its result.
_SHAPE_INPUT = {"Reshape": 1, "Expand": 1, "ConstantOfShape": 0}


def for_any_batch(
    first: onnx.ModelProto, second: onnx.ModelProto, varying: Sequence[str]
) -> onnx.ModelProto | None:
    """`first` with an open batch dimension, None when it cannot be opened.

    first, second: the same graph lowered for the two BATCHES. varying: the graph inputs and outputs
    whose first dimension is the batch.
    """
    if len(first.graph.node) != len(second.graph.node):
        return None
    constants, others = _constants(first), _constants(second)
    result = onnx.ModelProto()
    result.CopyFrom(first)
    computed: list[onnx.NodeProto] = []
    for node, other in zip(result.graph.node, second.graph.node, strict=True):
        if node.op_type != other.op_type or list(node.attribute) != list(other.attribute):
            return None
        for position, (name, other_name) in enumerate(zip(node.input, other.input, strict=True)):
            found, wanted = constants.get(name), others.get(other_name)
            if found is None or wanted is None or np.array_equal(found, wanted):
                continue
            if position == _SHAPE_INPUT.get(node.op_type) and _scales(found, wanted):
                node.input[position] = _open_shape(result.graph, node, found, wanted, computed)
            elif _is_same_fill(found, wanted):
                fill = f"{node.name}.{position}"
                node.input[position] = _open_fill(result.graph, fill, found, wanted, computed)
            elif np.array_equal(found, np.arange(BATCHES[0])) and len(wanted) == BATCHES[1]:
                node.input[position] = _RANGE
            else:
                return None
    data = next(info.name for info in result.graph.input if info.name in varying)
    nodes = [*_batch_nodes(result.graph, data), *computed, *result.graph.node]
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    for info in (*result.graph.input, *result.graph.output):
        if info.name in varying:
            info.type.tensor_type.shape.dim[0].dim_param = _BATCH
    return result


def _constants(model: onnx.ModelProto) -> dict[str, npt.NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def _scales(found: Shape, other: Shape) -> bool:
    """Whether entries differ only as whole multiples of the batch do."""
    batch, other_batch = BATCHES
    if found.shape != other.shape:
        return False
    changed = found != other
    return bool((found[changed] * other_batch == other[changed] * batch).all())


def _is_same_fill(found: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    """Whether both hold one same value throughout, in shapes that differ as the batch does."""
    values = np.unique(np.concatenate([found.reshape(-1), other.reshape(-1)]))
    return len(values) == 1 and _scales(np.array(found.shape), np.array(other.shape))


def _open_shape(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    found: Shape,
    other: Shape,
    computed: list[onnx.NodeProto],
) -> str:
    """The name of a shape that follows the batch; one open entry of a Reshape is just -1."""
    changed, name = found != other, f"{node.name}.shape"
    if node.op_type == "Reshape" and changed.sum() == 1:
        graph.initializer.append(numpy_helper.from_array(np.where(changed, -1, found), name))
        return name
    return _computed_shape(graph, name, found, other, computed)


def _computed_shape(
    graph: onnx.GraphProto, name: str, found: Shape, other: Shape, computed: list[onnx.NodeProto]
) -> str:
    """`base + batch * times`, entry by entry."""
    changed = found != other
    base, times = np.where(changed, 0, found), np.where(changed, found // BATCHES[0], 0)
    graph.initializer.append(numpy_helper.from_array(base, f"{name}.base"))
    graph.initializer.append(numpy_helper.from_array(times, f"{name}.times"))
    scaled = f"{name}.scaled"
    computed.append(helper.make_node("Mul", [_BATCH, f"{name}.times"], [scaled], name=scaled))
    computed.append(helper.make_node("Add", [f"{name}.base", scaled], [name], name=name))
    return name


def _open_fill(
    graph: onnx.GraphProto,
    name: str,
    found: npt.NDArray[Any],
    other: npt.NDArray[Any],
    computed: list[onnx.NodeProto],
) -> str:
    """A tensor of one value whose shape follows the batch."""
    shapes = (np.array(found.shape), np.array(other.shape))
    shape = _computed_shape(graph, f"{name}.shape", *shapes, computed)
    value = numpy_helper.from_array(found.reshape(-1)[:1])
    fill = f"{name}.fill"
    computed.append(helper.make_node("ConstantOfShape", [shape], [fill], name=fill, value=value))
    return fill


def _batch_nodes(graph: onnx.GraphProto, data: str) -> list[onnx.NodeProto]:
    """The batch size, a scalar, from the first dimension of the input `data`; and its range."""
    zero, one, shape = f"{_BATCH}.zero", f"{_BATCH}.one", f"{_BATCH}.shape"
    for name, value in ((zero, 0), (one, 1)):
        graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.int64), name))
    return [
        helper.make_node("Shape", [data], [shape], name=shape),
        helper.make_node("Gather", [shape, zero], [_BATCH], name=_BATCH),
        helper.make_node("Range", [zero, _BATCH, one], [_RANGE], name=_RANGE),
    ]
