"""Trains one selection in PyTorch, in a process of its own, for the acceptance run.

Reads a job as JSON on stdin (see `train_in_torch` in acceptance_sides.py) and prints the outcome
as JSON. All that trains is in torch_reference.py.
"""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch_reference as reference
from acceptance_results import Trained


def peak_bytes() -> int:
    """Peak resident memory of this process (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmHWM")


def run(job: dict[str, Any]) -> Trained:
    """Train as the job says; memory is read before the test data come in."""
    model, _, loss = importlib.import_module(f"workloads.{job['workload']}").factory()
    if job["folds"]:
        model = reference.fold_batch_norm(model)
    batch = job["batch"]
    initial = None
    if job["zero_shot"]:
        initial = reference.accuracy(model, reference.load(Path(job["test"])), batch)
    data = reference.load(Path(job["train"]))
    # train() ends with an accuracy, which must not need more memory than a step: give it a sample.
    sample = reference.Arrays({n: a[:1] for n, a in data.inputs.items()}, data.targets[:1])
    recipe = reference.Recipe(
        reference.AdamW(job["learning_rate"]), job["epochs"], batch, job["seed"], "cosine"
    )
    outcome = reference.train(model, loss, job["trainable"], data, sample, recipe)
    peak = peak_bytes()
    accuracy = reference.accuracy(model, reference.load(Path(job["test"])), batch)
    return Trained(accuracy, initial, outcome.losses, outcome.step_seconds, peak, 0.0)


if __name__ == "__main__":
    json.dump(asdict(run(json.load(sys.stdin))), sys.stdout)
