"""The editor of edgetune.files.onnx_weights against the onnx package."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper

from edgetune.errors import BundleError
from edgetune.files import onnx_tensor, onnx_weights
from edgetune.files.onnx_weights import initializer_names, read_initializers, with_initializers
from edgetune.files.protobuf_wire import read_fields

Arrays = dict[str, npt.NDArray[Any]]

DTYPES = [dtype.newbyteorder("=") for dtype in onnx_tensor.DTYPES.values()]
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=12)
ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0))
)
WEIGHTS = st.dictionaries(NAMES, ARRAYS, max_size=5)
STORAGES = st.sampled_from(["raw", "typed", "external"])


def as_proto(name: str, array: npt.NDArray[Any], storage: str, folder: Path) -> TensorProto:
    proto = numpy_helper.from_array(array, name)
    if storage == "typed":
        return helper.make_tensor(name, proto.data_type, array.shape, array.flatten())
    if storage == "external":
        location = f"{len(list(folder.iterdir()))}.bin"
        (folder / location).write_bytes(b"offset" + proto.raw_data)
        size = len(proto.raw_data)
        onnx.external_data_helper.set_external_data(proto, location, offset=6, length=size)
        proto.ClearField("raw_data")
    return proto


def make_model(inputs: Arrays, initializers: list[TensorProto]) -> onnx.ModelProto:
    """A sound model: its nodes pass every input and initializer on to an output."""
    infos = {name: numpy_helper.from_array(array).data_type for name, array in inputs.items()}
    shapes = {name: array.shape for name, array in inputs.items()}
    infos |= {tensor.name: tensor.data_type for tensor in initializers}
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in initializers}
    graph = helper.make_graph(
        [helper.make_node("Identity", [name], [f"{name}'"]) for name in infos],
        "graph",
        [helper.make_tensor_value_info(name, infos[name], shapes[name]) for name in inputs],
        [helper.make_tensor_value_info(f"{name}'", infos[name], shapes[name]) for name in infos],
        initializers,
        doc_string="kept",
    )
    opset = helper.make_opsetid("", 18)
    return helper.make_model(graph, ir_version=8, opset_imports=[opset], producer_name="test")


def as_arrays(model: bytes) -> Arrays:
    graph = onnx.load_from_string(model).graph
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def assert_same(found: Arrays, expected: Arrays) -> None:
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()


def has_quiet_primes(weights: Arrays) -> bool:
    return not any(f"{name}'" in weights for name in weights)


@settings(max_examples=150, deadline=None)
@given(weights=WEIGHTS.filter(has_quiet_primes), data=st.data())
def test_any_model_is_read_and_written_as_the_package_does(weights: Arrays, data: Any) -> None:
    storages = {name: data.draw(STORAGES | st.just("input")) for name in weights}
    inputs = {name: array for name, array in weights.items() if storages[name] == "input"}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        protos = [
            as_proto(name, array, storages[name], folder)
            for name, array in weights.items()
            if name not in inputs
        ]
        proto = make_model(inputs, protos)
        model = proto.SerializeToString()
        stored = {name: array for name, array in weights.items() if name not in inputs}
        assert initializer_names(model) == tuple(stored)
        assert_same(read_initializers(model, folder), stored)
        result = with_initializers(model, inputs, folder)
    assert_same(as_arrays(result), weights)
    onnx.checker.check_model(result, full_check=True)
    assert initializer_names(result) == (*stored, *inputs)
    written = onnx.load_from_string(result)
    assert not written.graph.input
    # What is not touched is as it was: with the weights gone both are the same message.
    for message in (proto, written):
        message.graph.ClearField("input")
        message.graph.ClearField("initializer")
    assert written == proto


@settings(max_examples=100, deadline=None)
@given(weights=WEIGHTS.filter(has_quiet_primes))
def test_fields_put_together_are_the_message(weights: Arrays) -> None:
    protos = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    model = make_model({}, protos).SerializeToString()
    fields = list(read_fields(memoryview(model)))
    assert b"".join(field.whole for field in fields) == model
    known = onnx.ModelProto.DESCRIPTOR.fields_by_number
    present = {field.number for field, _ in onnx.load_from_string(model).ListFields()}
    assert {field.number for field in fields} == present <= set(known)


SOUND = make_model(
    {"x": np.zeros((2, 3), np.float32)},
    [
        numpy_helper.from_array(np.arange(4, dtype=np.float32), "raw"),
        helper.make_tensor("typed", TensorProto.INT64, [3], [1, -2, 300]),
        helper.make_tensor("bits", TensorProto.BOOL, [2], [True, False]),
    ],
).SerializeToString()


@settings(max_examples=600, deadline=None)
@given(st.integers(0, len(SOUND) - 1), st.integers(0, 255), st.integers(0, len(SOUND)))
def test_a_damaged_model_is_an_error_of_ours_or_a_model(position: int, byte: int, end: int) -> None:
    damaged = (SOUND[:position] + bytes([byte]) + SOUND[position + 1 :])[: max(end, position + 1)]
    folder = Path("there is no such folder")
    try:
        arrays = read_initializers(damaged, folder)
        result = with_initializers(damaged, {}, folder)
    except BundleError:
        return
    assert result == damaged
    assert set(arrays) == set(initializer_names(damaged))


def test_field_numbers_are_those_of_the_package() -> None:
    def number(message: Any, field: str) -> int:
        return int(message.DESCRIPTOR.fields_by_name[field].number)

    fields = {
        "_DIMS": "dims",
        "_DATA_TYPE": "data_type",
        "_NAME": "name",
        "_RAW_DATA": "raw_data",
        "_FLOAT_DATA": "float_data",
        "_INT32_DATA": "int32_data",
        "_INT64_DATA": "int64_data",
        "_DOUBLE_DATA": "double_data",
        "_UINT64_DATA": "uint64_data",
        "_STRING_DATA": "string_data",
        "_EXTERNAL_DATA": "external_data",
        "_DATA_LOCATION": "data_location",
    }
    for constant, field in fields.items():
        assert getattr(onnx_tensor, constant) == number(TensorProto, field), field
    assert {TensorProto.DataType.Name(key) for key in onnx_tensor.DTYPES} == {
        *("FLOAT", "UINT8", "INT8", "UINT16", "INT16", "INT32", "INT64", "BOOL", "FLOAT16"),
        *("DOUBLE", "UINT32", "UINT64", "COMPLEX64", "COMPLEX128"),
    }
    for key, dtype in onnx_tensor.DTYPES.items():
        assert helper.tensor_dtype_to_np_dtype(key) == dtype


def test_every_field_that_can_hold_a_tensor_is_searched() -> None:
    messages = {
        "model": onnx.ModelProto,
        "training": onnx.TrainingInfoProto,
        "function": onnx.FunctionProto,
        "graph": onnx.GraphProto,
        "node": onnx.NodeProto,
        "attribute": onnx.AttributeProto,
        "sparse tensor": onnx.SparseTensorProto,
        "tensor": onnx.TensorProto,
    }
    kinds = {message.DESCRIPTOR.full_name: kind for kind, message in messages.items()}
    for holder, fields in onnx_weights._HOLDERS.items():
        expected = {
            field.number: kinds[field.message_type.full_name]
            for field in messages[holder].DESCRIPTOR.fields
            if field.message_type is not None and field.message_type.full_name in kinds
        }
        assert fields == expected, holder


def test_a_model_in_the_old_style_stays_sound() -> None:
    array = np.ones((2, 2), np.float32)
    proto = make_model({"w": array}, [])
    proto.graph.initializer.append(numpy_helper.from_array(array, "w"))
    proto.ir_version = 3
    result = with_initializers(proto.SerializeToString(), {"w": array * 2}, Path())
    onnx.checker.check_model(result)
    np.testing.assert_array_equal(as_arrays(result)["w"], array * 2)


@pytest.mark.parametrize(
    "data_type", [TensorProto.BFLOAT16, TensorProto.INT4, TensorProto.FLOAT8E5M2]
)
def test_types_that_numpy_lacks_pass_through(data_type: int) -> None:
    tensor = helper.make_tensor("t", data_type, [2], [1, 2])
    model = make_model({}, [tensor]).SerializeToString()
    assert with_initializers(model, {}, Path()) == model
    with pytest.raises(BundleError, match=f"t: element type {data_type} has no numpy equivalent"):
        read_initializers(model, Path())
