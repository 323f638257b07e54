"""Accuracy of what is trained, at equal memory: planned against selections made by hand.

    EDGETUNE_DATA=/path/to/data .venv/bin/python benchmarks/selection_accuracy.py [--task signs ...]

For each task the memory budget is what the last blocks and the head take with the batch at once
(on motion: all but the first layer). What competes within it stands in selection_plans.py.
Importance is measured on training samples; criteria other than the default come by --criterion.
All train with the same data, batch, epochs and seeds, with AdamW and a cosine. Each has its own
learning rate: of LEARNING_RATES the one that is best on one half of the training samples after
training on the other, with the first seed; the test samples are not looked at for it. Prints a
table per task; build/bench/selection_accuracy.json has each row as soon as it is there.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from acceptance_tasks import TASKS, Part, Task
from edgetune_exporters.export import export
from edgetune_exporters.factory import Example, load_example
from report import table
from selection_plans import competitors

from edgetune.files.atomic import write_atomically
from edgetune.nouns.plan import UpdatePlan
from edgetune.nouns.plan_request import PlanRequest

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "selection-accuracy"
RESULTS = ROOT / "build" / "bench" / "selection_accuracy.json"
LEARNING_RATES = (3e-4, 1e-3, 3e-3, 1e-2)
SEEDS = (0, 1, 2)
CALIBRATION_SAMPLES = 64
_MIB = 2**20


@dataclass(frozen=True)
class Recipe:
    """How a task is trained here.

    reference: the row of the task's acceptance table whose memory is the budget. samples: how many
    of the training samples, None for all.
    """

    epochs: int
    batch: int
    reference: int = 1
    samples: int | None = None


RECIPES = {
    "signs": Recipe(2, 16),
    "banking77": Recipe(3, 16, samples=2000),
    "motion": Recipe(40, 8),
}


@dataclass(frozen=True)
class Result:
    """One selection on one task.

    seconds: of a step as predicted for the task's device; here other work may run beside it.
    tuning: the accuracy of each of LEARNING_RATES on the half that was kept back. accuracies: of
    the seeds, each the mean over the task's parts.
    """

    task: str
    selection: str
    trained: tuple[str, ...]
    trainable_count: int
    parameter_count: int
    micro_batch: int
    recomputes: bool
    peak_bytes: int
    flops: float
    seconds: float | None
    learning_rate: float
    tuning: tuple[float, ...]
    accuracies: tuple[float, ...]


def run_task(task: Task, device_python: Path, criteria: list[str], only: list[str] | None) -> None:
    """Plan every competitor, export and train those in `only`; prints the table at its end."""
    folder = FOLDER / task.name
    folder.mkdir(parents=True, exist_ok=True)
    if task.name == "motion":  # taught once, then read by every process
        os.environ.setdefault("EDGETUNE_MOTION_WEIGHTS", str(folder / "pretrained.safetensors"))
    task.write_data(folder)
    recipe = RECIPES[task.name]
    pairs = [_split(folder, part, recipe.samples) for part in task.parts]
    example = load_example(f"{task.workload}:factory")
    calibration = on_training_samples(example, [folder / train for (train, _), _ in pairs])
    found: list[Result] = []
    outcomes: dict[object, Mapping[str, Any]] = {}  # of plans that are alike, trained once
    for number, competitor in enumerate(
        competitors(task, example, calibration, recipe.batch, recipe.reference, criteria)
    ):
        if competitor.planned is None:
            print(f"{task.name}: {competitor.name}: {competitor.why}", file=sys.stderr)
            continue
        if only and competitor.name not in only:
            continue
        plan = competitor.planned.plan
        chosen = plan.selection
        shares = tuple(chosen.shares.items())
        alike = (chosen.trainable, shares, plan.micro_batch, plan.recomputes)
        if alike not in outcomes:
            bundle = folder / f"bundle-{number}"
            export(example, competitor.planned, ("portable",), bundle)
            job = {
                "bundle": str(bundle),
                "epochs": recipe.epochs,
                "rates": LEARNING_RATES,
                "seeds": SEEDS,
                "parts": [part for part, _ in pairs],
                "tuning": [tuning for _, tuning in pairs],
            }
            outcomes[alike] = _on_device(device_python, folder, job)
        found.append(_result(task, competitor.name, plan, outcomes[alike]))
        _keep(found[-1])
        print(f"{task.name}: {' | '.join(_row(found[-1]))}", file=sys.stderr, flush=True)
    print(f"\n## {task.title}\n\n{table([HEADING, *map(_row, found)])}\n", flush=True)


def on_training_samples(example: Example, paths: list[Path]) -> Example:
    """The example with CALIBRATION_SAMPLES of the samples in the files `paths`, drawn at random."""
    files = [np.load(path) for path in paths]
    arrays = {name: np.concatenate([file[name] for file in files]) for name in files[0].files}
    targets = arrays.pop("targets")
    rows = np.random.default_rng(0).permutation(len(targets))[:CALIBRATION_SAMPLES]
    tensors = {name: torch.from_numpy(array[rows]) for name, array in arrays.items()}
    by_name = isinstance(example.inputs, Mapping)
    inputs = tensors if by_name else next(iter(tensors.values()))
    return Example(example.model, inputs, torch.from_numpy(targets[rows]), example.loss)


def _keep(result: Result) -> None:
    """Put the row into the results, in the place of one of the same task and selection."""
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    name = (result.task, result.selection)
    others = [row for row in rows if (row["task"], row["selection"]) != name]
    write_atomically(RESULTS, (json.dumps([*others, asdict(result)], indent=1) + "\n").encode())


Pair = tuple[str, str]


def _split(folder: Path, part: Part, samples: int | None) -> tuple[Pair, Pair]:
    """(training, test) to report, and of the training samples (one half, the other) to tune on."""
    with np.load(folder / part.train) as file:
        arrays = {name: file[name][:samples] for name in file.files}
    order = np.random.default_rng(0).permutation(len(arrays["targets"]))
    half = len(order) // 2
    stem = Path(part.train).stem
    pieces = {"all": slice(None), "tune": order[:half], "check": order[half:]}
    for name, rows in pieces.items():
        np.savez(
            folder / f"{stem}-{name}.npz", **{key: array[rows] for key, array in arrays.items()}
        )
    return (f"{stem}-all.npz", part.test), (f"{stem}-tune.npz", f"{stem}-check.npz")


def _on_device(python: Path, folder: Path, job: Mapping[str, Any]) -> Mapping[str, Any]:
    """What selection_side.py makes of the job in the device environment."""
    script = str(Path(__file__).with_name("selection_side.py"))
    done = subprocess.run(
        [str(python), script],
        cwd=folder,
        input=json.dumps(job),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    outcome: Mapping[str, Any] = json.loads(done.stdout)
    return outcome


def _result(task: Task, name: str, plan: UpdatePlan, outcome: Mapping[str, Any]) -> Result:
    return Result(
        task=task.name,
        selection=name,
        trained=plan.selection.trainable,
        trainable_count=plan.trainable_count,
        parameter_count=plan.parameter_count,
        micro_batch=plan.micro_batch,
        recomputes=plan.recomputes,
        peak_bytes=plan.cost.peak_bytes,
        flops=plan.cost.flops,
        seconds=plan.cost.seconds,
        learning_rate=outcome["learning_rate"],
        tuning=tuple(outcome["tuning"]),
        accuracies=tuple(outcome["accuracies"]),
    )


HEADING = (
    "selection", "trainable", "micro-batch", "peak", "GFLOP a step", "step", "rate", "accuracy",
    "by seed",
)  # fmt: skip


def _row(row: Result) -> tuple[str, ...]:
    again = ", recomputes" if row.recomputes else ""
    return (
        row.selection,
        f"{row.trainable_count / row.parameter_count:.1%}",
        f"{row.micro_batch}{again}",
        f"{row.peak_bytes / _MIB:.1f} MiB",
        f"{row.flops / 1e9:.3g}",
        "-" if row.seconds is None else f"{1e3 * row.seconds:.3g} ms",
        f"{row.learning_rate:g}",
        f"{statistics.fmean(row.accuracies):.1%}",
        " ".join(f"{100 * accuracy:.1f}" for accuracy in row.accuracies),
    )


def main() -> int:
    """Run the tasks that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--task", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--selection", nargs="+", help="only rows of these names (default: all)")
    parser.add_argument("--criterion", nargs="+", default=[PlanRequest.criterion])
    parser.add_argument(
        "--device-python", type=Path, default=ROOT / ".venv-device" / "bin" / "python"
    )
    options = parser.parse_args()
    if not os.environ.get("EDGETUNE_DATA"):
        print("EDGETUNE_DATA is not set: it names the folder with the real data", file=sys.stderr)
        return 2
    for name in options.task:
        run_task(
            TASKS[name], options.device_python.absolute(), options.criterion, options.selection
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
