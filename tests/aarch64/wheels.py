"""Which versions pip gives a 64-bit ARM device, by its Python: `python -m tests.aarch64.wheels`.

pip downloads what pyproject.toml asks for into a temporary folder, as it would on a device with the
C library of Raspberry Pi OS bookworm; nothing is installed. The last column is the oldest C library
that these wheels take.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import tomllib

from tests.aarch64.userland import CHECKOUT, platform_tags

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
SHOWN = ("onnxruntime", "numpy", "safetensors", "highspy")
C_LIBRARY = re.compile(r"manylinux_(\d+)_(\d+)_aarch64")


def requirements() -> list[str]:
    """Of a device: edgetune's dependencies and those of its extra `device`, without markers.

    (pip would read the markers for the Python that it runs in.)
    """
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    required = [*project["dependencies"], *project["optional-dependencies"]["device"]]
    return [requirement.partition(";")[0].strip() for requirement in required]


def download(python: str) -> dict[str, str]:
    """The wheel's file name for every package that pip takes for `python`, by name.

    (`pip install --dry-run` would be quicker, but judges "requires Python" by the one it runs in.)
    Raises CalledProcessError.
    """
    tags = [f"--platform={tag}" for tag in platform_tags("bookworm")]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check"]
        command += ["--dest", folder, "--only-binary=:all:", "--implementation=cp"]
        command += [f"--python-version={python}", *tags, *requirements()]
        subprocess.run(command, check=True)
        return {path.name.partition("-")[0]: path.name for path in Path(folder).iterdir()}


def oldest_c_library(files: Iterable[str]) -> str:
    """The oldest glibc that takes all of `files`."""
    least = [min(tuple(map(int, tag)) for tag in C_LIBRARY.findall(f) or [(0, 0)]) for f in files]
    return ".".join(map(str, max(least)))


def main() -> None:
    """Print one row per Python."""
    print("| Python | " + " | ".join(SHOWN) + " | needs glibc |")
    print("|---" * (len(SHOWN) + 2) + "|")
    for python in PYTHONS:
        found = download(python)
        versions = " | ".join(found[name].split("-")[1] for name in SHOWN)
        print(f"| {python} | {versions} | {oldest_c_library(found.values())} |", flush=True)


if __name__ == "__main__":
    main()
