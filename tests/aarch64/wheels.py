"""Which versions pip gives a 64-bit ARM device, by its Python: `python -m tests.aarch64.wheels`.

Asks pip to resolve what pyproject.toml asks for, as it would on a device with Raspberry Pi OS
bookworm's C library (JetPack 6 has an older one, which is no bar: see the last column). Nothing is
installed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile

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


def resolve(python: str) -> dict[str, tuple[str, str]]:
    """(version, file name) of every wheel for `python`, by name. Raises CalledProcessError."""
    tags = [f"--platform={tag}" for tag in platform_tags("bookworm")]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        command += ["--dry-run", "--ignore-installed", "--report=-", f"--target={folder}"]
        command += ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
        report = subprocess.run(
            [*command, *tags, *requirements()], check=True, stdout=subprocess.PIPE
        ).stdout
    found = {}
    for item in json.loads(report)["install"]:
        data, url = item["metadata"], item["download_info"]["url"]
        found[data["name"].lower()] = (data["version"], url.rpartition("/")[2])
    return found


def oldest_c_library(files: list[str]) -> str:
    """The oldest glibc that takes all of `files`."""
    least = [min(tuple(map(int, tag)) for tag in C_LIBRARY.findall(f) or [(0, 0)]) for f in files]
    return ".".join(map(str, max(least)))


def main() -> None:
    """Print one row per Python."""
    print("| Python | " + " | ".join(SHOWN) + " | needs glibc |")
    print("|---" * (len(SHOWN) + 2) + "|")
    for python in PYTHONS:
        found = resolve(python)
        versions = " | ".join(found[name][0] for name in SHOWN)
        files = [file for _, file in found.values()]
        print(f"| {python} | {versions} | {oldest_c_library(files)} |", flush=True)


if __name__ == "__main__":
    main()
