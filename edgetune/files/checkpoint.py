"""Checkpoints: all that a run needs to continue bit for bit, in one safetensors file.

Two sets of arrays, `state/NAME` and `best/NAME`, and one metadata entry `edgetune`: a JSON object
with sorted keys that holds every other field. One entry, because safetensors writes several in a
random order, and equal checkpoints shall be equal bytes. The object ends with the SHA-256 of the
whole file, computed with 64 zeros in the digest's own place, so that no byte can change unseen.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetune.errors import CheckpointError
from edgetune.files.atomic import new_file
from edgetune.files.safetensors_stream import (
    CHUNK_BYTES,
    encode_header,
    parse_header,
    read_header,
    read_tensors,
    tensor_chunks,
)
from edgetune.nouns.plain import from_plain, to_plain

Array = npt.NDArray[Any]

CHECKPOINT_SCHEMA = 1

_ARRAY_FIELDS = ("state", "best_values")
_PREFIXES = {"state": "state/", "best_values": "best/"}
_METADATA_KEY = "edgetune"
_NO_DIGEST = "0" * 64
# The object's last entry and its end; the backslashes are those of JSON inside JSON.
_DIGEST = re.compile(rb'\\"sha256\\":\\"([0-9a-f]{64})\\"}"')


@dataclass(frozen=True)
class Tally:
    """Sums over the batches of an epoch so far, from which its means follow.

    loss: of the unnormalised batch losses. weight: of the batches' normalizers. correct, counted:
    right predictions, and predictions that could be right.
    """

    loss: float = 0.0
    weight: float = 0.0
    correct: int = 0
    counted: int = 0


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch came to. epoch: from 0. learning_rate: that of its last update.

    Validation's numbers are None without validation data, accuracies where the loss has none.
    """

    epoch: int
    train_loss: float
    train_accuracy: float | None
    validation_loss: float | None
    validation_accuracy: float | None
    learning_rate: float


@dataclass(frozen=True)
class Checkpoint:
    """A training run between two steps.

    state: the session's `state()`. bundle_digest: the session's `digest`.
    step: updates done so far. epoch, batch_in_epoch: where the next batch is, both from 0.
    learning_rate: that of the last update. seed: of the epochs' orders. random_state: the PCG64
    state behind the order of `epoch`, as `bit_generator.state` gives it.
    configuration: whatever else fixes the trajectory, JSON values by name.
    tally: of the epoch so far. history: the epochs that are complete.
    best_metric, best_epoch, best_values: the best epoch on validation data, None and empty before
    there is one. stale_epochs: epochs since, which is what early stopping counts.
    """

    state: Mapping[str, Array]
    bundle_digest: str
    step: int
    epoch: int
    batch_in_epoch: int
    learning_rate: float
    seed: int
    random_state: Mapping[str, Any]
    configuration: Mapping[str, Any]
    tally: Tally = Tally()
    history: tuple[EpochRecord, ...] = ()
    best_metric: float | None = None
    best_epoch: int | None = None
    stale_epochs: int = 0
    best_values: Mapping[str, Array] = field(default_factory=dict)

    @property
    def configuration_digest(self) -> str:
        """SHA-256 of the configuration: equal when the trajectory is fixed in the same way."""
        return hashlib.sha256(_to_json(to_plain(self.configuration)).encode()).hexdigest()


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` to `path`, whole or not at all: what was there survives any failure.

    Equal checkpoints make equal bytes. The arrays are written from where they are: of a strided one
    a chunk at a time is copied, of others nothing. Raises StorageError.
    """
    arrays = {
        f"{_PREFIXES[name]}{key}": np.asarray(value)
        for name in _ARRAY_FIELDS
        for key, value in getattr(checkpoint, name).items()
    }
    header = encode_header(arrays, {_METADATA_KEY: _to_json(_body(checkpoint))})
    found = _DIGEST.search(header)
    if found is None:
        raise RuntimeError("the header does not end its metadata with a digest")
    content = hashlib.sha256(header)
    with new_file(path) as file:
        file.write(header)
        for chunk in tensor_chunks(arrays):
            file.write(chunk)
            content.update(chunk)
        file.seek(found.start(1))
        file.write(content.hexdigest().encode())


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at `path`; its arrays are writable and share nothing with the file.

    The file is read twice, for its digest and for its arrays, and never held as a whole.
    Raises CheckpointError when it is missing, not readable, not a checkpoint, truncated, damaged,
    or of a newer schema.
    """
    try:
        with path.open("rb") as file:
            return _read(path, file, os.fstat(file.fileno()).st_size)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"there is no checkpoint at {path}: start without resuming, or name another file"
        ) from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error


def _to_json(plain: Any) -> str:
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _body(checkpoint: Checkpoint) -> dict[str, Any]:
    """All but the arrays, as JSON values, with the place where the digest goes."""
    plain = {
        f.name: to_plain(getattr(checkpoint, f.name))
        for f in dataclasses.fields(checkpoint)
        if f.name not in _ARRAY_FIELDS
    }
    return {"schema": CHECKPOINT_SCHEMA, "checkpoint": plain, "sha256": _NO_DIGEST}


def _read(path: Path, file: BufferedReader, size_bytes: int) -> Checkpoint:
    header = read_header(file, size_bytes)
    _check_digest(path, header, file)
    file.seek(len(header))
    try:
        metadata, tensors = parse_header(header)
        checkpoint = _decode(path, json.loads(metadata[_METADATA_KEY]))
        arrays = read_tensors(file, tensors, size_bytes - len(header))
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is not a checkpoint that this version can read: {error}"
        ) from error
    sets: dict[str, Any] = {
        name: {
            key.removeprefix(prefix): value
            for key, value in arrays.items()
            if key.startswith(prefix)
        }
        for name, prefix in _PREFIXES.items()
    }
    return dataclasses.replace(checkpoint, **sets)


def _check_digest(path: Path, header: bytes, file: BufferedReader) -> None:
    """Every schema, also a later one, keeps this digest: so it comes before all else.

    file: its position is after `header`, and at its end when this returns.
    """
    found = _DIGEST.search(header)
    if found is None:
        raise CheckpointError(
            f"{path} is no edgetune checkpoint, or its header is truncated or damaged: "
            "resume from another one, or start without resuming"
        )
    content = hashlib.sha256(header[: found.start(1)])
    content.update(_NO_DIGEST.encode())
    content.update(header[found.end(1) :])
    while chunk := file.read(CHUNK_BYTES):
        content.update(chunk)
    if content.hexdigest().encode() != found.group(1):
        raise CheckpointError(
            f"{path} is truncated or damaged: its content does not have the SHA-256 it states; "
            "resume from another one, or start without resuming"
        )


def _decode(path: Path, body: dict[str, Any]) -> Checkpoint:
    """The checkpoint without its arrays."""
    schema = body["schema"]
    if schema > CHECKPOINT_SCHEMA:
        raise CheckpointError(
            f"{path} has schema {schema}, and this edgetune reads up to {CHECKPOINT_SCHEMA}: "
            "upgrade edgetune"
        )
    empty: dict[str, Any] = {name: {} for name in _ARRAY_FIELDS}
    return from_plain(Checkpoint, {**body["checkpoint"], **empty})
