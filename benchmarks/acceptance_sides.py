"""The two sides of the acceptance run, each as processes: edgetune's commands, and PyTorch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from acceptance_results import Trained
from acceptance_tasks import Part, Row, Task

HERE = Path(__file__).resolve().parent
# A fair PyTorch keeps malloc's memory from step to step and does not spin against other processes:
# without this it is slower (see fresh pages in every step), with it it holds no more at its peak.
FAIR_TORCH = {
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**26),
    "OMP_WAIT_POLICY": "PASSIVE",
}


class CommandFailedError(Exception):
    """A process of either side ended with an error; the message holds what it said."""


@dataclass(frozen=True)
class Device:
    """Where bundles are trained. folder: an own working directory, far from the sources, so that
    the edgetune that is installed there is the one that runs.
    """

    python: Path
    folder: Path

    def edgetune(self, *arguments: str | Path) -> Any:
        """Run a command of edgetune there; what it prints, as JSON where it asks for --json."""
        return _edgetune(str(self.python), self.folder, *arguments)

    def merged_accuracy(self, model: Path, test: Path) -> float:
        """Of an inference model, on onnxruntime alone."""
        script = str(HERE / "merged_accuracy.py")
        return float(_run([str(self.python), script, str(model), str(test)], self.folder))


def export(task: Task, row: Row, bundle: Path) -> dict[str, Any]:
    """Write the bundle of a row with the workstation's command line; returns what it printed."""
    patterns = [option for pattern in row.patterns for option in ("--train", pattern)]
    printed = _edgetune(
        sys.executable, bundle.parent, "export", f"{task.workload}:factory", "--device",
        task.device, *patterns, "--batch", str(row.batch), "--optimizer", "adamw", "--precision",
        row.precision, "--out", bundle, "--json",
    )  # fmt: skip
    assert isinstance(printed, dict)
    return printed


def train_on_device(
    device: Device, task: Task, row: Row, bundle: Path, part: Part, seed: int
) -> tuple[Trained, float, int]:
    """Train, evaluate and merge there: the training, the merged model's accuracy, delta bytes."""
    data = bundle.parent
    name = f"{bundle.name}-{part.name.replace(' ', '-')}-{seed}"
    delta, checkpoint, log, model = (
        data / f"{name}{suffix}" for suffix in (".safetensors", ".checkpoint", ".jsonl", ".onnx")
    )
    for left_over in (delta, checkpoint, log, model):
        left_over.unlink(missing_ok=True)
    test = ["--data", data / part.test, "--json"]
    initial = device.edgetune("evaluate", bundle, *test)["accuracy"] if task.zero_shot else None
    began = time.perf_counter()
    result = device.edgetune(
        "train", bundle, "--data", data / part.train, "--epochs", str(row.epochs), "--lr",
        str(row.learning_rate), "--schedule", "cosine", "--seed", str(seed), "--out", delta,
        "--checkpoint", checkpoint, "--log", log, "--json",
    )["result"]  # fmt: skip
    seconds = time.perf_counter() - began
    accuracy = device.edgetune("evaluate", bundle, "--delta", delta, *test)["accuracy"]
    device.edgetune("merge", bundle, "--delta", delta, "--out", model)
    steps = [json.loads(line) for line in log.read_text().splitlines()]
    steps = [step for step in steps if step["event"] == "step"]
    trained = Trained(
        accuracy,
        initial,
        [step["loss"] for step in steps],
        [step["step_seconds"] for step in steps],
        result["peak_bytes"],
        seconds,
    )
    return trained, device.merged_accuracy(model, data / part.test), delta.stat().st_size


def train_in_torch(task: Task, row: Row, bundle: Path, part: Part, seed: int) -> Trained:
    """The same training in PyTorch on this workstation."""
    job = {
        "workload": task.name,
        "folds": task.folds,
        "zero_shot": task.zero_shot,
        "trainable": torch_names(json.loads((bundle / "manifest.json").read_text())),
        "train": str(bundle.parent / part.train),
        "test": str(bundle.parent / part.test),
        "learning_rate": row.learning_rate,
        "epochs": row.epochs,
        "batch": row.batch,
        "seed": seed,
    }
    began = time.perf_counter()
    script = [sys.executable, str(HERE / "torch_side.py")]
    printed = _run(script, bundle.parent, json.dumps(job), {**os.environ, **FAIR_TORCH})
    return replace(Trained(**json.loads(printed)), process_seconds=time.perf_counter() - began)


def torch_names(manifest: Mapping[str, Any]) -> list[str]:
    """The selection by the names of the model that torch.fx folded.

    A convolution that had no bias gets one there; in a bundle it bears the BatchNorm's name.
    """
    renamed = {f["bias"]: f["weight"].removesuffix("weight") + "bias" for f in manifest["folded"]}
    return [renamed.get(name, name) for name in manifest["plan"]["selection"]["trainable"]]


def array_bytes(path: Path) -> tuple[int, int]:
    """Samples in an .npz file, and the bytes of its arrays in memory."""
    with np.load(path) as file:
        return len(file["targets"]), sum(file[name].nbytes for name in file.files)


def _edgetune(python: str, folder: Path, *arguments: str | Path) -> Any:
    command = [python, "-m", "edgetune.cli.main", *map(str, arguments)]
    printed = _run(command, folder)
    return json.loads(printed) if "--json" in arguments else printed


def _run(
    command: list[str],
    folder: Path,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        input=stdin,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr.strip() or "nothing on stderr").splitlines()
        shown = " ".join(command)
        raise CommandFailedError(f"exit code {done.returncode} of `{shown}`: {said[-1]}")
    return done.stdout
