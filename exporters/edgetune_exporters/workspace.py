"""What onnxruntime's CPU kernels allocate while they run, besides their results.

Read in onnxruntime's source (core/mlas/lib/convolve.cpp, core/providers/cpu) and checked against an
allocation counter on onnxruntime 1.32: every allocation of 66 KB or more in five gradient graphs is
one of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import onnx

Types = Mapping[str, tuple[int, tuple[int, ...]]]

# Of the threads of a device; convolutions divide their work into parts of this size.
_THREADS = 4
_PART_BYTES = 2**16
_FLOAT_BYTES = 4


def workspace_bytes(node: onnx.NodeProto, types: Types) -> int:
    """Bytes that the kernel of `node` allocates for itself; types: of every tensor."""
    if node.op_type == "Where":
        return 2 * _FLOAT_BYTES * prod(types[node.output[0]][1])
    if node.op_type == "ScatterElements":
        return 8 * prod(types[node.input[1]][1])
    if node.op_type == "ConvTranspose":
        weight, data = types[node.input[1]][1], types[node.input[0]][1]
        return _FLOAT_BYTES * weight[1] * prod(weight[2:]) * prod(data[2:])
    if node.op_type == "Conv":
        return _of_convolution(node, types)
    return 0


def _of_convolution(node: onnx.NodeProto, types: Types) -> int:
    """Columns of the input (im2col), of a whole image or of a part per thread."""
    attributes: dict[str, list[int]] = {a.name: list(a.ints) or [a.i] for a in node.attribute}
    weight, data = types[node.input[1]][1], types[node.input[0]][1]
    kernel, space = weight[2:], types[node.output[0]][1][2:]
    group = int(attributes.get("group", [1])[0])
    columns, rows, positions = prod(weight[1:]), weight[0] // group, prod(space)
    plain = set(attributes.get("strides", [1])) <= {1} and not any(attributes.get("pads", [0]))
    if plain and set(kernel) <= {1}:
        return 0
    is_row = len(kernel) == 2 and weight[1] == 1 and set(attributes.get("dilations", [1])) <= {1}
    if plain and is_row and (kernel[1] == data[3] or (kernel[0] == data[2] and kernel[1] == 1)):
        return 0
    if rows > positions:
        return _FLOAT_BYTES * columns * positions
    parts = rows * positions * columns // _PART_BYTES + 1
    return _PART_BYTES * min(_THREADS, parts)
