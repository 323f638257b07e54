"""A delta: the tensors that training changed, and what they were changed from.

A safetensors file of the tuned values (not of differences: applying is exact), with one metadata
entry `edgetune_delta`, a JSON object with sorted keys. One entry, because safetensors writes
several in a random order, and equal deltas shall be equal bytes. It states the SHA-256 of the
values each tensor had before, so that a delta is never applied to another model, and of the delta
itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors.numpy

from edgetune.errors import BundleError, nearest, raise_all
from edgetune.files.atomic import write_atomically
from edgetune.files.onnx_tensor import raw_bytes
from edgetune.files.onnx_weights import read_initializers, read_model, write_with_initializers
from edgetune.nouns.loss import Array
from edgetune.nouns.plain import from_plain, to_plain

DELTA_SCHEMA = 1

_METADATA_KEY = "edgetune_delta"


@dataclass(frozen=True, eq=False)
class Delta:
    """What training changed in the bundle with the digest `bundle_digest`.

    tensors: tuned values by PyTorch parameter name, only those that differ from the base.
    base_digests: for each of them the SHA-256 of its base value's little-endian bytes.
    """

    tensors: Mapping[str, Array]
    bundle_digest: str
    base_digests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Header:
    """The metadata. content: SHA-256 of all else, tensors included."""

    schema: int
    bundle_digest: str
    base_digests: Mapping[str, str]
    content: str


def write_delta(
    path: Path, base: Mapping[str, Array], tuned: Mapping[str, Array], bundle_digest: str
) -> None:
    """Write what differs between `base` and `tuned` to `path`, whole or not at all.

    base, tuned: the trainable values before and after, same names, shapes and types. Equal
    arguments make equal bytes. Raises BundleError listing what does not fit, and StorageError.
    """
    raise_all(BundleError, "cannot make a delta", _differences(base, tuned))
    changed = {name: tuned[name] for name in sorted(tuned) if _differs(base[name], tuned[name])}
    digests = {name: digest(base[name]) for name in changed}
    write_atomically(path, _encode(Delta(changed, bundle_digest, digests)))


def read_delta(path: Path) -> Delta:
    """The delta at `path`. Raises BundleError when it is missing, damaged, newer, or no delta."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(f"cannot read the delta {path}: {error.strerror}") from error
    try:
        metadata = json.loads(_metadata(data))
        schema = metadata["schema"]
        if type(schema) is int and schema > DELTA_SCHEMA:
            raise BundleError(
                f"the delta {path} has schema {schema}, and this edgetune reads up to "
                f"{DELTA_SCHEMA}: upgrade edgetune"
            )
        header = from_plain(_Header, metadata)
        # In an order of our own: safetensors gives a random one, and messages follow it.
        tensors = dict(sorted(safetensors.numpy.load(data).items()))
    except (ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise BundleError(f"{path} is damaged, or no delta: {error}") from error
    delta = Delta(tensors, header.bundle_digest, header.base_digests)
    if set(tensors) != set(header.base_digests) or _content(delta) != header.content:
        raise BundleError(
            f"the delta {path} is damaged: its content does not have the SHA-256 it states; "
            "get it again"
        )
    return delta


def apply_delta(delta: Delta, base: Mapping[str, Array]) -> dict[str, Array]:
    """`base` with the delta's tensors in place of its own, in the order of `base`.

    Raises BundleError listing every name that `base` lacks, every other shape or type, and every
    tensor whose values are not those that were tuned.
    """
    problems = _misfits(delta.tensors, base)
    problems += [
        f"{name}: holds other values than those that were tuned"
        for name, value in delta.tensors.items()
        if name in base
        and (value.shape, value.dtype) == (base[name].shape, base[name].dtype)
        and digest(base[name]) != delta.base_digests[name]
    ]
    raise_all(BundleError, "the delta does not fit", problems)
    return {name: delta.tensors.get(name, value) for name, value in base.items()}


def apply_delta_to_model(delta: Delta, model_path: Path, out_path: Path) -> None:
    """Write the ONNX model at `model_path`, with the delta in its initializers, to `out_path`.

    The delta's names must be initializers of the model with the values that were tuned, as in a
    model merged before training. The result is one self-contained file, written atomically.
    Raises BundleError, ExportError (over 2 GiB) and StorageError.
    """
    try:
        base = read_initializers(read_model(model_path), model_path.parent, delta.tensors)
        apply_delta(delta, base)
    except BundleError as error:
        raise BundleError(f"{model_path}: {error}") from None
    write_with_initializers(model_path, delta.tensors, out_path)


def digest(array: Array) -> str:
    """SHA-256 of the little-endian bytes of `array` in C order, in hexadecimal."""
    return hashlib.sha256(raw_bytes(array)).hexdigest()


def _differs(base: Array, tuned: Array) -> bool:
    # Bits, not numbers: -0.0 equals 0.0 and NaN differs from itself.
    return raw_bytes(base) != raw_bytes(tuned)


def _differences(base: Mapping[str, Array], tuned: Mapping[str, Array]) -> list[str]:
    missing = [f"{name}: not among the tuned values" for name in base if name not in tuned]
    return [*_misfits(tuned, base), *missing]


def _misfits(tensors: Mapping[str, Array], base: Mapping[str, Array]) -> list[str]:
    """What keeps `tensors` from standing in for those of `base`."""
    problems = []
    for name, value in tensors.items():
        if name not in base:
            problems.append(f"{name}: not among the base values{nearest(name, base)}")
        elif (value.shape, value.dtype) != (base[name].shape, base[name].dtype):
            problems.append(f"{name}: {_describe(value)}, expected {_describe(base[name])}")
    return problems


def _describe(array: Array) -> str:
    return f"{array.dtype.name}{list(array.shape)}"


def _encode(delta: Delta) -> bytes:
    header = _Header(DELTA_SCHEMA, delta.bundle_digest, delta.base_digests, _content(delta))
    arrays = {name: np.asarray(value, order="C") for name, value in delta.tensors.items()}
    encoded: bytes = safetensors.numpy.save(arrays, {_METADATA_KEY: _to_json(to_plain(header))})
    return encoded


def _content(delta: Delta) -> str:
    """SHA-256 of everything that a delta says."""
    content = hashlib.sha256()
    tensors = {name: _describe(value) for name, value in delta.tensors.items()}
    head = [delta.bundle_digest, to_plain(delta.base_digests), tensors]
    content.update(_to_json(head).encode())
    for name in sorted(delta.tensors):
        content.update(raw_bytes(delta.tensors[name]))
    return content.hexdigest()


def _metadata(data: bytes) -> str:
    """The metadata entry: of a safetensors file, whose header is 8 bytes of length and JSON."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    entry: str = header["__metadata__"][_METADATA_KEY]
    return entry


def _to_json(plain: object) -> str:
    return json.dumps(plain, sort_keys=True, separators=(",", ":"))
