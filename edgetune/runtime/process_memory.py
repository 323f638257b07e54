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


def cgroup_peak_bytes(root: Path = Path("/")) -> int | None:
    """The most that this process's cgroup had since it was made, page cache included.

    None without a memory controller (that of Raspberry Pi OS is off by default).
    """
    try:
        lines = (root / "proc" / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return None
    tree = root / "sys" / "fs" / "cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        inner = path.lstrip("/")
        if not controllers:  # version 2
            candidates = [tree / inner / "memory.peak"]
        elif "memory" in controllers.split(","):
            name = "memory.max_usage_in_bytes"
            candidates = [tree / "memory" / inner / name, tree / "memory" / name]
        else:
            continue
        for candidate in candidates:
            try:
                return int(candidate.read_text())
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
