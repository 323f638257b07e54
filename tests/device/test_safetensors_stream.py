from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgetune.files.safetensors_stream import (
    encode_header,
    parse_header,
    read_file,
    read_header,
    read_tensors,
    tensor_chunks,
)
from tests.device.step_graphs import fixed

Array = np.ndarray[Any, Any]

NAMES = (
    *("uint64", "int64", "float64", "float32", "uint32", "int32", "float16"),
    *("uint16", "int16", "int8", "uint8", "bool"),
)
ARRAYS = st.sampled_from(NAMES).flatmap(
    lambda name: hnp.arrays(name, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
)
# All but lone surrogates, which no UTF-8 file can hold.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


def encode(arrays: dict[str, Array], metadata: dict[str, str]) -> bytes:
    return b"".join([encode_header(arrays, metadata), *map(bytes, tensor_chunks(arrays))])


def opened(data: bytes) -> io.BufferedReader:
    return io.BufferedReader(io.BytesIO(data))


def decode(data: bytes) -> dict[str, Array]:
    file = opened(data)
    header = read_header(file, len(data))
    return read_tensors(file, parse_header(header)[1], len(data) - len(header))


def assert_same(found: dict[str, Array], expected: dict[str, Array]) -> None:
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        assert found[name].tobytes() == array.tobytes(), name


@fixed
@given(st.dictionaries(TEXTS, ARRAYS, max_size=5), TEXTS, TEXTS)
def test_the_bytes_are_those_of_safetensors(arrays: dict[str, Array], key: str, value: str) -> None:
    expected = safetensors.numpy.save(arrays, {key: value})
    assert encode(arrays, {key: value}) == expected
    assert_same(decode(expected), arrays)


def test_a_file_of_safetensors_own_is_read_whole(tmp_path: Path) -> None:
    arrays = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.asarray(1, np.int64)}
    safetensors.numpy.save_file(arrays, tmp_path / "file")  # without metadata
    assert_same(read_file(tmp_path / "file"), arrays)
    data = (tmp_path / "file").read_bytes()
    (tmp_path / "file").write_bytes(data[:-1])
    with pytest.raises(ValueError, match="is not where its header says"):
        read_file(tmp_path / "file")


LAYOUTS = {
    "c-order": lambda a: a,
    "fortran-order": np.asfortranarray,
    "every-other-row": lambda a: a[::2],
    "backwards": lambda a: a[:, ::-1],
    "broadcast": lambda a: np.broadcast_to(a[:1], a.shape),
    "big-endian": lambda a: a.astype(">f4"),
    "no-dimension": lambda a: a[0, 0],
    "empty": lambda a: a[:, :0],
    "not-aligned": lambda a: np.frombuffer(b"\0" + a.tobytes(), np.uint8)[1:].view(np.float32),
    "read-only": lambda a: np.frombuffer(a.tobytes(), np.float32),
    "of-several-chunks": lambda a: np.resize(a, (3, 2**19)).T,
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_values_survive_any_layout_in_memory(layout: Any) -> None:
    array = np.asarray(layout(np.arange(12, dtype=np.float32).reshape(4, 3)))
    data = encode({"a": array}, {})
    expected = np.array(array, np.float32, order="C")
    assert data.endswith(expected.tobytes())
    assert_same(decode(data), {"a": expected})


def test_contiguous_arrays_are_not_copied() -> None:
    array = np.zeros((3, 2**19), np.float32)
    chunks = [np.frombuffer(chunk, np.float32) for chunk in tensor_chunks({"a": array})]
    assert len(chunks) == 6
    assert all(np.shares_memory(chunk, array) for chunk in chunks)


def test_all_types_without_a_name_are_named() -> None:
    arrays = {"a": np.zeros(2, complex), "b": np.zeros(2), "c": np.array(["x"])}
    expected = r"safetensors has no name for the type of a \(complex128\), c \(<U1\)"
    with pytest.raises(TypeError, match=expected):
        encode_header(arrays, {})


def tensor(start: int, end: int, dtype: str = "U8", shape: Any = None) -> dict[str, Any]:
    shape = [end - start] if shape is None else shape
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


BAD = {
    "gap": ({"a": tensor(0, 2), "b": tensor(3, 8)}, "the tensor b is not where"),
    "overlap": ({"a": tensor(0, 4), "b": tensor(3, 8)}, "the tensor b is not where"),
    "not-from-the-start": ({"a": tensor(1, 8)}, "the tensor a is not where"),
    "past-the-end": ({"a": tensor(0, 9)}, "the tensor a is not where"),
    "backwards": ({"a": tensor(0, -8)}, "the tensor a is not where"),
    "left-over": ({"a": tensor(0, 7)}, "there are bytes that belong to no tensor"),
    "shape-too-small": ({"a": tensor(0, 8, shape=[7])}, "the tensor a is not where"),
    "shape-too-large": ({"a": tensor(0, 8, shape=[2**40, 2**40])}, "the tensor a is not where"),
    "shape-negative": ({"a": tensor(0, 8, shape=[-2, -4])}, "negative dimensions"),
    "unknown-type": ({"a": tensor(0, 8, "BF16")}, "BF16"),
    "no-type": ({"a": {"shape": [8], "data_offsets": [0, 8]}}, "dtype"),
    "three-offsets": ({"a": {**tensor(0, 8), "data_offsets": [0, 4, 8]}}, "unpack"),
    "not-an-object": ({"a": 8}, "subscriptable"),
}


@pytest.mark.parametrize(("described", "message"), BAD.values(), ids=BAD)
def test_a_header_that_does_not_fit_its_tensors(described: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError, KeyError), match=message):
        read_tensors(opened(bytes(8)), described, 8)
    good = {"a": tensor(0, 8)}
    assert_same(read_tensors(opened(bytes(8)), good, 8), {"a": np.zeros(8, np.uint8)})
    with pytest.raises(ValueError, match="the tensor a is cut off"):
        read_tensors(opened(bytes(7)), good, 8)


@pytest.mark.parametrize("text", [b"[]", b"3", b'"x"', b"{", b"\xff\xfe", b""])
def test_what_is_no_header(text: bytes) -> None:
    with pytest.raises(ValueError):
        parse_header(len(text).to_bytes(8, "little") + text)
    assert parse_header((2).to_bytes(8, "little") + b"{}") == ({}, {})


def test_a_length_beyond_the_file_reads_no_more_than_the_file(tmp_path: Path) -> None:
    data = b"\xff" * 8 + b"{}"
    (tmp_path / "file").write_bytes(data)
    with (tmp_path / "file").open("rb") as file:
        assert read_header(file, len(data)) == data
