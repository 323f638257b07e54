"""Safetensors files tensor by tensor, so that memory never holds a second copy of what is in them.

Layout (https://github.com/huggingface/safetensors): 8 bytes with the length of the header,
little-endian; the header, JSON padded with spaces to a multiple of 8 bytes; the tensors' bytes,
little-endian, in the header's order and without gaps. The tensors are in the order that safetensors
0.8 gives them, and every byte is the one that it would write.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from edgetune.nouns.loss import Array

CHUNK_BYTES = 2**20
_ALIGNMENT = 8
_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit

# In the order of the file.
_NAMES: dict[np.dtype[Any], str] = {
    np.dtype("uint64"): "U64",
    np.dtype("int64"): "I64",
    np.dtype("float64"): "F64",
    np.dtype("complex64"): "C64",
    np.dtype("float32"): "F32",
    np.dtype("uint32"): "U32",
    np.dtype("int32"): "I32",
    np.dtype("float16"): "F16",
    np.dtype("uint16"): "U16",
    np.dtype("int16"): "I16",
    np.dtype("int8"): "I8",
    np.dtype("uint8"): "U8",
    np.dtype("bool"): "BOOL",
}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}


def encode_header(arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    """What comes before the tensors' bytes. Raises TypeError for a type that has no name there."""
    described: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, array in _in_order(arrays):
        start, end = end, end + array.nbytes
        described[name] = {
            "dtype": _NAMES[_native(array)],
            "shape": array.shape,
            "data_offsets": [start, end],
        }
    encoded = json.dumps(described, ensure_ascii=False, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % _ALIGNMENT)
    return len(encoded).to_bytes(_LENGTH_BYTES, "little") + encoded


def tensor_chunks(arrays: Mapping[str, Array]) -> Iterator[memoryview]:
    """The tensors' bytes in the order of the file, at most CHUNK_BYTES at a time.

    Each is valid until the next is asked for. Only arrays that are strided, or not little-endian,
    are copied, a chunk at a time.
    """
    for _, array in _in_order(arrays):
        chunks = np.nditer(
            array,
            flags=["buffered", "external_loop", "zerosize_ok"],
            op_dtypes=[array.dtype.newbyteorder("<")],
            order="C",
            casting="equiv",
            buffersize=CHUNK_BYTES // array.itemsize,
        )
        for chunk in chunks:
            yield np.ascontiguousarray(chunk).data


def write_tensors(file: BinaryIO, arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
    """Write the whole of a file. Raises what `encode_header` does."""
    file.write(encode_header(arrays, metadata))
    for chunk in tensor_chunks(arrays):
        file.write(chunk)


def read_header(file: BufferedReader, size_bytes: int) -> bytes:
    """The start of a file of `size_bytes`: length and header, as far as they are there."""
    length = file.read(_LENGTH_BYTES)
    following = min(int.from_bytes(length, "little"), size_bytes, _MAX_HEADER_BYTES)
    return length + file.read(following)


def parse_header(header: bytes) -> tuple[dict[str, str], dict[str, Any]]:
    """Metadata, and the description of every tensor. Raises ValueError."""
    described = json.loads(header[_LENGTH_BYTES:])
    if not isinstance(described, dict):
        raise ValueError("the header is no JSON object")
    metadata = described.pop("__metadata__", {})
    return metadata, described


def read_tensors(
    file: BufferedReader, described: Mapping[str, Any], size_bytes: int
) -> dict[str, Array]:
    """The `size_bytes` of tensors that are next in `file`, each read into an array of its own.

    Raises ValueError, TypeError or KeyError when they are not what `described` says.
    """
    arrays: dict[str, Array] = {}
    position = 0
    for name, tensor in described.items():
        dtype, (start, end) = _DTYPES[tensor["dtype"]], tensor["data_offsets"]
        fits = end - start == math.prod(tensor["shape"]) * dtype.itemsize
        if start != position or not start <= end <= size_bytes or not fits:
            raise ValueError(f"the tensor {name} is not where its header says")
        array: Array = np.empty(tensor["shape"], dtype)
        if file.readinto(array.data) != array.nbytes:
            raise ValueError(f"the tensor {name} is cut off")
        arrays[name], position = array, end
    if position != size_bytes:
        raise ValueError("there are bytes that belong to no tensor")
    return arrays


def read_file(path: Path) -> dict[str, Array]:
    """The tensors of the file at `path`, without a second copy of any. Raises as `read_tensors`."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        header = read_header(file, size)
        return read_tensors(file, parse_header(header)[1], size - len(header))


def _in_order(arrays: Mapping[str, Array]) -> list[tuple[str, Array]]:
    order = {dtype: place for place, dtype in enumerate(_NAMES)}
    unnamed = [
        f"{name} ({array.dtype})" for name, array in arrays.items() if _native(array) not in order
    ]
    if unnamed:
        raise TypeError(f"safetensors has no name for the type of {', '.join(unnamed)}")
    return sorted(arrays.items(), key=lambda item: (order[_native(item[1])], item[0]))


def _native(array: Array) -> np.dtype[Any]:
    return array.dtype.newbyteorder("=")
