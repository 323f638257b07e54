"""Predicted against measured peak of the device process, over many plans.

    .venv/bin/python benchmarks/memory_truth.py [--folder build/memory-truth] [--limited]

For each model of workloads/planned.py, two batches and several memory budgets: plan, export, then
`edgetune train` in the device environment, a process of its own, with validation and a checkpoint.
Printed: the process's peak (VmHWM) over the prediction. With --limited each process also runs in a
memory cgroup whose limit is the prediction (needs root, and cgroup v1 or v2 with its controller).
Exit code 1 when a peak exceeds its prediction, the median is off by more than 10 %, or a limited
process is killed.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from edgetune_exporters.export import export
from edgetune_exporters.factory import Example, load_example
from edgetune_exporters.make_plan import Variants, plan_for
from edgetune_exporters.request_importance import request_importance
from memory_cgroup import ROOT, group, start
from results import write_results

from edgetune.errors import BudgetError
from edgetune.files.device_profiles import load_profile
from edgetune.nouns.budget import Budget
from edgetune.nouns.plan_request import PlanRequest
from edgetune.planning.step_cost import StepCosts

MODELS = ("mobilenet_v2", "resnet50", "minilm_l6", "vit_small")
BATCHES = (8, 4)
# Memory budgets between the forward pass (0) and training everything (1).
FRACTIONS = (0.02, 0.08, 0.2, 0.4, 1.0)
STEPS = 3

_CHILD = """
import sys
from edgetune.cli.main import main
from edgetune.runtime.huge_pages import use_huge_pages
use_huge_pages()
code = main(sys.argv[1:])
for line in open("/proc/self/status"):
    if line.startswith("VmHWM"):
        print("peak_bytes", int(line.split()[1]) * 1024)
sys.exit(code)
"""


@dataclass(frozen=True)
class Planned:
    """A bundle to run. predicted_bytes: of the whole process."""

    name: str
    bundle: Path
    batch: int
    micro_batch: int
    tensors: int
    recomputes: bool
    peak_at: str
    predicted_bytes: int


def make_bundles(folder: Path, models: tuple[str, ...]) -> Iterator[Planned]:
    """Plan and export every combination; what does not fit at all is left out."""
    profile = load_profile("generic-x86")
    for model in models:
        example = load_example(f"{ROOT}/benchmarks/workloads/planned.py:{model}")
        for batch in BATCHES:
            # By information, 2 % of a network with random weights are as good as everything: every
            # budget would get the same plan. Scores drawn at random make each budget count.
            request = PlanRequest(profile, batch=batch, criterion="random")
            importance = request_importance(example, request)
            variants = Variants(example, request, importance)
            first = next(iter(variants))
            least, most = _range(first)
            for fraction in FRACTIONS:
                bound = int(least + fraction * (most - least))
                within = replace(
                    request, budget=Budget(memory_bytes=bound), gap=0.02, time_limit_seconds=10
                )
                try:
                    planned = plan_for(variants, importance, within)
                except BudgetError as error:
                    print(f"{model} batch {batch}, {fraction:.0%}: {error}", file=sys.stderr)
                    continue
                name = f"{model}-{batch}-{round(100 * fraction)}"
                export(example, planned, ("portable",), folder / name)
                write_data(example, folder / f"{model}.npz")
                plan = planned.plan
                yield Planned(
                    name,
                    folder / name,
                    batch,
                    plan.micro_batch,
                    len(plan.selection.trainable),
                    plan.recomputes,
                    plan.cost.peak_at,
                    plan.cost.peak_bytes,
                )


def _range(costs: StepCosts) -> tuple[int, int]:
    everything = sum(1 << i for i, c in enumerate(costs.graph.candidates) if c.share is None)
    return costs.cost(0).peak_bytes, costs.cost(everything).peak_bytes


def write_data(example: Example, path: Path) -> None:
    """The example's samples as the data set that a device trains on."""
    if isinstance(example.inputs, dict):
        inputs = {name: value.numpy() for name, value in example.inputs.items()}
    else:
        inputs = {"x": example.inputs.numpy()}
    np.savez(path, **inputs, targets=example.targets.numpy())


def measured_bytes(planned: Planned, python: str, limit: int | None = None) -> int | None:
    """Peak resident bytes of training; None when the process died."""
    data = planned.bundle.parent / f"{planned.name.split('-')[0]}.npz"
    with_checkpoint = planned.bundle.parent / f"{planned.name}.checkpoint"
    command = [python, "-c", _CHILD, "train", str(planned.bundle), "--data", str(data)]
    command += ["--validation", str(data), "--epochs", str(STEPS), "--learning-rate", "1e-5"]
    command += ["--checkpoint", str(with_checkpoint), "--out", str(with_checkpoint) + ".delta"]
    with nullcontext() if limit is None else group("truth", limit) as limited:
        process = start(command) if limited is None else limited.start(command)
        out, errors = process.communicate()
    with_checkpoint.unlink(missing_ok=True)
    Path(str(with_checkpoint) + ".delta").unlink(missing_ok=True)
    found = [line.split()[1] for line in out.splitlines() if line.startswith("peak_bytes")]
    if process.returncode or not found:
        said = (out + errors)[-600:]
        print(f"{planned.name}: exit code {process.returncode}\n{said}", file=sys.stderr)
        return None
    return int(found[0])


def main() -> int:
    """Print the table and the verdict."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "memory-truth")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--device-python", default=str(ROOT / ".venv-device" / "bin" / "python"))
    parser.add_argument("--limited", action="store_true")
    options = parser.parse_args()
    shutil.rmtree(options.folder, ignore_errors=True)
    options.folder.mkdir(parents=True)
    print(
        f"{'plan':20} {'batch':>5} {'micro':>5} {'tensors':>7} {'again':>5} {'predicted':>10} "
        f"{'measured':>9} {'ratio':>6}  peak at",
        flush=True,
    )
    ratios, killed, rows = [], 0, []
    for planned in make_bundles(options.folder, tuple(options.models)):
        measured = measured_bytes(planned, options.device_python)
        survived = True
        if options.limited:
            limit = planned.predicted_bytes
            survived = measured_bytes(planned, options.device_python, limit) is not None
        killed += not survived
        ratio = (measured or 0) / planned.predicted_bytes
        ratios.append(ratio)
        rows.append({"plan": planned.name, "ratio": ratio, "killed": not survived})
        print(
            f"{planned.name:20} {planned.batch:5} {planned.micro_batch:5} {planned.tensors:7} "
            f"{'yes' if planned.recomputes else 'no':>5} {planned.predicted_bytes / 2**20:8.1f} M "
            f"{(measured or 0) / 2**20:7.1f} M {ratio:6.3f}  {planned.peak_at}"
            f"{'' if survived else '  KILLED at its own prediction'}",
            flush=True,
        )
        shutil.rmtree(planned.bundle)
    median = statistics.median(ratios)
    print(
        f"{len(ratios)} plans: measured / predicted from {min(ratios):.3f} to {max(ratios):.3f}, "
        f"median {median:.3f}; {sum(r > 1 for r in ratios)} above the prediction; "
        f"{killed} killed at a limit of the prediction"
    )
    write_results("memory_truth", rows)
    return int(max(ratios) > 1 or min(ratios) == 0 or not median >= 0.9 or killed > 0)


if __name__ == "__main__":
    sys.exit(main())
