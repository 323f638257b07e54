"""Loads a callable that a user names as `file.py:name` or `package.module:name`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from edgetune.errors import UsageError, nearest


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
        raise UsageError(f"{source} has no function {name!r}{nearest(name, known)}")
    return found  # type: ignore[no-any-return]  # a user's function is what it is


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None  # the name ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # dataclasses look their module up there
    sys.path.insert(0, str(path.parent.resolve()))  # as `python file.py` would
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


def _load_module(name: str) -> ModuleType:
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UsageError(f"cannot import {name}: {error}") from error
    finally:
        sys.path.pop(0)
