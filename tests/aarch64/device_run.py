"""What every machine of the comparison does with the bundles: verify, train, continue.

Runs with an installed edgetune, on this machine and inside the emulated one:
`device_run.py OUT --names NAME... --epochs 1 2 --train --continue-from FOLDER...` writes into OUT,
per bundle NAME of tests.bundles.cases: NAME.verify.json, NAME.half.checkpoint after the first
number of epochs, and for each FOLDER, which is a machine's OUT, NAME.from-FOLDER.npz: what that
machine's half was continued to, up to the second number of epochs.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from contextlib import redirect_stdout
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # behind the installed edgetune

import numpy as np

from edgetune.cli.main import main as edgetune
from edgetune.data.dataset import load_data
from edgetune.files.checkpoint import read_checkpoint
from edgetune.runtime.evaluation import evaluate
from edgetune.runtime.open_session import open_session
from tests.bundles.cases import CASES, FOLDER, INT8


def main() -> None:
    """Do what the command line says; ends with edgetune's exit code where that is not zero."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--names", nargs="+", required=True)
    parser.add_argument("--epochs", type=int, nargs=2, required=True, help="half, and whole")
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--continue-from", type=Path, nargs="+", default=[])
    options = parser.parse_args()
    half, whole = options.epochs
    for name in options.names:
        if options.train:
            verify(name, options.out)
            train(name, options.out / f"{name}.half.checkpoint", half)
        for other in options.continue_from:
            mine = options.out / f"{name}.from-{other.name}.checkpoint"
            shutil.copyfile(other / f"{name}.half.checkpoint", mine)
            train(name, mine, whole, "--resume")
            write_result(name, mine)


def verify(name: str, out: Path) -> None:
    """`edgetune verify`, its report into NAME.verify.json."""
    with (out / f"{name}.verify.json").open("w") as file, redirect_stdout(file):
        run("verify", FOLDER / name, "--json")


def train(name: str, checkpoint: Path, epochs: int, *more: str) -> None:
    """`edgetune train` with the bundle's own data, at a constant learning rate."""
    case = CASES[data_name(name)]
    run(
        *("train", FOLDER / name, "--data", data_file(name), "--checkpoint", checkpoint),
        *("--out", checkpoint.with_suffix(".delta"), "--epochs", epochs, "--quiet"),
        *("--learning-rate", case.training["learning_rate"], *more),
    )


def write_result(name: str, checkpoint: Path) -> None:
    """Values, what they were, outputs, loss and accuracy on the data, into an .npz beside it."""
    session = open_session(FOLDER / name)
    arrays = {f"before:{n}": value for n, value in session.values().items()}
    saved = read_checkpoint(checkpoint)
    session.load_state(saved.state)
    data = load_data(str(data_file(name)), session.manifest.signature, session.manifest.loss)
    measured = evaluate(session, data)
    arrays |= {f"after:{n}": value for n, value in session.values().items()}
    (arrays["output"],) = session.predict(dict(data.inputs)).values()
    assert measured.accuracy is not None  # every bundle that is compared classifies
    numbers = {"updates": saved.step, "loss": measured.loss, "accuracy": measured.accuracy}
    arrays |= {n: np.asarray(number) for n, number in numbers.items()}
    np.savez(checkpoint.with_suffix(".npz"), allow_pickle=False, **arrays)


def data_name(name: str) -> str:
    """The case whose data a bundle is trained with."""
    return name.removesuffix("-int8") if name == INT8 else name


def data_file(name: str) -> Path:
    return FOLDER / f"{data_name(name)}.data.npz"


def run(*arguments: object) -> None:
    """The command `edgetune`, in this process: under emulation a new one takes seconds."""
    code = edgetune([str(argument) for argument in arguments])
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
