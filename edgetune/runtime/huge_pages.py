"""Large buffers on huge pages: a step takes new ones each time, and a page fault for each page.

Of MobileNetV2's steps, faults of 4 KiB take a fifth to a third, those of 2 MiB next to nothing, for
the same memory. glibc asks for huge pages where its tunable `glibc.malloc.hugetlb` is 1
(sourceware.org/glibc/manual, Memory Allocation Tunables; since 2.35), which it reads when a process
starts and never again: so this process starts itself once more.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

_TUNABLES = "GLIBC_TUNABLES"
_HUGE = "glibc.malloc.hugetlb"
_SINCE = (2, 35)
_SWITCH = "sys/kernel/mm/transparent_hugepage/enabled"


def use_huge_pages() -> None:
    """Start this process again with huge pages, where they are to be had and it has none yet.

    A `GLIBC_TUNABLES` that sets glibc.malloc.hugetlb, to 0 too, is left as it is.
    """
    environment = with_huge_pages(os.environ, Path("/"), _c_library())
    if environment is not None:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def with_huge_pages(
    environment: Mapping[str, str], root: Path, c_library: str
) -> dict[str, str] | None:
    """The environment of a process with huge pages; None where it would make no difference.

    c_library: such as "glibc 2.36". root: where /sys is, for tests.
    """
    name, _, version = c_library.partition(" ")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if name != "glibc" or numbers < _SINCE:
        return None
    try:
        switch = (root / _SWITCH).read_text()
    except OSError:
        return None
    tunables = environment.get(_TUNABLES, "")
    # Under [always] nobody has to ask, under [never] nobody gets any.
    if "[madvise]" not in switch or _HUGE in tunables:
        return None
    return {**environment, _TUNABLES: ":".join(filter(None, [tunables, f"{_HUGE}=1"]))}


def _c_library() -> str:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, ValueError, OSError):
        return ""
