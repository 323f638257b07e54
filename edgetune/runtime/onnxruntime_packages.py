"""Which onnxruntime packages are installed: two of them overwrite each other's files."""

from __future__ import annotations

import importlib
from contextlib import suppress
from importlib import metadata
from typing import Any

from edgetune.errors import RuntimeSetupError

_INFERENCE = ("onnxruntime", "onnxruntime-gpu")
_TRAINING = ("onnxruntime-training-cpu", "onnxruntime-training")


def import_onnxruntime() -> Any:
    """The module onnxruntime. Raises RuntimeSetupError when it is missing or cannot be imported."""
    check_one_onnxruntime()
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise RuntimeSetupError(
            f"onnxruntime cannot be imported ({error}): pip install 'edgetune[device]'"
        ) from error


def check_one_onnxruntime() -> None:
    """Raise RuntimeSetupError when packages are installed that overwrite each other's files."""
    installed = onnxruntime_packages()
    inference = [name for name in _INFERENCE if name in installed]
    training = [name for name in _TRAINING if name in installed]
    if inference and training:
        raise RuntimeSetupError(
            f"both {inference[0]} and {training[0]} are installed and break each other: "
            f"pip uninstall -y {' '.join(inference + training)}, then pip install {training[0]}"
        )


def onnxruntime_packages() -> dict[str, str]:
    """The installed packages whose module is called onnxruntime, with their versions."""
    found = {}
    for package in (*_INFERENCE, *_TRAINING):
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
