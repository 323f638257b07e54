from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgetune.errors import UsageError
from edgetune.user_code import call_factory, load_callable

CODE = """
from dataclasses import dataclass

@dataclass
class Settings:
    rate: float = 0.5

number = 3

def make():
    return Settings()

def late():
    import beside
    return beside.VALUE

def broken():
    return {}["sensor"]

def leaves():
    raise SystemExit(3)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file and a package of the user's, the present folder."""
    (tmp_path / "mine.py").write_text(CODE)
    (tmp_path / "beside.py").write_text("VALUE = 'from beside'\n")
    (tmp_path / "their_package").mkdir()
    (tmp_path / "their_package" / "models.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "beside", "their_package", "their_package.models"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


@pytest.mark.parametrize("source", ["mine.py", "./mine.py", "{}/mine.py", "their_package.models"])
def test_files_and_modules_are_loaded_and_called(folder: Path, source: str) -> None:
    spec = f"{source.format(folder)}:make"
    assert load_callable(spec)().rate == 0.5
    assert call_factory(spec).rate == 0.5


def test_a_factory_may_import_what_lies_beside_it(folder: Path) -> None:
    before = list(sys.path)
    assert call_factory("mine.py:late") == "from beside"
    assert sys.path == before


def test_a_file_does_not_hide_a_module_of_the_same_name(folder: Path) -> None:
    (folder / "json.py").write_text("def make(): return 'mine'\n")
    import json  # noqa: PLC0415 - what the file must not replace

    assert call_factory("json.py:make") == "mine"
    assert sys.modules["json"] is json


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        pytest.param("mine.py", r"cannot read 'mine\.py': expected path/to/file\.py", id="bare"),
        pytest.param(":make", "cannot read ':make'", id="no-source"),
        pytest.param("mine.py:", r"cannot read 'mine\.py:'", id="no-name"),
        pytest.param("absent.py:make", r"there is no file absent\.py", id="no-file"),
        pytest.param("absent.module:make", "cannot import absent.module: No module", id="module"),
        pytest.param(
            "mine.py:mkae", r"mine\.py has no function mkae; the nearest names are make", id="name"
        ),
        pytest.param("mine.py:number", r"mine\.py has no function number", id="no-function"),
        pytest.param(
            "their_package.models:zzz", r"their_package\.models has no function zzz$", id="far"
        ),
    ],
)
def test_what_is_missing_is_said_with_what_is_there(folder: Path, spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call_factory(spec)


@pytest.mark.parametrize(
    ("code", "cause", "message"),
    [
        pytest.param(
            "import os\n1 / 0\n",
            ZeroDivisionError,
            r"bad\.py raised ZeroDivisionError: division by zero \(bad\.py, line 2\)$",
            id="exception",
        ),
        pytest.param(
            "def make(:\n", SyntaxError, r"bad\.py raised SyntaxError: .*line 1", id="syntax"
        ),
        pytest.param(
            "import torchvison\n",
            ModuleNotFoundError,
            r"(raised ModuleNotFoundError|cannot import bad): No module named 'torchvison'",
            id="import",
        ),
        pytest.param("raise SystemExit(2)\n", SystemExit, "raised SystemExit: 2", id="exit"),
    ],
)
@pytest.mark.parametrize("source", ["bad.py", "bad"])
def test_an_error_while_loading_is_one_line_with_its_cause(
    folder: Path, code: str, cause: type[BaseException], message: str, source: str
) -> None:
    (folder / "bad.py").write_text(code)
    pattern = message if source == "bad.py" else message.replace(r"bad\.py raised", "bad raised")
    with pytest.raises(UsageError, match=pattern) as caught:
        load_callable(f"{source}:make")
    assert type(caught.value.__cause__) is cause
    assert "bad" not in sys.modules


@pytest.mark.parametrize(
    ("name", "cause", "message"),
    [
        pytest.param(
            "broken",
            KeyError,
            r"broken\(\) raised KeyError: 'sensor' \(mine\.py, line 18\)$",
            id="exception",
        ),
        pytest.param("leaves", SystemExit, r"leaves\(\) raised SystemExit: 3", id="exit"),
    ],
)
def test_an_error_in_the_factory_is_one_line_with_its_cause(
    folder: Path, name: str, cause: type[BaseException], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        call_factory(f"mine.py:{name}")
    assert type(caught.value.__cause__) is cause


def test_ctrl_c_in_the_users_code_stays_one(folder: Path) -> None:
    (folder / "slow.py").write_text("def make():\n    raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        call_factory("slow.py:make")
