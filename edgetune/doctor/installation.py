"""Python and onnxruntime: whether the installed packages can train at all."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edgetune.doctor.finding import Finding
from edgetune.errors import RuntimeSetupError
from edgetune.runtime.onnxruntime_packages import import_onnxruntime, onnxruntime_packages

OLDEST_PYTHON = (3, 10)
OLDEST_ONNXRUNTIME = (1, 18)
"""What pyproject.toml asks for; somebody may have installed without asking it."""

CPU = "CPUExecutionProvider"
_ARCHITECTURES = ("x86_64", "AMD64", "aarch64", "arm64")


@dataclass(frozen=True)
class Installation:
    """What is installed.

    architecture: of the kernel, by platform.machine(). pointer_bits: 32 or 64, of this Python.
    packages: those whose module is called onnxruntime, with their versions.
    version, providers: of the module; None and empty where it cannot be imported.
    refusal: why it cannot be, empty where it can.
    """

    python: tuple[int, ...]
    architecture: str
    pointer_bits: int
    packages: Mapping[str, str]
    version: str | None
    providers: tuple[str, ...]
    refusal: str = ""


def read_installation() -> Installation:
    """That of this process; onnxruntime is imported. Never raises."""
    version, providers, refusal = None, (), ""
    try:
        module = import_onnxruntime()
        version, providers = str(module.__version__), tuple(module.get_available_providers())
    except RuntimeSetupError as error:
        refusal = str(error)
    except Exception as error:  # files of two packages or versions, mixed, fail in any way
        refusal = f"onnxruntime is damaged ({error!r}): pip install --force-reinstall onnxruntime"
    return Installation(
        python=tuple(sys.version_info[:3]),
        architecture=platform.machine(),
        pointer_bits=64 if sys.maxsize > 2**32 else 32,
        packages=onnxruntime_packages(),
        version=version,
        providers=providers,
        refusal=refusal,
    )


def installation_findings(here: Installation) -> Iterator[Finding]:
    """Python, its architecture, onnxruntime's packages, its version and its providers."""
    python = ".".join(map(str, here.python))
    if here.python[:2] >= OLDEST_PYTHON:
        yield Finding("python", "ok", python)
    else:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        advice = f"edgetune needs {oldest} or later: docs/devices.md says how to get it"
        yield Finding("python", "problem", python, advice)
    yield _architecture(here)
    yield _packages(here)
    yield _onnxruntime(here)


def _architecture(here: Installation) -> Finding:
    found = f"{here.architecture}, Python of {here.pointer_bits} bits"
    if here.pointer_bits == 64 and here.architecture in _ARCHITECTURES:
        return Finding("architecture", "ok", found)
    advice = (
        "onnxruntime comes for x86-64 and 64-bit ARM alone: install a 64-bit system (Raspberry Pi "
        "Imager: Raspberry Pi OS (64-bit))"
    )
    return Finding("architecture", "problem", found, advice)


def _packages(here: Installation) -> Finding:
    found = ", ".join(f"{name} {version}" for name, version in here.packages.items())
    training = [name for name in here.packages if "training" in name]
    if training and len(training) < len(here.packages):
        advice = (
            f"they overwrite each other's module onnxruntime: pip uninstall -y "
            f"{' '.join(here.packages)}, then pip install onnxruntime (or, for bundles of "
            f"ort-training, {training[0]})"
        )
        return Finding("packages", "problem", found, advice)
    if here.packages:
        return Finding("packages", "ok", found)
    if here.version is not None:  # built by hand, or the system's
        return Finding(
            "packages", "note", "no package; the module onnxruntime is there all the same"
        )
    return Finding("packages", "problem", "no onnxruntime", "pip install 'edgetune[device]'")


def _onnxruntime(here: Installation) -> Finding:
    if here.version is None:
        return Finding("onnxruntime", "problem", "cannot be imported", here.refusal)
    found = f"{here.version}, {', '.join(here.providers) or 'no providers'}"
    if _release(here.version) < OLDEST_ONNXRUNTIME:
        oldest = ".".join(map(str, OLDEST_ONNXRUNTIME))
        advice = f"edgetune needs {oldest} or later: pip install --upgrade onnxruntime"
        return Finding("onnxruntime", "problem", found, advice)
    if CPU not in here.providers:
        advice = f"edgetune trains with {CPU}: pip install --force-reinstall onnxruntime"
        return Finding("onnxruntime", "problem", found, advice)
    return Finding("onnxruntime", "ok", found)


def _release(version: str) -> tuple[int, ...]:
    """(1, 18) of '1.18.0+cpu'."""
    return tuple(map(int, re.findall(r"\d+", version)[:2]))
