"""A user's .onnx inference model as the forward graph that ONNX Runtime training takes.

The file's initializers keep their names, so what is trainable is named as in the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx
from onnx import helper, version_converter

from edgetune.errors import ExportError, nearest, raise_all
from edgetune.nouns.loss import LossSpec
from edgetune_exporters.onnx_loss import attach_loss
from edgetune_exporters.ort_training_checks import OPSETS, opset_of
from edgetune_exporters.ort_training_rewrites import prepare_for_ort

Array = npt.NDArray[Any]


def onnx_forward(
    path: Path, loss: LossSpec, inputs: Mapping[str, Array], output: str | None = None
) -> onnx.ModelProto:
    """The inference model at `path` with `loss` attached to its `output`, for a fixed micro-batch.

    inputs: a sample micro-batch by the file's input names; its shapes become those of the graph.
    output: name of the output that the loss reads, the first when None.
    Raises ExportError when the file cannot be read, converted or given these shapes.
    """
    model = prepare_for_ort(_convert_opset(_read(path), path))
    _fix_shapes(model, inputs, path)
    # Fixed shapes let more be repaired (padding, normalisations), so once more after that.
    return attach_loss(prepare_for_ort(model), loss, output)


def _read(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:
        raise ExportError(f"cannot read {path} as an ONNX model: {error}") from error
    return model


def _convert_opset(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    opset = opset_of(model)
    if opset in OPSETS:
        return model
    target = OPSETS[0] if opset < OPSETS[0] else OPSETS[-1]
    names = {tensor.name for tensor in model.graph.initializer}
    try:
        converted = version_converter.convert_version(model, target)
    except Exception as error:
        raise ExportError(
            f"{path} has opset {opset} and cannot be converted to {target}: {error}; export it "
            f"again with opset {OPSETS[0]}"
        ) from error
    lost = sorted(names - {tensor.name for tensor in converted.graph.initializer})
    problems = [f"the initializer {name!r} lost its name" for name in lost]
    raise_all(ExportError, f"converting {path} from opset {opset} to {target}", problems)
    return converted


def _fix_shapes(model: onnx.ModelProto, inputs: Mapping[str, Array], path: Path) -> None:
    """Give the graph's inputs the shapes of the sample and infer all others."""
    problems = []
    expected = {value.name: value for value in model.graph.input}
    for name in inputs:
        if name not in expected:
            problems.append(f"the model has no input {name!r}{nearest(name, expected)}")
    for name, value in expected.items():
        if name not in inputs:
            problems.append(f"the sample lacks the input {name!r}{nearest(name, inputs)}")
        else:
            problems += _fix_shape(value, inputs[name])
    raise_all(ExportError, f"the sample does not fit {path}", problems)
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    try:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except Exception as error:
        raise ExportError(f"{path} cannot take inputs of the sample's shape: {error}") from error
    model.CopyFrom(inferred)


def _fix_shape(value: onnx.ValueInfoProto, array: Array) -> list[str]:
    kind = value.type.tensor_type
    dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
    dims = kind.shape.dim
    fixed = [d.dim_value if d.HasField("dim_value") else None for d in dims]
    fits = not kind.HasField("shape") or (
        len(dims) == array.ndim
        and all(dim in (None, size) for dim, size in zip(fixed, array.shape, strict=True))
    )
    if array.dtype != dtype or not fits:
        wanted = ", ".join("any" if dim is None else str(dim) for dim in fixed)
        return [
            f"the input {value.name!r} is {array.dtype}{list(array.shape)}: the model takes "
            f"{dtype}[{wanted}]; pass that, or export it with a batch dimension that is not fixed"
        ]
    value.CopyFrom(helper.make_tensor_value_info(value.name, kind.elem_type, array.shape))
    return []
