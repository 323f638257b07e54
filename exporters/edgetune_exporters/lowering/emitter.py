"""Collects ONNX nodes and constants; equal ones are emitted once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

Array = npt.NDArray[Any]
Attributes = Mapping[str, Any]
_NONE: Attributes = {}

OPSET = 18  # reductions take axes as inputs; onnxruntime-training accepts 18 to 21
IR_VERSION = 9  # onnxruntime 1.18 reads up to 10, onnxruntime-training up to 10

# Constants above this many elements are made by the runtime instead of stored.
_STORED_ELEMENTS = 4096


class Emitter:
    """A graph under construction. Tensors are named by strings, as in ONNX itself."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}
        self.origin = ""
        self._emitted: dict[Any, tuple[str, ...]] = {}
        self._constant_names: dict[Any, str] = {}

    def op(self, kind: str, inputs: Sequence[str], attributes: Attributes = _NONE) -> str:
        """Emit one operator with one result; returns the result's name."""
        return self.multi(kind, inputs, 1, attributes)[0]

    def multi(
        self, kind: str, inputs: Sequence[str], results: int, attributes: Attributes = _NONE
    ) -> tuple[str, ...]:
        """Emit one operator with several results.

        An equal operator emitted before is reused, which is common-subexpression elimination.
        """
        key = (kind, tuple(inputs), results, repr(sorted(attributes.items())))
        if key not in self._emitted:
            number = len(self.nodes)
            names = tuple(f"{kind}_{number}" + (f".{i}" if i else "") for i in range(results))
            node = helper.make_node(kind, inputs, names, name=names[0], **attributes)
            node.doc_string = self.origin
            self.nodes.append(node)
            self._emitted[key] = names
        return self._emitted[key]

    def constant(self, value: Array | np.generic) -> str:
        """The name of a constant tensor; large uniform ones are made by ConstantOfShape."""
        array = np.asarray(value)
        if array.size > _STORED_ELEMENTS and (array == array.flat[0]).all():
            fill = onnx.numpy_helper.from_array(array.reshape(-1)[:1])
            shape = self.integers(array.shape)
            return self.op("ConstantOfShape", [shape], {"value": fill})
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constant_names:
            name = f"constant_{len(self.constants)}"
            self._constant_names[key] = name
            self.constants[name] = array
        return self._constant_names[key]

    def integers(self, values: Sequence[int]) -> str:
        """A constant int64 vector, as shapes and axes are given."""
        return self.constant(np.asarray(list(values), np.int64))


def model_of(graph: onnx.GraphProto) -> onnx.ModelProto:
    """A model of `graph` with the opset and IR version that every target reads."""
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="edgetune",
    )
