"""Resolves each NAME.in beside this file into NAME.lock: every package, pinned. See `make lock`.

pip resolves and installs nothing; its answer is written without local versions (2.13.0, not
2.13.0+cpu) and without the CUDA libraries that some builds of torch ask for. So a lock file fits
whichever build of torch an index offers: pip adds what that build needs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
CUDA_PREFIXES = ("cuda-", "nvidia-", "triton")
HEADER = """\
# Made by `make lock` from {source}. Do not edit.
# For CPython 3.11 and 3.12 on x86-64 Linux.
"""


def resolve(source: Path) -> dict[str, str]:
    """The version of every package that an installation of `source` would bring, by name."""
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    options = ["--dry-run", "--ignore-installed", "--only-binary=:all:", "--report=-"]
    if source.stem.endswith("-no-deps"):
        options.append("--no-deps")
    report = subprocess.run(
        [*pip, *options, "-r", source], check=True, stdout=subprocess.PIPE
    ).stdout
    packages = [item["metadata"] for item in json.loads(report)["install"]]
    versions = {p["name"].lower().replace("_", "-"): p["version"] for p in packages}
    return {
        name: version.partition("+")[0]
        for name, version in sorted(versions.items())
        if not name.startswith(CUDA_PREFIXES)
    }


def main() -> None:
    """Write all lock files."""
    for source in sorted(HERE.glob("*.in")):
        versions = resolve(source)
        lines = [f"{name}=={version}\n" for name, version in versions.items()]
        header = HEADER.format(source=source.name)
        source.with_suffix(".lock").write_text(header + "".join(lines), encoding="utf-8")
        print(f"{source.stem}.lock: {len(versions)} packages")


if __name__ == "__main__":
    main()
