"""What of a graph can compute in 8 bits.

Products of data with a weight, and lookups in a table: their weights are most of the bytes, and the
products most of the time. A convolution also hands its result on in 8 bits, through sums, clipping
and pooling. The result of a matrix product stays in fp32, because what follows it does (a
normalization, a softmax, a residual stream) and is sensitive to rounding.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from math import prod

import onnx

# Tables below this many elements are not worth it.
_TABLE_ELEMENTS = 2**14


def int8_products(graph: onnx.GraphProto) -> set[str]:
    """Names of the nodes that read an initializer as a weight, and can read it in 8 bits."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    return {node.name for node in graph.node if _can_read_int8(node, shapes)}


def _can_read_int8(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> bool:
    if node.op_type == "Gather":
        table = shapes.get(node.input[0], ())
        return len(table) == 2 and prod(table) >= _TABLE_ELEMENTS and not node.attribute
    if node.op_type not in ("Conv", "Gemm", "MatMul") or node.input[0] in shapes:
        return False
    if any(name not in shapes for name in node.input[1:]):
        return False
    if node.op_type == "Conv":
        return True
    numbers = {a.name: a.f if a.type == onnx.AttributeProto.FLOAT else a.i for a in node.attribute}
    plain = not numbers.get("transA") and {numbers.get(n, 1.0) for n in ("alpha", "beta")} == {1.0}
    return plain and len(shapes[node.input[1]]) == 2


def int8_results(nodes: Iterable[onnx.NodeProto], products: Collection[str]) -> set[str]:
    """The tensors that are handed on in 8 bits; products: the nodes that compute in 8 bits."""
    found: set[str] = set()
    for node in nodes:
        data = node.input if node.op_type == "Add" else node.input[:1]
        follows = node.op_type in ("Add", "Clip", "Relu", "MaxPool") and len(node.output) == 1
        if (node.op_type == "Conv" and node.name in products) or (
            follows and all(name in found for name in data)
        ):
            found.add(node.output[0])
    return found
