"""Opens test bundles, runs the command line, and looks at what it left behind."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from edgetune.cli.main import main
from edgetune.data.dataset import Dataset, load_data
from edgetune.runtime.session import TrainingSession
from tests.bundles.cases import FOLDER

PYTHON = (sys.executable, "-m", "edgetune.cli.main")


def subprocess_environment() -> dict[str, str]:
    """This process's, so that a child imports the same edgetune."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}


def bundle_of(name: str) -> Path:
    return FOLDER / name


def data_of(name: str) -> Path:
    return FOLDER / f"{name}.data.npz"


@functools.cache
def expected_of(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"{name}.expected.npz") as archive:
        return {key: archive[key] for key in archive.files}


def dataset_of(name: str, session: TrainingSession) -> Dataset:
    manifest = session.manifest
    return load_data(str(data_of(name)), manifest.signature, manifest.loss)


def copy_of(name: str, folder: Path) -> Path:
    """A bundle that a test may damage."""
    return Path(shutil.copytree(bundle_of(name), folder / name))


def change_data(name: str, path: Path, **changes: Callable[[Any], Any] | None) -> Path:
    """The data of `name` with each array replaced by what its function returns, None drops it."""
    with np.load(data_of(name)) as archive:
        arrays = {key: archive[key] for key in archive.files}
    for key, change in changes.items():
        if change is None:
            del arrays[key]
        else:
            arrays[key] = change(arrays.get(key))
    np.savez(path, **arrays)
    return path


@dataclass(frozen=True)
class Ran:
    """What a command returned and printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def edgetune(*arguments: str | Path) -> Ran:
    """Run the command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as left:  # argparse, for what it cannot parse and for --help
            code = left.code if isinstance(left.code, int) else 1
    return Ran(code, out.getvalue(), err.getvalue())


def train(name: str, folder: Path, *more: str | Path) -> Ran:
    """Train a bundle with its own data, everything written into `folder`."""
    return edgetune(
        *("train", bundle_of(name), "--data", data_of(name), "--out", folder / "delta"),
        *("--checkpoint", folder / "checkpoint", "--quiet", "--feature-cache", "off"),
        *more,
    )


def listing(folder: Path) -> dict[str, str]:
    """Every file below `folder` with its digest: equal when nothing was touched."""
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def assert_one_error(ran: Ran, code: int, *parts: str) -> None:
    """One error, on stderr alone, with the documented exit code, saying all of `parts`."""
    assert ran.code == code, ran.err
    assert ran.err.startswith("edgetune: error: "), ran.err
    assert ran.err.count("edgetune: error: ") == 1
    assert "Traceback" not in ran.err
    assert ran.out == ""
    for part in parts:
        assert part in ran.err
