"""Resident memory of this process, in bytes, as the kernel counts it."""

from __future__ import annotations

import sys
from pathlib import Path

from edgetune.guards.cgroups import memory_cgroups

_STATUS = Path("/proc/self/status")
_CGROUP_PEAKS = ("memory.peak", "memory.max_usage_in_bytes")  # of version 2, and of version 1


def peak_bytes() -> int | None:
    """The most this process has had resident since it started; None where nothing tells."""
    found = _from_status("VmHWM")
    return _from_resource() if found is None else found


def current_bytes() -> int | None:
    """What this process has resident now; None where the system does not tell (not Linux)."""
    return _from_status("VmRSS")


def cgroup_peak_bytes(root: Path = Path("/")) -> int | None:
    """The most that this process's cgroup had since it was made, page cache included.

    None without a memory controller (that of Raspberry Pi OS is off by default).
    """
    for group in memory_cgroups(root)[:1]:  # its own comes first
        for name in _CGROUP_PEAKS:
            try:
                return int((group.folder / name).read_text())
            except (OSError, ValueError):
                continue
    return None


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
