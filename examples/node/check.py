"""Trains test bundles with train.js and with edgetune, and compares: `make node`.

`python examples/node/check.py NAME...`, in an environment with edgetune and onnxruntime, after
`npm ci --ignore-scripts` in this folder.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from edgetune import load_data, open_session
from edgetune.data.dataset import Dataset
from edgetune.runtime.batches import micro_batches, plan_batch
from edgetune.runtime.session import Array, TrainingSession

HERE = Path(__file__).resolve().parent
BUNDLES = HERE.parents[1] / "build" / "test-bundles"
EPOCHS, LEARNING_RATE = 2, 2e-3
TOLERANCE = 1e-3  # of the largest change of each tensor, as between processors (docs/arm.md)


def main() -> int:
    """Print the worst deviation of each bundle; 1 where one is not tolerated."""
    code = 0
    for name in sys.argv[1:]:
        session = open_session(BUNDLES / name)
        before = session.values()
        manifest = session.manifest
        data = load_data(str(BUNDLES / f"{name}.data.npz"), manifest.signature, manifest.loss)
        data = Dataset(data.inputs, data.targets)  # the script knows no weights of samples
        found = train_in_node(name, data)
        train_here(session, data)
        worst = max(
            float(np.abs(found[n] - value).max() / np.abs(value - before[n]).max())
            for n, value in session.values().items()
        )
        print(f"{name}: off by at most {worst:.1e} of what training changed")
        code |= not worst <= TOLERANCE
    return code


def train_in_node(name: str, data: Dataset) -> dict[str, Array]:
    """The values that train.js arrives at."""
    with tempfile.TemporaryDirectory() as folder:
        given, tuned = Path(folder, "data.safetensors"), Path(folder, "tuned.safetensors")
        arrays = {**data.inputs, **data.targets}
        save_file({n: np.ascontiguousarray(array) for n, array in arrays.items()}, given)
        numbers = (str(EPOCHS), str(LEARNING_RATE))
        script = HERE / "train.js"
        subprocess.run(["node", script, BUNDLES / name, given, tuned, *numbers], check=True)
        return load_file(tuned)


def train_here(session: TrainingSession, data: Dataset) -> None:
    """The same updates: the samples in their order."""
    plan = session.manifest.plan
    for _ in range(EPOCHS):
        for start in range(0, len(data), plan.batch):
            rows = np.arange(start, min(start + plan.batch, len(data)))
            batch = plan_batch(data, rows, session.manifest, "the batch")
            for micro in micro_batches(data, batch, plan.micro_batch):
                session.accumulate(micro)
            session.update(LEARNING_RATE, None)


if __name__ == "__main__":
    sys.exit(main())
