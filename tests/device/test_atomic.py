from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from edgetune.errors import StorageError
from edgetune.files.atomic import new_file, new_folder, write_atomically


def refuse(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_is_written_and_replaced_and_its_folders_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    for data in (b"first", b"second, and longer"):
        write_atomically(path, data)
        assert path.read_bytes() == data
    assert [p.name for p in path.parent.iterdir()] == ["file"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_full_disk_leaves_the_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_atomically(tmp_path / "file", b"old")
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StorageError, match="No space left on device; what was there before is unc"):
        write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_an_interrupt_leaves_the_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    write_atomically(tmp_path / "file", b"old")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_file_appears_whole_and_can_be_corrected_before(tmp_path: Path) -> None:
    path = tmp_path / "deeper" / "file"
    with new_file(path) as file:
        file.write(b"........")
        file.seek(2)
        file.write(b"ok")
        assert not path.exists()
    assert path.read_bytes() == b"..ok...."
    assert [p.name for p in path.parent.iterdir()] == ["file"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (ValueError("no"), ValueError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (OSError(errno.EIO, os.strerror(errno.EIO)), StorageError),
    ],
)
def test_an_error_in_the_block_leaves_the_file_that_was_there(
    tmp_path: Path, error: BaseException, seen: type[BaseException]
) -> None:
    write_atomically(tmp_path / "file", b"old")
    with pytest.raises(seen) as caught, new_file(tmp_path / "file") as file:
        file.write(b"half of the new")
        raise error
    assert (seen is StorageError) == ("Input/output error; what was there" in str(caught.value))
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("below", ["file", "file/deeper"])
def test_a_file_where_a_folder_is_needed_is_a_storage_error(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_bytes(b"here")
    with pytest.raises(StorageError, match="cannot write"):
        write_atomically(tmp_path / below / "x", b"new")
    assert (tmp_path / "file").read_bytes() == b"here"


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    with new_folder(tmp_path / "out" / "bundle") as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "a").write_text("1")
        assert not (tmp_path / "out" / "bundle").exists()
    assert (tmp_path / "out" / "bundle" / "inner" / "a").read_text() == "1"
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["bundle"]
    assert (tmp_path / "out" / "bundle").stat().st_mode & 0o777 == 0o755


def fill(path: Path, text: str) -> None:
    with new_folder(path) as folder:
        (folder / text).write_text(text)


def test_a_folder_replaces_the_one_before_it(tmp_path: Path) -> None:
    fill(tmp_path / "bundle", "old")
    fill(tmp_path / "bundle", "new")
    assert [p.name for p in (tmp_path / "bundle").iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_an_error_in_the_block_leaves_what_was_there(tmp_path: Path, error: BaseException) -> None:
    fill(tmp_path / "bundle", "old")
    with pytest.raises(type(error)), new_folder(tmp_path / "bundle") as folder:
        (folder / "half").write_text("half")
        raise error
    assert [p.name for p in (tmp_path / "bundle").iterdir()] == ["old"]
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_a_full_disk_leaves_the_folder_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "bundle", "old")
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StorageError, match="No space left on device; nothing was left behind"):
        fill(tmp_path / "bundle", "new")
    assert [p.name for p in (tmp_path / "bundle").iterdir()] == ["old"]
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_a_swap_that_fails_half_way_puts_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "bundle", "old")
    really_replace, calls = Path.replace, []

    def second_fails(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == 2:
            refuse()
        return really_replace(self, target)

    monkeypatch.setattr(Path, "replace", second_fails)
    with pytest.raises(StorageError):
        fill(tmp_path / "bundle", "new")
    assert [p.name for p in (tmp_path / "bundle").iterdir()] == ["old"]
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_a_folder_does_not_replace_a_file(tmp_path: Path) -> None:
    (tmp_path / "bundle").write_text("a file")
    with pytest.raises(StorageError, match="a file with this name is there"):
        fill(tmp_path / "bundle", "new")
    assert (tmp_path / "bundle").read_text() == "a file"
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]
