"""onnxruntime-training's side, as its documentation shows it: Module, Optimizer, default options.

Job: artifacts (the folder of generate_artifacts), data (an .npz of one batch), inputs (names in the
order of the graph; targets come last), threads (null is one per core).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime import SessionOptions
from onnxruntime.training.api import CheckpointState, Module, Optimizer
from turns import Step, serve

LEARNING_RATE = 1e-5


def load(job: dict[str, Any]) -> Step:
    """One step on a batch in a new order."""
    folder = Path(job["artifacts"])
    state = CheckpointState.load_checkpoint(folder / "checkpoint")
    options = SessionOptions()
    if job["threads"] is not None:
        options.intra_op_num_threads = job["threads"]
    module = Module(
        folder / "training_model.onnx", state, folder / "eval_model.onnx", session_options=options
    )
    optimizer = Optimizer(folder / "optimizer_model.onnx", module)
    optimizer.set_learning_rate(LEARNING_RATE)
    with np.load(job["data"]) as file:
        arrays = [file[name] for name in (*job["inputs"], "targets")]
    generator = np.random.default_rng(0)
    module.train()

    def step() -> None:
        rows = generator.permutation(len(arrays[0]))
        module(*[array[rows] for array in arrays])
        optimizer.step()
        module.lazy_reset_grad()

    return step


if __name__ == "__main__":
    serve(load)
