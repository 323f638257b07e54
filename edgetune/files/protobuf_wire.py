"""The protobuf wire format: a message as its fields, without knowing its schema.

A message is a run of fields, each a tag (number and wire type, a varint) and a payload
(protobuf.dev/programming-guides/encoding). Reading gives views into the message, so a field that
nobody touches is written back with the very bytes it had. All errors are BundleErrors.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edgetune.errors import BundleError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {FIXED64: 8, FIXED32: 4}
_LONGEST_VARINT = 10  # bytes, 7 bits each, of a 64-bit number

Chunks = list[memoryview]
"""A message in pieces, joined once at the end: weights are not copied at every level."""


class Field(NamedTuple):
    """One field of a message.

    whole: all its bytes, tag included. payload: its value's bytes, the length prefix left out.
    """

    number: int
    wire_type: int
    whole: memoryview
    payload: memoryview


def read_fields(message: memoryview) -> Iterator[Field]:
    """The fields of `message` in their order. Raises BundleError where it is no message."""
    position = 0
    while position < len(message):
        start = position
        tag, position = _read_varint(message, position)
        number, wire_type = tag >> 3, tag & 7
        if number == 0:
            raise BundleError(f"damaged protobuf message: field number 0 at byte {start}")
        value = position
        if wire_type == VARINT:
            _, position = _read_varint(message, position)
        elif wire_type == BYTES:
            length, value = _read_varint(message, position)
            position = value + length
        elif wire_type in _FIXED_SIZES:
            position += _FIXED_SIZES[wire_type]
        else:
            raise BundleError(f"damaged protobuf message: wire type {wire_type} at byte {start}")
        if position > len(message):
            raise BundleError(
                f"damaged protobuf message: field {number} at byte {start} ends at byte "
                f"{position}, the message at byte {len(message)}"
            )
        yield Field(number, wire_type, message[start:position], message[value:position])


def read_bytes(field: Field) -> memoryview:
    """The payload of a text, bytes or message field."""
    return _payload(field, BYTES)


def read_text(field: Field) -> str:
    """The value of a text field."""
    try:
        return str(_payload(field, BYTES), "utf-8")
    except UnicodeDecodeError as error:
        raise BundleError(f"damaged protobuf message: field {field.number}: {error}") from None


def read_integer(field: Field) -> int:
    """The value of a signed integer field (two's complement in 64 bits)."""
    return int(_decode_varints(_payload(field, VARINT))[0])


def read_integers(fields: list[Field]) -> npt.NDArray[np.int64]:
    """The values of a repeated integer field, packed or not."""
    return _decode_varints(memoryview(b"".join(_payload(f, VARINT, BYTES) for f in fields)))


def read_fixed(fields: list[Field], wire_type: int) -> bytes:
    """The bytes of a repeated float (FIXED32) or double (FIXED64) field, packed or not."""
    return b"".join(_payload(field, wire_type, BYTES) for field in fields)


def last_text(fields: list[Field], number: int) -> str:
    """A singular text field of a message: protobuf's rule is that the last one counts."""
    return next((read_text(field) for field in reversed(fields) if field.number == number), "")


def last_integer(fields: list[Field], number: int) -> int:
    """A singular integer field of a message, 0 where it is absent."""
    return next((read_integer(field) for field in reversed(fields) if field.number == number), 0)


def integer_field(number: int, value: int) -> Chunks:
    """An integer field, negative values in two's complement of 64 bits."""
    return [memoryview(_varint(number << 3 | VARINT) + _varint(value & 0xFFFF_FFFF_FFFF_FFFF))]


def float_field(number: int, value: float) -> Chunks:
    """A single-precision field."""
    return [memoryview(_varint(number << 3 | FIXED32) + struct.pack("<f", value))]


def bytes_field(number: int, payload: Chunks) -> Chunks:
    """A text, bytes or message field holding the joined `payload`."""
    size = sum(len(chunk) for chunk in payload)
    return [memoryview(_varint(number << 3 | BYTES) + _varint(size)), *payload]


def text_field(number: int, text: str) -> Chunks:
    """A text field."""
    return bytes_field(number, [memoryview(text.encode("utf-8"))])


def _payload(field: Field, *wire_types: int) -> memoryview:
    if field.wire_type not in wire_types:
        raise BundleError(
            f"damaged protobuf message: field {field.number} has wire type {field.wire_type}, "
            f"expected {' or '.join(map(str, wire_types))}"
        )
    return field.payload


def _read_varint(message: memoryview, position: int) -> tuple[int, int]:
    """(value, position after it)."""
    value = 0
    for index, byte in enumerate(message[position : position + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, position + index + 1
    raise BundleError(f"damaged protobuf message: a number at byte {position} does not end")


def _decode_varints(data: memoryview) -> npt.NDArray[np.int64]:
    """All the numbers of a run of varints at once: typed data may hold millions."""
    raw = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(raw < 0x80) + 1
    if (ends[-1] if len(ends) else 0) != len(raw):
        raise BundleError("damaged protobuf message: its last number does not end")
    if not len(raw):
        return np.empty(0, np.int64)
    starts = np.concatenate([[0], ends[:-1]])
    lengths = ends - starts
    if lengths.max() > _LONGEST_VARINT:
        raise BundleError(f"damaged protobuf message: a number of {lengths.max()} bytes")
    place = np.arange(len(raw)) - np.repeat(starts, lengths)
    parts = (raw & 0x7F).astype(np.uint64) << (7 * place).astype(np.uint64)
    values: npt.NDArray[np.uint64] = np.bitwise_or.reduceat(parts, starts)
    return values.view(np.int64)


def _varint(value: int) -> bytes:
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)
