"""Files that are either whole or not there: temp file, fsync, rename."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import ENOTDIR
from pathlib import Path
from typing import BinaryIO

from edgetune.errors import StorageError


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path`; on any failure `path` keeps what it held. Raises StorageError."""
    with new_file(path) as file:
        file.write(data)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Fill a temporary file that becomes `path` when the block ends without an error.

    On any failure `path` keeps what it held and nothing is left behind; an OSError in the block
    counts as one of the disk's. Raises StorageError.
    """
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}; what was there before is unchanged"
        ) from error
    finally:
        if temporary:
            with suppress(OSError):  # a disk that refuses the write may refuse this too
                Path(temporary).unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Raise StorageError when a file at `path` could not be written; changes nothing.

    For what is written after long work. A disk can still fill up.
    """
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir():
        reason = "a folder with this name is there"
    elif not folder.is_dir():
        reason = f"{folder} is a file"
    elif not os.access(folder, os.W_OK):
        reason = f"no permission to write into {folder}"
    else:
        return
    raise StorageError(f"cannot write {path}: {reason}")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Fill a temporary folder that becomes `path` when the block ends without an error.

    An existing folder at `path` is replaced. On any failure nothing is left behind.
    Raises StorageError where the disk refuses.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        yield temporary
        for file in sorted(temporary.rglob("*")):
            if file.is_file():
                _sync_file(file)
        temporary.chmod(0o755)
        _swap(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}; nothing was left behind"
        ) from error
    finally:
        if temporary is not None and temporary.exists():
            shutil.rmtree(temporary, ignore_errors=True)


def _swap(new: Path, path: Path) -> None:
    """Put the folder `new` at `path`; a folder that was there goes only after that worked."""
    if not path.exists():
        new.replace(path)
        return
    if not path.is_dir():
        raise NotADirectoryError(ENOTDIR, "a file with this name is there", str(path))
    old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        path.replace(old)
    except OSError:
        old.rmdir()
        raise
    try:
        new.replace(path)
    except OSError:
        old.replace(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
