"""A delta: the tensors that training changed, and what they were changed from.

A safetensors file of the tuned values (not of differences: applying is exact), with one metadata
entry `edgetune_delta`, a JSON object with sorted keys. One entry, because safetensors writes
several in a random order, and equal deltas shall be equal bytes. It states the SHA-256 of the
values each tensor had before, so that a delta is never applied to another model, and of the delta
itself. Of a tensor of which a share was trained it holds the slices, and says which they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from edgetune.errors import BundleError, nearest, raise_all
from edgetune.files.atomic import new_file
from edgetune.files.onnx_tensor import raw_bytes
from edgetune.files.onnx_weights import read_initializers, read_model, write_with_initializers
from edgetune.files.safetensors_stream import write_tensors
from edgetune.nouns.candidate import Share
from edgetune.nouns.loss import Array
from edgetune.nouns.plain import from_plain, to_plain
from edgetune.nouns.slices import (
    NO_SHARES,
    Shares,
    describe_share,
    put_slices,
    share_problems,
    take_slices,
)

DELTA_SCHEMA = 2
_WITHOUT_SHARES = 1  # the schema of a delta of whole tensors alone

_METADATA_KEY = "edgetune_delta"


@dataclass(frozen=True, eq=False)
class Delta:
    """What training changed in the bundle with the digest `bundle_digest`.

    tensors: tuned values by PyTorch parameter name, only those that differ from the base.
    base_digests: for each of them the SHA-256 of its base value's little-endian bytes.
    shares: for those of which tensors and base digests are of some slices only, which.
    """

    tensors: Mapping[str, Array]
    bundle_digest: str
    base_digests: Mapping[str, str] = field(default_factory=dict)
    shares: Shares = field(default_factory=dict)


@dataclass(frozen=True)
class _Header:
    """The metadata. content: SHA-256 of all else, tensors included."""

    schema: int
    bundle_digest: str
    base_digests: Mapping[str, str]
    content: str
    shares: Mapping[str, Share] = field(default_factory=dict)


@dataclass(frozen=True)
class Fingerprint:
    """What a delta needs to know of a value that it was not made with. digest: see `digest`."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    digest: str


def fingerprints(values: Mapping[str, Array]) -> dict[str, Fingerprint]:
    """Those of `values`, by name: kept in their place, they take no memory."""
    return {n: Fingerprint(v.shape, v.dtype, digest(v)) for n, v in values.items()}


def write_delta(
    path: Path,
    base: Mapping[str, Array],
    tuned: Mapping[str, Array],
    bundle_digest: str,
    shares: Shares = NO_SHARES,
) -> None:
    """Write what differs between `base` and `tuned` to `path`, whole or not at all.

    base, tuned: the trainable values before and after, same names, shapes and types.
    shares: the bundle's `plan.selection.shares`: which slices the values of a tensor are.
    Equal arguments make equal bytes. Raises BundleError listing what does not fit, StorageError.
    """
    write_changes(path, fingerprints(base), tuned, bundle_digest, shares)


def write_changes(
    path: Path,
    base: Mapping[str, Fingerprint],
    tuned: Mapping[str, Array],
    bundle_digest: str,
    shares: Shares = NO_SHARES,
) -> None:
    """`write_delta` without the values before: `base` are their fingerprints."""
    problems = [*_differences(base, tuned), *_wrong_shares(base, shares)]
    raise_all(BundleError, "cannot make a delta", problems)
    # Bits, not numbers: -0.0 equals 0.0 and NaN differs from itself.
    changed = {n: tuned[n] for n in sorted(tuned) if digest(tuned[n]) != base[n].digest}
    digests = {name: base[name].digest for name in changed}
    kept = {name: shares[name] for name in changed if name in shares}
    _write(path, Delta(changed, bundle_digest, digests, kept))


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
    delta = Delta(tensors, header.bundle_digest, header.base_digests, header.shares)
    if set(tensors) != set(header.base_digests) or _content(delta) != header.content:
        raise BundleError(
            f"the delta {path} is damaged: its content does not have the SHA-256 it states; "
            "get it again"
        )
    raise_all(BundleError, f"the delta {path} is not sound", _wrong_shares(tensors, delta.shares))
    return delta


def apply_delta(
    delta: Delta, base: Mapping[str, Array], shares: Shares = NO_SHARES
) -> dict[str, Array]:
    """`base` with the delta's tensors in place of its own, in the order of `base`.

    shares: which slices the arrays of `base` are, as for a bundle's values; where it says nothing
    they are whole tensors, and slices of the delta are put into copies.
    Raises BundleError listing every name that `base` lacks, every other shape, type or share, every
    slice that is not there, and every tensor whose values are not those that were tuned.
    """
    problems = [
        problem for name in delta.tensors for problem in _misfits(delta, name, base, shares)
    ]
    raise_all(BundleError, "the delta does not fit", problems)
    return {name: _applied(delta, name, value, shares) for name, value in base.items()}


def _misfits(delta: Delta, name: str, base: Mapping[str, Array], shares: Shares) -> list[str]:
    """What keeps the delta's tensor of that name from being applied to `base`."""
    share, present = delta.shares.get(name), shares.get(name)
    if name in base and share != present:
        if share is None or present is not None:
            trained = f"trained is {describe_share(present)}"
            return [f"{name}: the delta changes {describe_share(share)}, {trained}"]
        problems = share_problems(name, share, base[name].shape)
        if problems:
            return problems
        base = {name: take_slices(base[name], share)}
    problems = _mismatches({name: delta.tensors[name]}, base)
    if not problems and digest(base[name]) != delta.base_digests[name]:
        problems = [f"{name}: holds other values than those that were tuned"]
    return problems


def _applied(delta: Delta, name: str, value: Array, shares: Shares) -> Array:
    """What becomes of an array of the base that the delta fits."""
    if name not in delta.tensors:
        return value
    if delta.shares.get(name) == shares.get(name):
        return delta.tensors[name]
    result = value.copy()
    put_slices(result, delta.shares.get(name), delta.tensors[name])
    return result


def apply_delta_to_model(delta: Delta, model_path: Path, out_path: Path) -> None:
    """Write the ONNX model at `model_path`, with the delta in its initializers, to `out_path`.

    The delta's names must be initializers of the model, whole, with the values that were tuned, as
    in a model merged before training. The result is one self-contained file, written atomically.
    Raises BundleError, ExportError (over 2 GiB) and StorageError.
    """
    try:
        base = read_initializers(read_model(model_path), model_path.parent, delta.tensors)
        tuned = apply_delta(delta, base)
    except BundleError as error:
        raise BundleError(f"{model_path}: {error}") from None
    write_with_initializers(model_path, tuned, out_path)


def digest(array: Array) -> str:
    """SHA-256 of the little-endian bytes of `array` in C order, in hexadecimal."""
    return hashlib.sha256(raw_bytes(array)).hexdigest()


def _differences(base: Mapping[str, Fingerprint], tuned: Mapping[str, Array]) -> list[str]:
    missing = [f"{name}: not among the tuned values" for name in base if name not in tuned]
    return [*_mismatches(tuned, base), *missing]


def _mismatches(tensors: Mapping[str, Array], base: Mapping[str, Array | Fingerprint]) -> list[str]:
    """Names, shapes and types that keep `tensors` from standing in for those of `base`."""
    problems = []
    for name, value in tensors.items():
        if name not in base:
            problems.append(f"{name}: not among the base values{nearest(name, base)}")
        elif (value.shape, value.dtype) != (base[name].shape, base[name].dtype):
            problems.append(f"{name}: {_describe(value)}, expected {_describe(base[name])}")
    return problems


def _wrong_shares(slices: Mapping[str, Array | Fingerprint], shares: Shares) -> list[str]:
    """Shares that `slices` cannot be, of however large a tensor."""
    problems = []
    for name, share in shares.items():
        shape = list(slices[name].shape) if name in slices else []
        if shape[share.axis : share.axis + 1] == [len(share.indices)]:
            shape[share.axis] = max(share.indices, default=0) + 1
            problems += share_problems(name, share, shape)
        else:
            found = _describe(slices[name]) if name in slices else "no values"
            problems.append(f"{name}: {found}, expected {describe_share(share)}")
    return problems


def _describe(array: Array | Fingerprint) -> str:
    return f"{array.dtype.name}{list(array.shape)}"


def _write(path: Path, delta: Delta) -> None:
    schema = DELTA_SCHEMA if delta.shares else _WITHOUT_SHARES
    header = _Header(schema, delta.bundle_digest, delta.base_digests, _content(delta), delta.shares)
    plain = to_plain(header)
    if not delta.shares:
        del plain["shares"]  # which schema 1 did not know
    with new_file(path) as file:
        write_tensors(file, delta.tensors, {_METADATA_KEY: _to_json(plain)})


def _content(delta: Delta) -> str:
    """SHA-256 of everything that a delta says."""
    content = hashlib.sha256()
    tensors = {name: _describe(value) for name, value in delta.tensors.items()}
    head = [delta.bundle_digest, to_plain(delta.base_digests), tensors]
    if delta.shares:
        head.append(to_plain(delta.shares))
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
