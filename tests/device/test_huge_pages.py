from __future__ import annotations

from pathlib import Path

import pytest

from edgetune.runtime.huge_pages import with_huge_pages

MADVISE = "always [madvise] never\n"
ASKED = "glibc.malloc.hugetlb=1"


def a_root(tmp_path: Path, switch: str | None) -> Path:
    if switch is not None:
        path = tmp_path / "sys/kernel/mm/transparent_hugepage/enabled"
        path.parent.mkdir(parents=True)
        path.write_text(switch)
    return tmp_path


@pytest.mark.parametrize(
    ("tunables", "expected"),
    [
        pytest.param(None, ASKED, id="none set"),
        pytest.param("", ASKED, id="an empty one"),
        pytest.param("glibc.malloc.check=3", f"glibc.malloc.check=3:{ASKED}", id="others are kept"),
    ],
)
def test_huge_pages_are_asked_for(tmp_path: Path, tunables: str | None, expected: str) -> None:
    environment = {"HOME": "/home/pi"} | ({} if tunables is None else {"GLIBC_TUNABLES": tunables})
    found = with_huge_pages(environment, a_root(tmp_path, MADVISE), "glibc 2.36")
    assert found == {"HOME": "/home/pi", "GLIBC_TUNABLES": expected}


@pytest.mark.parametrize(
    ("switch", "c_library", "tunables"),
    [
        pytest.param("[always] madvise never\n", "glibc 2.36", "", id="given without asking"),
        pytest.param("always madvise [never]\n", "glibc 2.36", "", id="switched off"),
        pytest.param(None, "glibc 2.36", "", id="a kernel without them"),
        pytest.param(MADVISE, "glibc 2.31", "", id="a glibc too old"),
        pytest.param(MADVISE, "", "", id="another C library"),
        pytest.param(MADVISE, "glibc 2.36", ASKED, id="asked for already"),
        pytest.param(MADVISE, "glibc 2.36", "glibc.malloc.hugetlb=0", id="the user wants none"),
    ],
)
def test_nothing_changes(tmp_path: Path, switch: str | None, c_library: str, tunables: str) -> None:
    root = a_root(tmp_path, switch)
    assert with_huge_pages({"GLIBC_TUNABLES": tunables}, root, c_library) is None
