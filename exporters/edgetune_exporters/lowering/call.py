"""One ATen call, with its tensors already lowered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, fx

from edgetune.errors import ExportError
from edgetune_exporters.joint import module_of
from edgetune_exporters.lowering.emitter import Attributes, Emitter

_NONE: Attributes = {}

_ONNX_TYPES = {
    torch.float32: onnx.TensorProto.FLOAT,
    torch.float64: onnx.TensorProto.DOUBLE,
    torch.float16: onnx.TensorProto.FLOAT16,
    torch.int64: onnx.TensorProto.INT64,
    torch.int32: onnx.TensorProto.INT32,
    torch.int16: onnx.TensorProto.INT16,
    torch.int8: onnx.TensorProto.INT8,
    torch.uint8: onnx.TensorProto.UINT8,
    torch.bool: onnx.TensorProto.BOOL,
}


def onnx_type(dtype: torch.dtype) -> int:
    """The ONNX element type of a torch dtype. Raises ExportError for one that has none here."""
    if dtype not in _ONNX_TYPES:
        raise ExportError(f"tensors of type {dtype} cannot be exported: use float32 or integers")
    return int(_ONNX_TYPES[dtype])


@dataclass(frozen=True)
class Call:
    """What a lowering function sees: the node, the emitter, and the names of lowered tensors."""

    emitter: Emitter
    node: fx.Node
    values: Mapping[fx.Node, str | tuple[str, ...]]

    def arg(self, index: int, default: Any = None, name: str = "") -> Any:
        """The raw argument at `index`, or by keyword `name`."""
        if index < len(self.node.args):
            return self.node.args[index]
        return self.keyword(name, default) if name else default

    def keyword(self, name: str, default: Any = None) -> Any:
        """The raw keyword argument `name`."""
        return self.node.kwargs.get(name, default)

    def tensor(self, index: int) -> str:
        """The lowered name of the tensor argument at `index`."""
        return self.name_of(self.arg(index))

    def name_of(self, node: Any) -> str:
        """The lowered name of a node with one result."""
        name = self.values[node]
        assert isinstance(name, str)
        return name

    def meta(self, index: int) -> Tensor:
        """Shape and dtype of the tensor argument at `index`."""
        return meta_of(self.arg(index))

    @property
    def result(self) -> Tensor:
        """Shape and dtype of this call's (first) result."""
        return meta_of(self.node)

    def op(self, kind: str, inputs: Sequence[str], attributes: Attributes = _NONE) -> str:
        return self.emitter.op(kind, inputs, attributes)

    def scalar(self, value: float | int | bool, dtype: torch.dtype) -> str:
        """A constant of rank 0."""
        return self.emitter.constant(np.asarray(value, _numpy_type(dtype)))

    def operand(self, value: Any, dtype: torch.dtype) -> str:
        """A tensor or a Python number as a tensor of `dtype`."""
        if isinstance(value, fx.Node):
            return self.cast(self.name_of(value), meta_of(value).dtype, dtype)
        return self.scalar(value, dtype)

    def cast(self, name: str, found: torch.dtype, wanted: torch.dtype) -> str:
        """`name` as `wanted`, itself when it already is."""
        return name if found == wanted else self.op("Cast", [name], {"to": onnx_type(wanted)})

    def reshape(self, name: str, shape: Sequence[int]) -> str:
        return self.op("Reshape", [name, self.emitter.integers(shape)])

    def refuse(self, why: str) -> ExportError:
        """An error that names this operator and the module it comes from."""
        return ExportError(f"cannot export {self.node.target} from {module_of(self.node)}: {why}")


def meta_of(node: Any) -> Tensor:
    """The fake tensor that tracing left on `node` (the first, when it has several)."""
    value = node.meta["val"]
    first: Tensor = value[0] if isinstance(value, (tuple, list)) else value
    return first


def _numpy_type(dtype: torch.dtype) -> Any:
    return torch.empty(0, dtype=dtype).numpy().dtype
