"""Loads and calls what a user names as `file.py:name` or `package.module:name`.

Whatever goes wrong in the user's code becomes a UsageError in one line that says where, with the
user's exception as its cause.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from edgetune.errors import UsageError, nearest


def call_factory(spec: str) -> Any:
    """What the function that `spec` names returns. Raises UsageError, as `load_callable`."""
    factory = load_callable(spec)
    source, _, name = spec.rpartition(":")
    with _on_path(_folder(source)), _blaming(f"{name}()"):
        return factory()


def load_callable(spec: str) -> Callable[..., Any]:
    """The callable that `spec` names. Raises UsageError: what is missing, and what is there."""
    source, separator, name = spec.rpartition(":")
    if not separator or not source or not name:
        raise UsageError(
            f"cannot read {spec!r}: expected path/to/file.py:factory or package.module:factory"
        )
    module = _load_file(Path(source)) if source.endswith(".py") else _load_module(source)
    found = getattr(module, name, None)
    if not callable(found):
        known = [n for n in dir(module) if not n.startswith("_") and callable(getattr(module, n))]
        raise UsageError(f"{source} has no function {name}{nearest(name, known)}")
    return found  # type: ignore[no-any-return]  # a user's function is what it is


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None  # the name ends in .py
    module = importlib.util.module_from_spec(spec)
    known = sys.modules.setdefault(path.stem, module)  # dataclasses look their module up there
    try:
        with _on_path(path.parent), _blaming(str(path)):
            spec.loader.exec_module(module)
    except UsageError:
        if known is module:
            del sys.modules[path.stem]
        raise
    return module


def _load_module(name: str) -> ModuleType:
    with _on_path(Path.cwd()), _blaming(name):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise UsageError(f"cannot import {name}: {error}") from error


def _folder(source: str) -> Path:
    return Path(source).parent if source.endswith(".py") else Path.cwd()


@contextmanager
def _on_path(folder: Path) -> Iterator[None]:
    """The modules beside the user's own can be imported, as `python file.py` could."""
    entry = str(folder.resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)


@contextmanager
def _blaming(what: str) -> Iterator[None]:
    """Turn an exception of the user's code into a UsageError that says `what` raised it."""
    try:
        yield
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(f"{what} raised {type(error).__name__}: {error}{_line(error)}") from error


def _line(error: BaseException) -> str:
    """Where the user's code was, empty when it did not even start."""
    for frame in traceback.extract_tb(error.__traceback__):
        ours = frame.filename in (__file__, importlib.__file__)
        if not ours and not frame.filename.startswith("<frozen"):
            return f" ({Path(frame.filename).name}, line {frame.lineno})"
    return ""
