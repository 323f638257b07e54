"""Archives of named arrays, as numpy.savez writes them, but the same bytes at any time."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgetune.nouns.loss import Array


def read_npz(path: Path) -> dict[str, Array]:
    """The arrays of the archive at `path`. Raises ValueError saying why it cannot be read."""
    try:
        with path.open("rb") as file:  # numpy leaves a file open when what it opened is no archive
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array, not named ones")
            with archive:
                return {name: archive[name] for name in archive.files}
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(str(error)) from error


def npz_bytes(arrays: Mapping[str, Array]) -> bytes:
    """An archive without a time stamp: same arrays, same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asarray(arrays[name], order="C"))
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue())
    return buffer.getvalue()
