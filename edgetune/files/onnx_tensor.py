"""One ONNX TensorProto to and from an array: raw, typed and external data.

Field numbers are those of onnx.proto3, which never change. Element types that numpy lacks
(bfloat16, the 8-, 4- and 2-bit floats, strings) are refused where their values are asked for; their
raw bytes can be embedded all the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgetune.errors import BundleError
from edgetune.files.protobuf_wire import (
    FIXED32,
    FIXED64,
    Chunks,
    bytes_field,
    integer_field,
    last_integer,
    last_text,
    read_bytes,
    read_fields,
    read_fixed,
    read_integers,
    text_field,
)
from edgetune.nouns.loss import Array

_DIMS, _DATA_TYPE, _NAME, _RAW_DATA = 1, 2, 8, 9
_FLOAT_DATA, _INT32_DATA, _INT64_DATA, _DOUBLE_DATA, _UINT64_DATA = 4, 5, 7, 10, 11
_STRING_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 6, 13, 14
_EXTERNAL = 1  # TensorProto.DataLocation
_ALL_DATA = (
    *(_FLOAT_DATA, _INT32_DATA, _STRING_DATA, _INT64_DATA, _DOUBLE_DATA, _UINT64_DATA),
    *(_RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION),
)

# TensorProto.DataType to numpy, and the field its typed data is in. Files are little-endian.
DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("<f4"),
    2: np.dtype("u1"),
    3: np.dtype("i1"),
    4: np.dtype("<u2"),
    5: np.dtype("<i2"),
    6: np.dtype("<i4"),
    7: np.dtype("<i8"),
    9: np.dtype("bool"),
    10: np.dtype("<f2"),
    11: np.dtype("<f8"),
    12: np.dtype("<u4"),
    13: np.dtype("<u8"),
    14: np.dtype("<c8"),
    15: np.dtype("<c16"),
}
_FIXED_DATA = {
    1: (_FLOAT_DATA, FIXED32),
    14: (_FLOAT_DATA, FIXED32),
    11: (_DOUBLE_DATA, FIXED64),
    15: (_DOUBLE_DATA, FIXED64),
}
_INTEGER_DATA = {7: _INT64_DATA, 12: _UINT64_DATA, 13: _UINT64_DATA}  # all others: int32_data


@dataclass(frozen=True)
class TensorHead:
    """What a TensorProto says about itself. dtype: "float32", or "type 16" where numpy has none."""

    name: str
    data_type: int
    shape: tuple[int, ...]
    is_external: bool

    @property
    def dtype(self) -> str:
        return dtype_name(self.data_type)


def dtype_name(data_type: int) -> str:
    """The numpy name of a TensorProto.DataType, or "type N" where numpy has none."""
    return DTYPES[data_type].name if data_type in DTYPES else f"type {data_type}"


def read_head(tensor: memoryview) -> TensorHead:
    """Name, type and shape of a TensorProto. Raises BundleError."""
    fields = list(read_fields(tensor))
    return TensorHead(
        name=last_text(fields, _NAME),
        data_type=last_integer(fields, _DATA_TYPE),
        shape=tuple(read_integers([f for f in fields if f.number == _DIMS]).tolist()),
        is_external=last_integer(fields, _DATA_LOCATION) == _EXTERNAL,
    )


def read_array(tensor: memoryview, folder: Path) -> Array:
    """The values of a TensorProto, read-only. folder: what external locations are relative to.

    Raises BundleError for an element type numpy lacks, data that does not fill the shape, or an
    external file that is missing, too short or outside `folder`.
    """
    head = read_head(tensor)
    if head.data_type not in DTYPES:
        raise BundleError(f"{head.name}: element {head.dtype} has no numpy equivalent")
    dtype = DTYPES[head.data_type]
    data = external_bytes(tensor, folder) if head.is_external else _embedded(tensor, head)
    expected = math.prod(head.shape) * dtype.itemsize
    if min(head.shape, default=0) < 0 or len(data) != expected:
        raise BundleError(
            f"{head.name}: {len(data)} bytes of data for {head.dtype}{list(head.shape)}, "
            f"expected {expected}"
        )
    array: Array = np.frombuffer(data, dtype).reshape(head.shape)
    array.flags.writeable = False
    return array


def external_bytes(tensor: memoryview, folder: Path) -> memoryview:
    """The external data of a TensorProto, memory-mapped. Raises BundleError."""
    fields = list(read_fields(tensor))
    name = last_text(fields, _NAME)
    entries = dict(_entry(read_bytes(f)) for f in fields if f.number == _EXTERNAL_DATA)
    location = Path(entries.get("location", ""))
    # A model from elsewhere must not be able to embed any file of this machine.
    if location.is_absolute() or ".." in location.parts or not location.name:
        raise BundleError(
            f"{name}: external data at {str(location)!r}, expected a file beside the model"
        )
    try:
        size = (folder / location).stat().st_size
        offset = _whole_number(name, entries, "offset", 0)
        length = _whole_number(name, entries, "length", max(0, size - offset))
        if offset + length > size:
            raise BundleError(
                f"{name}: bytes {offset} to {offset + length} of {folder / location}, which has "
                f"{size} bytes: the file is damaged or not this model's"
            )
        if length == 0:
            return memoryview(b"")  # nothing cannot be mapped
        mapped = np.memmap(folder / location, np.uint8, "r", offset, (length,))
    except (OSError, ValueError, OverflowError) as error:
        raise BundleError(f"{name}: cannot read {folder / location}: {error}") from None
    return mapped.data


def new_tensor(name: str, array: Array) -> Chunks:
    """A TensorProto of this name with `array` as raw data. Its dtype must be in DTYPES."""
    data_type = data_type_of(array)
    dims = [chunk for size in array.shape for chunk in integer_field(_DIMS, size)]
    head = [*dims, *integer_field(_DATA_TYPE, data_type), *text_field(_NAME, name)]
    return [*head, *bytes_field(_RAW_DATA, [raw_bytes(array)])]


def external_tensor(name: str, array: Array, location: str, offset: int) -> Chunks:
    """A TensorProto of this name whose data, those of `array`, lie in another file.

    location: that file, beside the model. offset: where they start, in bytes.
    """
    result = [chunk for size in array.shape for chunk in integer_field(_DIMS, size)]
    result += [*integer_field(_DATA_TYPE, data_type_of(array)), *text_field(_NAME, name)]
    for key, value in (("location", location), ("offset", offset), ("length", array.nbytes)):
        entry = [*text_field(1, key), *text_field(2, str(value))]
        result += bytes_field(_EXTERNAL_DATA, entry)
    return [*result, *integer_field(_DATA_LOCATION, _EXTERNAL)]


def data_type_of(array: Array) -> int:
    """The TensorProto.DataType of an array, whose dtype must be in DTYPES."""
    return next(key for key, dtype in DTYPES.items() if dtype.name == array.dtype.name)


def with_raw_data(tensor: memoryview, data: memoryview) -> Chunks:
    """The TensorProto with other data, as raw data; everything else keeps its bytes."""
    kept = [field.whole for field in read_fields(tensor) if field.number not in _ALL_DATA]
    return [*kept, *bytes_field(_RAW_DATA, [data])]


def raw_bytes(array: Array) -> memoryview:
    """The little-endian bytes of `array` in C order, without a copy where it has them already."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return little.reshape(-1).view(np.uint8).data


def _embedded(tensor: memoryview, head: TensorHead) -> memoryview:
    """The raw or typed data of a TensorProto as little-endian bytes."""
    fields = list(read_fields(tensor))
    raw = [read_bytes(field) for field in fields if field.number == _RAW_DATA]
    if raw:
        return raw[-1]
    if head.data_type in _FIXED_DATA:
        number, wire_type = _FIXED_DATA[head.data_type]
        return memoryview(read_fixed([f for f in fields if f.number == number], wire_type))
    number = _INTEGER_DATA.get(head.data_type, _INT32_DATA)
    integers = read_integers([field for field in fields if field.number == number])
    if head.dtype == "float16":  # its bits, one element per integer
        integers = integers.astype("<u2").view("<f2")
    return raw_bytes(integers.astype(DTYPES[head.data_type]))


def _entry(message: memoryview) -> tuple[str, str]:
    """(key, value) of a StringStringEntryProto."""
    fields = list(read_fields(message))
    return last_text(fields, 1), last_text(fields, 2)


def _whole_number(name: str, entries: dict[str, str], key: str, default: int) -> int:
    text = entries.get(key, str(default))
    if not (text.isascii() and text.isdigit()):
        raise BundleError(f"{name}: external data has {key} {text!r}, expected a whole number")
    return int(text)
