"""Resident memory of this process, in bytes, as the kernel counts it."""

from __future__ import annotations

import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_bytes() -> int | None:
    """The most this process has had resident since it started; None where nothing tells."""
    found = _from_status("VmHWM")
    return _from_resource() if found is None else found


def current_bytes() -> int | None:
    """What this process has resident now; None where the system does not tell (not Linux)."""
    return _from_status("VmRSS")


def _from_status(field: str) -> int | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, rest = line.partition(":")
        if name == field:
            return int(rest.split()[0]) * 1024  # the kernel's "kB" is KiB
    return None


def _from_resource() -> int | None:
    try:
        import resource  # noqa: PLC0415 - absent on Windows, and only a fallback
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
