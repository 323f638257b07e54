"""The memory cgroups that this process is in, of version 1 and 2 (cgroups(7))."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_UNLIMITED = 2**60  # version 1 shows the largest number of whole pages


@dataclass(frozen=True)
class MemoryCgroup:
    """A group with a limit that may kill. name: as /proc/self/cgroup has it. The rest: its files'
    names, and in memory.stat the keys of cached pages: inactive, active, and mapped by somebody.
    """

    name: str
    folder: Path
    usage: str
    limit: str
    cached: tuple[str, str, str]

    def limit_bytes(self) -> int | None:
        """None where it is unlimited, or does not tell."""
        limit = _number(f"{self.folder}/{self.limit}")
        return limit if limit is not None and limit < _UNLIMITED else None

    def used_bytes(self) -> int | None:
        """What is charged to it and to the groups in it, cached pages included."""
        return _number(f"{self.folder}/{self.usage}")

    def reclaimable_bytes(self) -> int:
        """Cached pages that the kernel drops before it kills: the inactive ones, and of the active
        ones as many as no process has mapped.
        """
        text = read_small(f"{self.folder}/memory.stat")
        stat = dict(re.findall(r"^(\w+) (\d+)$", text, re.MULTILINE))
        inactive, active, mapped = (int(stat.get(key, 0)) for key in self.cached)
        return inactive + max(active - mapped, 0)


@dataclass(frozen=True)
class MemoryController:
    """Which version of cgroups has it, or would; off, a group's limit of memory limits nothing."""

    version: int
    is_on: bool


def memory_controller(root: Path = Path("/")) -> MemoryController | None:
    """The kernel's memory controller; None where no cgroups are mounted that tell.

    root: above /proc and /sys.
    """
    for version, _, mount_point in _mounts(read_small(f"{root}/proc/self/mountinfo")):
        if version == 1:  # a mount of version 1 that names the controller is the controller's
            return MemoryController(1, is_on=True)
        controllers = root / mount_point.lstrip("/") / "cgroup.controllers"
        if controllers.is_file():
            return MemoryController(2, "memory" in read_small(str(controllers)).split())
    return None


def memory_cgroups(root: Path = Path("/")) -> tuple[MemoryCgroup, ...]:
    """This process's group and all above it that can be seen; empty where there are none.

    root: above /proc and /sys. A mount shows a part of the hierarchy: in a container that is mostly
    the container's own group, named `/`.
    """
    paths = _paths(read_small(f"{root}/proc/self/cgroup"))
    for version, mount_root, mount_point in _mounts(read_small(f"{root}/proc/self/mountinfo")):
        if version in paths:
            top = root / mount_point.lstrip("/")
            own = _below(top, PurePosixPath(paths[version]), PurePosixPath(mount_root))
            folders = [own, *(folder for folder in own.parents if _is_below(folder, top))]
            return tuple(_group(version, folder, top) for folder in folders)
    return ()


def _group(version: int, folder: Path, top: Path) -> MemoryCgroup:
    name = "/" if folder == top else f"/{folder.relative_to(top).as_posix()}"
    if version == 1:
        keys = ("total_inactive_file", "total_active_file", "total_mapped_file")
        return MemoryCgroup(name, folder, "memory.usage_in_bytes", "memory.limit_in_bytes", keys)
    keys = ("inactive_file", "active_file", "file_mapped")
    return MemoryCgroup(name, folder, "memory.current", "memory.max", keys)


def _paths(text: str) -> dict[int, str]:
    """The process's path by version; of version 1 that of the memory controller."""
    found = {}
    for line in text.splitlines():
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        if "memory" in controllers.split(","):
            found[1] = path
        elif number == "0" and not controllers:
            found[2] = path
    return found


def _mounts(text: str) -> list[tuple[int, str, str]]:
    """(version, the mounted part, where), version 1 first: it has the controller if it is there."""
    found = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        mount_root, mount_point = _unescaped(fields[3]), _unescaped(fields[4])
        if kind[0] == "cgroup" and "memory" in kind[2].split(","):
            found.append((1, mount_root, mount_point))
        elif kind[0] == "cgroup2":
            found.append((2, mount_root, mount_point))
    return sorted(found, key=lambda mount: mount[0])


def _below(top: Path, path: PurePosixPath, mount_root: PurePosixPath) -> Path:
    """The folder of the group `path`; the top where the mount does not show it."""
    try:
        relative = path.relative_to(mount_root)
    except ValueError:
        return top
    return top / relative if ".." not in relative.parts and (top / relative).is_dir() else top


def _is_below(folder: Path, top: Path) -> bool:
    return folder == top or top in folder.parents


def _unescaped(text: str) -> str:
    """Spaces and the like are octal there (proc_pid_mountinfo(5))."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text)


def read_small(path: str) -> str:
    """The text of a file of the kernel's, empty where it cannot be read.

    Before every micro-batch several are read: a path object and a buffered file, each time, would
    cost several times as much.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        parts = []
        while part := os.read(descriptor, 2**16):
            parts.append(part)
        return b"".join(parts).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def _number(path: str) -> int | None:
    text = read_small(path).strip()
    return int(text) if text.isdigit() else None  # else it is not there, or says `max`
