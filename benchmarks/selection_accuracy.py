"""Accuracy of what is trained, at equal memory: planned against selections made by hand.

    EDGETUNE_DATA=/path/to/data .venv/bin/python benchmarks/selection_accuracy.py [--task signs ...]

For each task the memory budget is what the last two blocks and the head take (on motion: all but
the first layer). Within it compete: the head alone, the biases and the head, the last blocks, and
edgetune's plan by each of the criteria given. All train the same data, batch, epochs and seeds with
AdamW and a cosine; each selection has the learning rate of LEARNING_RATES that serves it best on
seed 0, and is reported as mean and range over the seeds. Prints a table per task and writes
build/bench/selection_accuracy.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from acceptance_sides import CommandFailedError, Device
from acceptance_tasks import TASKS, Task
from edgetune_exporters.export import export
from edgetune_exporters.factory import Example, load_example
from edgetune_exporters.make_plan import PlannedStep, make_plan

from edgetune.errors import BudgetError
from edgetune.files.device_profiles import load_profile
from edgetune.nouns.budget import Budget
from edgetune.nouns.plan_request import PlanRequest

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "selection-accuracy"
LEARNING_RATES = (1e-3, 3e-3)
SEEDS = (0, 1, 2)
# Epochs, batch, and which row of the task's acceptance table sets the budget.
RECIPES = {"signs": (4, 16, 1), "banking77": (2, 16, 1), "motion": (40, 8, 1)}


@dataclass(frozen=True)
class Result:
    """One selection on one task. accuracies: of the seeds, each the mean over the task's parts."""

    task: str
    selection: str
    tensors: int
    trainable_count: int
    peak_bytes: int
    flops: float
    learning_rate: float
    accuracies: tuple[float, ...]


def plans(task: Task, example: Example, criteria: list[str]) -> dict[str, PlannedStep]:
    """The competitors by name, each within the memory of the reference selection."""
    _, batch, reference_row = RECIPES[task.name]
    request = PlanRequest(load_profile(task.device), batch=batch)
    reference = make_plan(
        example, replace(request, patterns=task.rows[reference_row].patterns, micro_batch=batch)
    )
    budget = Budget(memory_bytes=reference.plan.cost.peak_bytes)
    within = replace(request, budget=budget)
    head = task.rows[0].patterns
    found = {
        "head": make_plan(example, replace(within, patterns=head)),
        task.rows[reference_row].selection: reference,
    }
    try:
        found["biases + head"] = make_plan(example, replace(within, patterns=("*.bias", *head)))
    except BudgetError as error:
        print(f"{task.name}: biases + head: {error}", file=sys.stderr)
    for criterion in criteria:
        found[f"planned ({criterion})"] = make_plan(
            example, replace(within, criterion=criterion, gap=0.001, time_limit_seconds=60)
        )
    return found


def trained_accuracy(task: Task, device: Device, bundle: Path, rate: float, seed: int) -> float:
    """Mean accuracy over the task's parts after training in the device environment."""
    epochs = RECIPES[task.name][0]
    found = []
    for part in task.parts:
        delta = bundle.with_suffix(".delta")
        checkpoint = bundle.with_suffix(".checkpoint")
        device.edgetune(
            "train", bundle, "--data", device.folder / part.train, "--epochs", str(epochs), "--lr",
            str(rate), "--schedule", "cosine", "--seed", str(seed), "--out", delta, "--checkpoint",
            checkpoint, "--json",
        )  # fmt: skip
        test = ["--data", device.folder / part.test, "--delta", delta, "--json"]
        found.append(float(device.edgetune("evaluate", bundle, *test)["accuracy"]))
        delta.unlink()
        checkpoint.unlink(missing_ok=True)
    return statistics.fmean(found)


def run_task(task: Task, device_python: Path, criteria: list[str]) -> list[Result]:
    """Plan, export and train every competitor; prints each row as it comes."""
    folder = FOLDER / task.name
    folder.mkdir(parents=True, exist_ok=True)
    if task.name == "motion":  # taught once, then read by every process
        os.environ.setdefault("EDGETUNE_MOTION_WEIGHTS", str(folder / "pretrained.safetensors"))
    task.write_data(folder)
    example = load_example(f"{task.workload}:factory")
    device = Device(device_python, folder)
    print(f"\n## {task.title}\n")
    print("| selection | tensors | trainable | peak | GFLOP a step | lr | accuracy (seeds) |")
    print("|---|---|---|---|---|---|---|", flush=True)
    found = []
    for number, (name, planned) in enumerate(plans(task, example, criteria).items()):
        bundle = folder / f"bundle-{number}"
        export(example, planned, ("portable",), bundle)
        try:
            first = {
                rate: trained_accuracy(task, device, bundle, rate, SEEDS[0])
                for rate in LEARNING_RATES
            }
            best = max(first, key=lambda rate: first[rate])
            rest = [trained_accuracy(task, device, bundle, best, seed) for seed in SEEDS[1:]]
        except CommandFailedError as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        plan = planned.plan
        found.append(
            Result(
                task.name,
                name,
                len(plan.selection.trainable),
                plan.trainable_count,
                plan.cost.peak_bytes,
                plan.cost.flops,
                best,
                (first[best], *rest),
            )
        )
        _print_row(found[-1])
    return found


def _print_row(row: Result) -> None:
    seeds = ", ".join(f"{accuracy:.1%}" for accuracy in row.accuracies)
    print(
        f"| {row.selection} | {row.tensors} | {row.trainable_count:,} | "
        f"{row.peak_bytes / 2**20:.1f} MiB | {row.flops / 1e9:.2f} | {row.learning_rate:g} | "
        f"**{statistics.fmean(row.accuracies):.1%}** ({seeds}) |",
        flush=True,
    )


def main() -> int:
    """Run the tasks that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--task", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--criterion", nargs="+", default=["fisher"])
    parser.add_argument(
        "--device-python", type=Path, default=ROOT / ".venv-device" / "bin" / "python"
    )
    options = parser.parse_args()
    if not os.environ.get("EDGETUNE_DATA"):
        print("EDGETUNE_DATA is not set: it names the folder with the real data", file=sys.stderr)
        return 2
    results = []
    for name in options.task:
        results += run_task(TASKS[name], options.device_python.absolute(), options.criterion)
        path = ROOT / "build" / "bench" / "selection_accuracy.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
