"""When the userland is built, when it is not built again, and what is said when it cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.aarch64 import userland
from tests.aarch64.userland import UnavailableError, Userland, build

METADATA = "Metadata-Version: 2.1\nName: edgetune\nVersion: 0.1\n"


def make_wheel(folder: Path, code: str = "", requires: str = "numpy") -> Path:
    """A wheel of a package `edgetune` with one module."""
    path = folder / "edgetune-0.1-py3-none-any.whl"
    info = "edgetune-0.1.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("edgetune/__init__.py", code)
        archive.writestr(f"{info}/METADATA", f"{METADATA}Requires-Dist: {requires}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Userland]:
    """Nothing is fetched: the userlands that were built from nothing are counted."""
    found: list[Userland] = []

    def unpack(new: Userland) -> list[str]:
        new.site.mkdir(parents=True)
        found.append(new)
        return []

    monkeypatch.setattr(userland, "FOLDER", tmp_path / "aarch64")
    monkeypatch.setattr(userland, "_unpack_debian", unpack)
    monkeypatch.setattr(userland, "_install_wheels", lambda *_: ["numpy-2"])
    return found


def test_what_is_built_is_built_once(built: list[Userland], tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path)
    assert build(wheel) == build(wheel)
    assert len(built) == 1


def test_new_code_of_edgetune_is_installed_into_the_same_userland(
    built: list[Userland], tmp_path: Path
) -> None:
    for code in ("old = 1\n", "new = 1\n"):
        site = build(make_wheel(tmp_path, code)).site
        assert (site / "edgetune" / "__init__.py").read_text() == code
    assert len(built) == 1


def test_another_requirement_is_another_userland(built: list[Userland], tmp_path: Path) -> None:
    build(make_wheel(tmp_path))
    build(make_wheel(tmp_path, requires="numpy>=2"))
    assert len(built) == 2


def test_a_half_built_userland_is_built_again(
    built: list[Userland], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = make_wheel(tmp_path)

    def interrupted(*_: object) -> list[str]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(userland, "_install_wheels", interrupted)
        build(wheel)
    found = build(wheel)
    assert len(built) == 2
    assert [path.name for path in found.folder.parent.iterdir()] == [found.release]


def test_a_half_installed_edgetune_is_installed_again(
    built: list[Userland], tmp_path: Path
) -> None:
    wheel = make_wheel(tmp_path, "whole = 1\n")
    found = build(wheel)
    (found.folder / "installed.sha256").unlink()
    (found.site / "edgetune" / "__init__.py").write_text("who")
    assert (build(wheel).site / "edgetune" / "__init__.py").read_text() == "whole = 1\n"


def test_a_machine_without_apt_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(userland, "FOLDER", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="apt-get is not here: run it on Debian or the like"):
        build(make_wheel(tmp_path))


def fake(folder: Path, name: str, said: str, code: int) -> None:
    """A program that says something on stderr and ends."""
    path = folder / name
    path.write_text(f"#!/bin/sh\ncat >&2 <<'E'\n{said}\nE\nexit {code}\n")
    path.chmod(0o755)


def test_a_registry_that_is_not_reached_is_told_in_apts_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(userland, "FOLDER", tmp_path / "aarch64")
    monkeypatch.setattr(userland, "KEYRING", Path(__file__))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for name in ("dpkg", "dpkg-deb", "tar"):
        fake(tmp_path, name, "", 0)
    fake(tmp_path, "apt-get", "E: Failed to fetch http://deb.debian.org/", 100)
    with pytest.raises(UnavailableError, match=r"apt-get failed:\n  E: Failed to fetch"):
        build(make_wheel(tmp_path))
    assert not (tmp_path / "aarch64" / "bookworm").exists()


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (
            "WARNING: Retrying (Retry(total=4)) after connection broken\nERROR: none",
            UnavailableError,
        ),
        ("ERROR: No matching distribution found for onnxruntime", RuntimeError),
    ],
    ids=["not reached", "no such wheel"],
)
def test_only_a_registry_that_is_not_reached_excuses_pip(
    said: str, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path, "python", said, 1)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(error, match="pip failed:") as raised:
        userland._install_wheels(Userland("bookworm", tmp_path), tmp_path / "a.whl")
    assert type(raised.value) is error


def test_a_device_takes_no_wheel_that_is_newer_than_its_c_library() -> None:
    tags = userland.platform_tags("bookworm")
    assert tags[0] == "manylinux_2_36_aarch64"
    assert tags[-1] == "manylinux_2_17_aarch64"


def test_a_truncated_package_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "half.deb").write_bytes(b"!<arch>\n")
    with pytest.raises((RuntimeError, subprocess.CalledProcessError)):
        userland._unpack(tmp_path / "half.deb", tmp_path)
