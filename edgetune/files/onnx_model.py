"""Small ONNX models written by hand, for devices that have no ONNX package.

Field numbers are those of onnx.proto3, which never change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgetune.files.onnx_tensor import data_type_of, new_tensor
from edgetune.files.protobuf_wire import (
    Chunks,
    bytes_field,
    float_field,
    integer_field,
    text_field,
)
from edgetune.nouns.loss import Array

OPSET = 18  # that of the bundles' graphs
_IR_VERSION = 8  # the first with opset 18
_FLOAT, _INT, _INTS = 1, 2, 7  # AttributeProto.AttributeType

Attribute = int | float | tuple[int, ...]


@dataclass(frozen=True)
class Node:
    """One operator of ONNX's own domain; its first output is its name."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


def onnx_model(
    nodes: Sequence[Node],
    inputs: Mapping[str, Array],
    outputs: Sequence[str],
    constants: Mapping[str, Array],
) -> bytes:
    """A ModelProto of the `nodes`, in the order in which they run.

    inputs: arrays that look like those it will be fed. outputs: names of fp32 results.
    constants: by the name by which nodes read them.
    """
    graph: Chunks = []
    for node in nodes:
        graph += bytes_field(1, _node(node))
    graph += text_field(2, "graph")
    for name, array in constants.items():
        graph += bytes_field(5, new_tensor(name, array))
    for name, array in inputs.items():
        graph += bytes_field(11, _value(name, data_type_of(array), array.shape))
    for name in outputs:
        graph += bytes_field(12, _value(name, 1, None))
    model = [*integer_field(1, _IR_VERSION), *bytes_field(8, integer_field(2, OPSET))]
    return b"".join([*model, *bytes_field(7, graph)])


def _node(node: Node) -> Chunks:
    names = [*((1, name) for name in node.inputs), *((2, name) for name in node.outputs)]
    names += [(3, node.outputs[0]), (4, node.operator)]
    message = [chunk for number, name in names for chunk in text_field(number, name)]
    for name, value in node.attributes.items():
        message += bytes_field(5, _attribute(name, value))
    return message


def _attribute(name: str, value: Attribute) -> Chunks:
    message = text_field(1, name)
    if isinstance(value, float):
        return [*message, *float_field(2, value), *integer_field(20, _FLOAT)]
    if isinstance(value, int):
        return [*message, *integer_field(3, value), *integer_field(20, _INT)]
    several = [chunk for number in value for chunk in integer_field(8, number)]
    return [*message, *several, *integer_field(20, _INTS)]


def value_info(name: str, like: Array | None) -> Chunks:
    """A ValueInfoProto of an array like that one; without one, of a type left to be inferred."""
    if like is None:
        return text_field(1, name)
    return _value(name, data_type_of(like), like.shape)


def _value(name: str, data_type: int, shape: Sequence[int] | None) -> Chunks:
    """A ValueInfoProto; without a shape where onnxruntime shall infer it."""
    tensor = integer_field(1, data_type)
    if shape is not None:
        sizes = [chunk for n in shape for chunk in bytes_field(1, integer_field(1, n))]
        tensor += bytes_field(2, sizes)
    return [*text_field(1, name), *bytes_field(2, bytes_field(1, tensor))]
