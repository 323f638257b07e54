"""The small files in which Linux shows its sensors; what cannot be read is a MeterError."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from edgetune.errors import MeterError

_MOST_BYTES = 4096  # a file of sysfs is at most a page


def read_text(path: Path) -> str:
    """What `path` holds, without white space and NULs around it. Raises MeterError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.read(descriptor, _MOST_BYTES)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise MeterError(f"cannot read {path}: {error.strerror}") from error
    return data.decode("utf-8", "replace").strip("\0 \t\r\n")


def read_number(path: Path) -> int:
    """The whole number in `path`. Raises MeterError."""
    text = read_text(path)
    try:
        return int(text)
    except ValueError:
        raise MeterError(f"cannot read {path}: {text!r} is not a whole number") from None


def read_optional(path: Path) -> str:
    """What `path` holds; empty where there is no such file or it cannot be read."""
    try:
        return read_text(path)
    except MeterError:
        return ""


def find(root: Path, patterns: Sequence[str]) -> list[Path]:
    """Files and folders under `root` that match any of the patterns, sorted."""
    return sorted({path for pattern in patterns for path in root.glob(pattern)})
