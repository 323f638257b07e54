"""The comparison of emulated ARM processors with this machine: one table, and what exceeds it.

`python -m tests.aarch64.checks --wheel FILE`; `make aarch64` calls it. Each machine verifies the
bundles, trains each to a checkpoint, and continues its own; then every checkpoint of an emulated
processor is continued here and the one from here is continued there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.aarch64.emulated import PROCESSORS, run_python
from tests.aarch64.userland import (
    CHECKOUT,
    DEFAULT_RELEASE,
    RELEASES,
    UnavailableError,
    Userland,
    build,
)
from tests.bundles.cases import FOLDER, INT8

BUNDLES = {
    "vision": "mobilenet_v3_small",
    "text": "distilbert",
    "sensor": "cnn1d",
    "int8": INT8,
}
EPOCHS = (2, 4)  # until the checkpoint, and in the end
HERE = "here"
PROGRAM = Path(__file__).with_name("device_run.py")

# What may lie between two processors, which add in another order. Of the loss: a share of it. Of
# the outputs: a share of the largest. Of the values: a share of the most that training has changed
# of the tensor. About ten times the largest that was seen (docs/arm.md has the table).
LOSS, OUTPUTS, VALUES = 1e-5, 2e-5, 1e-3
# A tensor whose gradient is zero but for rounding, such as the bias of attention's keys, moves by
# rounding alone: what moved by less than this is not compared with its own change.
LEAST_CHANGE = 1e-6


@dataclass(frozen=True)
class Row:
    """One bundle on one processor, against this machine.

    self_test: the largest deviation from PyTorch, as a share of what `verify` tolerates.
    loss, loss_here: after all updates. right: share of right predictions, None without. same: how
    many of the samples get the same class. The rest are deviations as in LOSS, OUTPUTS and VALUES:
    trained there; continued there from here; continued here from there.
    """

    processor: str
    bundle: str
    updates: int
    self_test: float
    loss: float
    loss_here: float
    right: float
    same: str
    loss_off: float
    outputs_off: float
    values_off: tuple[float, float, float]

    @property
    def problems(self) -> list[str]:
        """What exceeds its tolerance."""
        agreed, _, samples = self.same.partition("/")
        trained, there, here = self.values_off
        found = {
            f"the loss is {self.loss:.7g}, here {self.loss_here:.7g}": self.loss_off <= LOSS,
            f"outputs are off by {self.outputs_off:.1e}": self.outputs_off <= OUTPUTS,
            f"{self.same} samples get the same class": agreed == samples,
            f"trained values are off by {trained:.1e}": trained <= VALUES,
            f"continued there, values are off by {there:.1e}": there <= VALUES,
            f"continued here, values are off by {here:.1e}": here <= VALUES,
        }
        where = f"{self.bundle} on {self.processor}: "
        return [where + text for text, holds in found.items() if not holds]


def compare(
    userland: Userland,
    out: Path,
    processors: Sequence[str] = tuple(PROCESSORS),
    bundles: Sequence[str] = tuple(BUNDLES),
    epochs: tuple[int, int] = EPOCHS,
) -> list[Row]:
    """Run every bundle on every processor and here; `out` is emptied and holds what they wrote.

    Raises RuntimeError when a machine fails, which a failed self-test is too.
    """
    shutil.rmtree(out, ignore_errors=True)
    folders = {name: out / name for name in (HERE, *processors)}
    for folder in folders.values():
        folder.mkdir(parents=True)
    common = ["--names", *(BUNDLES[b] for b in bundles), "--epochs", *map(str, epochs)]
    here = folders[HERE]
    _run_here(here, *common, "--train", "--continue-from", str(here))

    def run(processor: str) -> None:
        own = folders[processor]
        others = ["--train", "--continue-from", str(own), str(here)]
        run_python(userland, processor, str(PROGRAM), str(own), *common, *others)

    with ThreadPoolExecutor(min(len(processors), len(os.sched_getaffinity(0)))) as pool:
        list(pool.map(run, processors))
    _run_here(here, *common, "--continue-from", *(str(folders[name]) for name in processors))
    return [_row(out, name, bundle) for bundle in bundles for name in processors]


def _run_here(out: Path, *arguments: str) -> None:
    """The same program on this machine, with the edgetune of this Python."""
    command = [sys.executable, str(PROGRAM), str(out), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=CHECKOUT)
    if done.returncode:
        raise RuntimeError(f"ended with code {done.returncode} on this machine:\n{done.stderr}")


def _row(out: Path, processor: str, bundle: str) -> Row:
    name = BUNDLES[bundle]

    def result(machine: str, start: str) -> dict[str, np.ndarray]:
        with np.load(out / machine / f"{name}.from-{start}.npz") as archive:
            return {key: archive[key] for key in archive.files}

    reference, found = result(HERE, HERE), result(processor, processor)
    report = json.loads((out / processor / f"{name}.verify.json").read_text())["report"]
    continued = (found, result(processor, HERE), result(HERE, processor))
    loss, loss_here = float(found["loss"]), float(reference["loss"])
    outputs, expected = found["output"], reference["output"]
    same = outputs.argmax(1) == expected.argmax(1)
    return Row(
        processor=processor,
        bundle=bundle,
        updates=int(found["updates"]),
        self_test=max(report["loss"], report["gradients"], report["updates"]),
        loss=loss,
        loss_here=loss_here,
        right=float(found["accuracy"]),
        same=f"{same.sum()}/{same.size}",
        loss_off=abs(loss - loss_here) / abs(loss_here),
        outputs_off=float(np.abs(outputs - expected).max() / np.abs(expected).max()),
        values_off=tuple(_values_off(each, reference) for each in continued),  # type: ignore[arg-type]
    )


def _values_off(found: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> float:
    """The worst tensor's largest difference, as a share of the largest change that was made."""
    worst = 0.0
    for key, expected in reference.items():
        kind, _, name = key.partition(":")
        if kind == "after":
            change = np.abs(expected - reference[f"before:{name}"]).max()
            difference = np.abs(found[key] - expected).max()
            worst = max(worst, float(difference / max(change, LEAST_CHANGE)))
    return worst


def table(rows: Sequence[Row]) -> str:
    """The rows as text, under what each column is."""
    heads = (
        *("bundle", "processor", "updates", "self-test", "loss", "here", "right", "same class"),
        *("loss off", "outputs off", "values off", "from here", "back here"),
    )
    lines: list[tuple[str, ...]] = [heads]
    for row in rows:
        off = (row.loss_off, row.outputs_off, *row.values_off)
        lines.append(
            (
                *(row.bundle, row.processor, str(row.updates), f"{row.self_test:.1%}"),
                *(f"{row.loss:.6f}", f"{row.loss_here:.6f}", f"{row.right:.0%}", row.same),
                *(f"{share:.1e}" for share in off),
            )
        )
    tolerated = (LOSS, OUTPUTS, VALUES, VALUES, VALUES)
    limits = (f"{tolerance:.1e}" for tolerance in tolerated)
    lines.append(("tolerated", "", "", "100.0%", "", "", "", "all", *limits))
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def main() -> int:
    """Build, compare, print; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--wheel", type=Path, required=True, help="edgetune, as a device gets it")
    parser.add_argument("--release", choices=RELEASES, default=DEFAULT_RELEASE)
    parser.add_argument("--processors", nargs="+", choices=PROCESSORS, default=list(PROCESSORS))
    options = parser.parse_args()
    if not FOLDER.is_dir():
        print(f"no bundles at {FOLDER}: make test-bundles", file=sys.stderr)
        return 1
    started = time.monotonic()
    try:
        userland = build(options.wheel.resolve(), options.release)
        built = time.monotonic()
        print(f"{userland.folder}: {_mebibytes(userland.folder)} MiB, {built - started:.0f} s")
        runs = userland.folder / "runs"
        rows = compare(userland, runs, options.processors)
    except (UnavailableError, RuntimeError) as error:
        print(f"aarch64: {error}", file=sys.stderr)
        return 1
    print(f"Python {userland.version} of {userland.release}, {time.monotonic() - built:.0f} s\n")
    print(table(rows))
    problems = [problem for row in rows for problem in row.problems]
    if problems:
        print("\n".join(["", *problems, f"what the machines wrote is in {runs}"]))
        return 1
    print("\nall agree within what is tolerated")
    shutil.rmtree(runs)  # hundreds of megabytes of checkpoints
    return 0


def _mebibytes(folder: Path) -> int:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files) >> 20


if __name__ == "__main__":
    sys.exit(main())
