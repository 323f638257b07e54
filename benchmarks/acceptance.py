"""`make acceptance`: edgetune against PyTorch on real models and real data.

For each task and selection: export on the workstation, train, evaluate and merge in the device
environment, train the same in PyTorch (same seed, order, batch, optimizer), and compare. Prints
tables and writes build/acceptance/TASK.json. The exit code is 1 when an accuracy differs by more
than half a point from PyTorch's (of a frozen part in 8 bits: is worse by more) or anything fails, 2
when it cannot start.

Two fp32 implementations walk the same path only until their roundings have grown: a run whose
accuracy differs by more than that with seed 0 is repeated with all of EXTRA_SEEDS, the means over
all seeds are compared, and every seed is shown.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch
from acceptance_results import RowResult, Run
from acceptance_sides import (
    CommandFailedError,
    Device,
    array_bytes,
    export,
    train_in_torch,
    train_on_device,
)
from acceptance_tasks import TASKS, Part, Row, Task
from report import accuracy_table, memory_table, parts_table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "build" / "acceptance"
EXTRA_SEEDS = (1, 2)


def main() -> int:
    """Run the tasks that the command line names; returns the exit code."""
    options = _parser().parse_args()
    device_python = options.device_python.absolute()  # not resolved: an environment's is a link
    reason = _cannot_start(device_python)
    if reason:
        print(f"acceptance: {reason}", file=sys.stderr)
        return 2
    problems = []
    for name in options.task or TASKS:
        try:
            problems += run_task(TASKS[name], device_python, options.selection)
        except OSError as error:  # data that is not there
            problems.append(f"{name}: {error}")
    for problem in problems:
        print(f"acceptance: FAILED: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--task", nargs="+", choices=TASKS, help="only these (default: all)")
    parser.add_argument("--selection", nargs="+", help="only rows of these names (default: all)")
    parser.add_argument(
        "--device-python",
        type=Path,
        default=ROOT / ".venv-device" / "bin" / "python",
        help="the Python of the device environment (default: .venv-device/bin/python)",
    )
    return parser


def _cannot_start(device_python: Path) -> str | None:
    if not os.environ.get("EDGETUNE_DATA"):
        return "EDGETUNE_DATA is not set: it names the folder with the real data"
    os.environ["EDGETUNE_DATA"] = str(Path(os.environ["EDGETUNE_DATA"]).resolve())
    if not device_python.is_file():
        return f"there is no {device_python}: run `make setup`, or pass --device-python"
    return None


def run_task(task: Task, device_python: Path, selections: list[str] | None) -> list[str]:
    """Run one task, print its tables, write its JSON; returns what failed."""
    began = time.perf_counter()
    print(f"\n## {task.title}", flush=True)
    folder = RESULTS / task.name
    folder.mkdir(parents=True, exist_ok=True)
    if task.name == "motion":  # taught once, then read by every process
        os.environ.setdefault("EDGETUNE_MOTION_WEIGHTS", str(folder / "pretrained.safetensors"))
    task.write_data(folder)
    device = Device(device_python, folder)
    rows = [
        _run_row(task, row, device, folder / f"bundle-{index}")
        for index, row in enumerate(task.rows)
        if not selections or row.selection in selections
    ]
    seconds = time.perf_counter() - began
    _print(task, rows, seconds)
    _write_json(task, rows, seconds)
    return [f"{task.name}, {row.selection}: {what}" for row in rows for what in row.problems()]


def _run_row(task: Task, row: Row, device: Device, bundle: Path) -> RowResult:
    recipe = f"{row.learning_rate:g}, {row.epochs} epochs of {row.batch}"
    result = RowResult(row.selection, recipe, row.precision == "fp32", row.note)
    try:
        began = time.perf_counter()
        plan = export(task, row, bundle)["plan"]
        result.export_seconds = time.perf_counter() - began
        result.trainable_count = plan["trainable_count"]
        result.trainable_share = plan["trainable_count"] / plan["parameter_count"]
        result.predicted_peak_bytes = plan["cost"]["peak_bytes"]
        _run_seed(result, task, row, device, bundle, 0)
        if not result.agrees:
            for seed in EXTRA_SEEDS:
                _run_seed(result, task, row, device, bundle, seed)
    except CommandFailedError as error:
        result.failures.append(str(error))
        print(f"{row.selection}: {error}", flush=True)
    return result


def _run_seed(
    result: RowResult, task: Task, row: Row, device: Device, bundle: Path, seed: int
) -> None:
    for part in task.parts:
        run = _run_part(task, row, device, bundle, part, seed)
        result.runs.append(run)
        print(
            f"{row.selection}, {part.name}, seed {seed}: edgetune {run.edgetune.accuracy:.2%} "
            f"(merged {run.merged_accuracy:.2%}) in {run.edgetune.process_seconds:.0f} s, PyTorch "
            f"{run.torch.accuracy:.2%} in {run.torch.process_seconds:.0f} s",
            flush=True,
        )


def _run_part(task: Task, row: Row, device: Device, bundle: Path, part: Part, seed: int) -> Run:
    folder = bundle.parent
    load = os.getloadavg()[0]
    trained, merged_accuracy, delta_bytes = train_on_device(device, task, row, bundle, part, seed)
    return Run(
        part=part.name,
        seed=seed,
        test_samples=array_bytes(folder / part.test)[0],
        data_bytes=array_bytes(folder / part.train)[1],
        edgetune=trained,
        torch=train_in_torch(task, row, bundle, part, seed),
        merged_accuracy=merged_accuracy,
        delta_bytes=delta_bytes,
        load_average=load,
    )


def _print(task: Task, rows: list[RowResult], seconds: float) -> None:
    print(f"\n{accuracy_table(rows)}\n\n{memory_table(rows)}")
    for row in rows:
        if row.note:
            print(f"\n{row.selection}: {row.note}")
        if task.zero_shot and row.runs:
            print(f"\n{row.selection}:\n\n{parts_table(row)}")
    print(f"\n{task.name} took {seconds / 60:.1f} minutes", flush=True)


def _write_json(task: Task, rows: list[RowResult], seconds: float) -> None:
    document = {
        "task": task.name,
        "title": task.title,
        "device_profile": task.device,
        "machine": f"{platform.machine()}, {os.cpu_count()} processors, {platform.system()}",
        "torch": torch.__version__,
        "seconds": seconds,
        "problems": {row.selection: row.problems() for row in rows},
        "rows": [asdict(row) for row in rows],
    }
    path = RESULTS / f"{task.name}.json"
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"written to {path}")


if __name__ == "__main__":
    sys.exit(main())
