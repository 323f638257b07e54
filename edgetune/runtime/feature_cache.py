"""What the frozen prefix makes of each sample, kept on disk: computed once, read ever after.

The prefix depends on no trained value, so from the second epoch on a step costs only what learns.
One file per prefix and data set: a header, then a record per sample, written when the sample is
first computed. A record begins with a checksum of the rest, so one that was cut off by a kill or
a full disk is not there, and is computed again. When the disk is full, or the bound reached, what
is not there is computed each time.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetune.runtime.session import Array, Arrays, MicroBatch, Samples

_HEADER_BYTES = 4096
_CHECK_BYTES = 8
_ALIGNMENT = 64
# Features of a sample agree wherever it stands in its micro-batch, to this share of the largest.
_TOLERANCE = 1e-3

Compute = Callable[[Arrays], dict[str, Array]]


@dataclass(frozen=True)
class Kept:
    """What a cache holds. samples: of which there are records. bytes: of all its files."""

    samples: int
    bytes: int


class FeatureCache:
    """The features of one prefix.

    folder: where the files are, made when needed. prefix: digest of the prefix's graph and weights.
    bound_bytes: of all files in the folder; those of other prefixes and data give way.
    """

    def __init__(self, folder: Path, prefix: str, bound_bytes: int) -> None:
        self._folder, self._prefix, self._bound = folder, prefix, bound_bytes
        self._files: dict[str, _Records | None] = {}  # by data set; None where none can be
        self._room: Arrays = {}  # what was returned last; the next lies in the same memory

    def features(self, batch: MicroBatch, compute: Compute) -> dict[str, Array]:
        """Features of a micro-batch by tensor: read where all are there, else computed and kept.

        They lie in the memory that `compute` returned, or that was returned before.
        """
        samples = batch.samples
        if samples is None:
            return compute(batch.inputs)
        records = self._files.get(samples.dataset)
        found = records.read(samples.rows, self._room) if records else None
        if found is not None:
            self._room = found
            return found
        computed = self._room = compute(batch.inputs)
        if samples.dataset not in self._files:
            records = self._open(samples, batch.inputs, computed, compute)
            self._files[samples.dataset] = records
            found = records.read(samples.rows, {}) if records else None
            if found is not None:  # an earlier run kept them
                return found
        if records:
            records.write(samples.rows, computed)
        return computed

    def kept(self) -> Kept:
        """How much is there now."""
        files = [records for records in self._files.values() if records]
        return Kept(sum(f.count() for f in files), sum(_size(f.path) for f in files))

    def _open(
        self, samples: Samples, inputs: Arrays, computed: Arrays, compute: Compute
    ) -> _Records | None:
        if not _is_by_sample(inputs, computed, compute):
            return None
        layout = _Layout.of(computed)
        name = zlib.crc32(samples.dataset.encode())
        path = self._folder / f"{self._prefix[:16]}-{name:08x}.features"
        used = [path, *(records.path for records in self._files.values() if records)]
        room = self._bound - sum(_size(other) for other in used[1:])
        count = min(samples.count, (room - _HEADER_BYTES) // layout.stride)
        if count < 1:
            return None
        header = {
            "prefix": self._prefix,
            "dataset": samples.dataset,
            "tensors": {n: [str(dtype), list(shape)] for n, dtype, shape, _ in layout.places},
        }
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._make_room(room - _HEADER_BYTES - count * layout.stride, used)
            return _Records(path, json.dumps(header, sort_keys=True).encode(), layout, count)
        except OSError:  # a disk that cannot be written to: everything is computed
            return None

    def _make_room(self, spare: int, used: list[Path]) -> None:
        """Remove the oldest files that nobody uses here, until the rest takes at most `spare`."""
        others = [path for path in self._folder.glob("*.features") if path not in used]
        others.sort(key=lambda path: path.stat().st_mtime)
        excess = sum(map(_size, others)) - spare
        for path in others:
            if excess > 0:
                excess -= _size(path)
                path.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Layout:
    """Where a sample's features stand in its record. places: (name, type, shape, offset)."""

    places: tuple[tuple[str, np.dtype[Any], tuple[int, ...], int], ...]
    stride: int

    @classmethod
    def of(cls, features: Arrays) -> _Layout:
        places, offset = [], _ALIGNMENT
        for name, values in sorted(features.items()):
            places.append((name, values.dtype, values.shape[1:], offset))
            offset += -(-values[0].nbytes // _ALIGNMENT) * _ALIGNMENT
        return cls(tuple(places), offset)

    def packed(self, features: Arrays, place: int) -> bytes:
        """The record of the sample at `place` of a micro-batch."""
        record = np.zeros(self.stride, np.uint8)
        for name, _, _, offset in self.places:
            values = np.ascontiguousarray(features[name][place]).reshape(-1).view(np.uint8)
            record[offset : offset + values.size] = values
        record[:_CHECK_BYTES] = np.frombuffer(
            _check(record).to_bytes(_CHECK_BYTES, "little"), np.uint8
        )
        return record.tobytes()

    def room(self, samples: int, there: Arrays) -> dict[str, Array]:
        """Memory for the features of so many samples: what is `there`, if it fits."""
        fits = {n: (samples, *shape) for n, _, shape, _ in self.places} == {
            name: array.shape for name, array in there.items()
        }
        if fits:
            return dict(there)
        return {n: np.empty((samples, *shape), dtype) for n, dtype, shape, _ in self.places}

    def unpack(self, record: npt.NDArray[np.uint8], room: Arrays, place: int) -> None:
        """Put the features in a record at `place` of a micro-batch."""
        for name, dtype, shape, offset in self.places:
            size = dtype.itemsize * int(np.prod(shape))
            room[name][place] = record[offset : offset + size].view(dtype).reshape(shape)


class _Records:
    """The file of one prefix and one data set, of which the first `count` samples are kept."""

    def __init__(self, path: Path, header: bytes, layout: _Layout, count: int) -> None:
        self.path, self._layout, self._count = path, layout, count
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self._writable = True
        padded = header.ljust(_HEADER_BYTES)[:_HEADER_BYTES]
        if os.pread(self._file, _HEADER_BYTES, 0) != padded:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, padded, 0)

    def __del__(self) -> None:
        with suppress(OSError, AttributeError):
            os.close(self._file)

    def read(self, rows: npt.NDArray[np.int64], there: Arrays) -> dict[str, Array] | None:
        """The features of these samples, None unless all are there whole.

        there: memory to put them in, where it fits; what was in it is lost either way.
        """
        if int(rows.max()) >= self._count:
            return None
        room = self._layout.room(len(rows), there)
        record = np.empty(self._layout.stride, np.uint8)
        for place, row in enumerate(rows):
            if os.preadv(self._file, [record.data], self._offset(row)) < len(record):
                return None
            if int.from_bytes(record[:_CHECK_BYTES].tobytes(), "little") != _check(record):
                return None
            self._layout.unpack(record, room, place)
        return room

    def write(self, rows: npt.NDArray[np.int64], features: Arrays) -> None:
        """Keep what fits; a disk that is full is not written to again."""
        for place, row in enumerate(rows):
            if self._writable and row < self._count:
                try:
                    os.pwrite(self._file, self._layout.packed(features, place), self._offset(row))
                except OSError:
                    self._writable = False

    def count(self) -> int:
        """How many samples have a record, whole or not."""
        length = max(_size(self.path) - _HEADER_BYTES, 0)
        return min(-(-length // self._layout.stride), self._count)

    def _offset(self, row: int) -> int:
        return _HEADER_BYTES + int(row) * self._layout.stride


def _check(record: npt.NDArray[np.uint8]) -> int:
    """CRC-32 of the record behind its check, plus one: a hole in the file is no record."""
    return zlib.crc32(record[_CHECK_BYTES:].data) + 1


def _is_by_sample(inputs: Arrays, computed: Arrays, compute: Compute) -> bool:
    """Whether the first axis of every feature is the sample, and no sample depends on another.

    Tried out: the micro-batch backwards must give the same features backwards.
    """
    size = len(next(iter(inputs.values())))
    if any(values.ndim == 0 or len(values) != size for values in computed.values()):
        return False
    kept = {name: values.copy() for name, values in computed.items()}
    backwards = compute({name: values[::-1].copy() for name, values in inputs.items()})
    agree = all(_agree(values, backwards[name][::-1]) for name, values in kept.items())
    for name, values in kept.items():
        np.copyto(computed[name], values)  # which may be the memory of `backwards`
    return agree


def _agree(values: Array, other: Array) -> bool:
    if not np.issubdtype(values.dtype, np.floating):
        return bool((values == other).all())
    allowed = _TOLERANCE * max(float(np.abs(values).max(initial=0)), 1e-6)
    return bool(np.abs(values - other).max(initial=0) <= allowed)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def prefix_digest(digests: Mapping[str, str], files: tuple[str, ...]) -> str:
    """One digest of the prefix's files, from those in the manifest."""
    return "".join(digests[name] for name in files)
