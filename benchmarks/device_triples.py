"""Do plans train within the memory of the devices they are for? (device, model, budget) triples.

    .venv/bin/python benchmarks/device_triples.py [--models minilm_l6 ...] [--devices ID ...]

A budget is a share of the device's usable memory. For each triple: plan within it, export, then
`edgetune train` in the device environment, with validation, a checkpoint and the feature cache, in
a memory cgroup whose limit is the budget, with its files' cached pages dropped first (but for what
another process has mapped: that is charged to nobody). A plan predicts the process without its data
set, so the plan has the budget less the data. Printed: the prediction with
the data, the peak of the process (VmHWM), of the cgroup (page cache included, which the kernel
takes back before it kills), and how it ended. build/bench/device_triples.json keeps the rows, those
of earlier runs of other triples too.
Needs root and cgroup v1 or v2 with the memory controller. Exit code 1 when a run does not end
with 0.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from edgetune_exporters.export import export
from edgetune_exporters.factory import Example, load_example
from edgetune_exporters.make_plan import make_plan
from memory_cgroup import ROOT, forget, group
from memory_truth import write_data
from results import BENCH, write_results

from edgetune.files.device_profiles import load_profile
from edgetune.nouns.budget import Budget
from edgetune.nouns.plan import UpdatePlan
from edgetune.nouns.plan_request import PlanRequest

MIB = 2**20
EPOCHS = 3
KILLED = -9
OUT = BENCH / "device_triples.json"


@dataclass(frozen=True)
class Triple:
    """share: of the device's usable memory, which is the budget."""

    device: str
    model: str
    share: float


TRIPLES = (
    Triple("raspberry-pi-zero-2-w", "cnn_64", 0.24),
    Triple("raspberry-pi-zero-2-w", "mobilenet_v2_96", 0.25),
    Triple("raspberry-pi-3b-plus", "mobilenet_v2_96", 0.15),
    Triple("raspberry-pi-zero-2-w", "mobilenet_v2", 0.4),
    Triple("raspberry-pi-3b-plus", "mobilenet_v2", 0.3),
    Triple("pinephone-2gb", "mobilenet_v2", 0.2),
    Triple("raspberry-pi-zero-2-w", "resnet18_160", 0.5),
    Triple("raspberry-pi-3b-plus", "resnet18_160", 0.25),
    Triple("raspberry-pi-zero-2-w", "minilm_l6", 0.5),
    Triple("raspberry-pi-4b-1gb", "minilm_l6", 0.4),
    Triple("raspberry-pi-5-4gb", "minilm_l6", 0.12),
    Triple("raspberry-pi-3b-plus", "bert_2x256", 0.2),
    Triple("phone-snapdragon-865-8gb", "bert_2x256", 0.04),
    Triple("raspberry-pi-4b-1gb", "resnet50", 0.4),
    Triple("jetson-nano-4gb", "resnet50", 0.15),
)
MODELS = tuple(dict.fromkeys(triple.model for triple in TRIPLES))
DEVICES = tuple(dict.fromkeys(triple.device for triple in TRIPLES))


@dataclass(frozen=True)
class Row:
    """What became of a triple. All bytes are of the process with its data.

    process_bytes: None where it did not end by itself.
    outcome: "finished", "stopped" (by the guard), "killed" or "failed".
    """

    device: str
    model: str
    budget_bytes: int
    predicted_bytes: int
    process_bytes: int | None
    cgroup_bytes: int
    trainable_share: float
    micro_batch: int
    outcome: str


def run(triple: Triple, folder: Path, python: str) -> Row:
    """Plan, export and train one triple."""
    example = load_example(f"{ROOT}/benchmarks/workloads/planned.py:{triple.model}")
    profile = load_profile(triple.device)
    assert profile.usable_memory_bytes is not None
    budget = int(triple.share * profile.usable_memory_bytes.value)
    bundle, data = folder / "bundle", folder / "data.npz"
    write_data(example, data)
    data_bytes = 2 * _bytes_of(data)  # it validates on the same samples
    plan = _export(example, triple.device, budget - data_bytes, bundle)
    command = [python, "-m", "edgetune.cli.main", "train", str(bundle), "--json"]
    command += ["--data", str(data), "--validation", str(data), "--epochs", str(EPOCHS)]
    for cached in (folder, Path(python).parent.parent):
        forget(cached)
    with group("triple", budget) as limited:
        process = limited.start([*command, "--learning-rate", "1e-5"])
        printed, errors = process.communicate()
        cgroup_bytes = limited.peak_bytes
    if process.returncode:
        print(f"{triple}: exit code {process.returncode}\n{errors[-400:]}", file=sys.stderr)
    return Row(
        device=triple.device,
        model=triple.model,
        budget_bytes=budget,
        predicted_bytes=plan.cost.peak_bytes + data_bytes,
        process_bytes=json.loads(printed)["result"]["peak_bytes"] if printed else None,
        cgroup_bytes=cgroup_bytes,
        trainable_share=plan.trainable_share,
        micro_batch=plan.micro_batch,
        outcome=_outcome(process.returncode),
    )


def _export(example: Example, device: str, memory_bytes: int, bundle: Path) -> UpdatePlan:
    request = PlanRequest(
        load_profile(device),
        Budget(memory_bytes=memory_bytes),
        criterion="magnitude",  # spread over all tensors: so the budget is what holds it back
        gap=0.02,
        time_limit_seconds=10,
    )
    planned = make_plan(example, request)
    export(example, planned, ("portable",), bundle)
    return planned.plan


def _bytes_of(data: Path) -> int:
    with np.load(data) as archive:
        return sum(archive[name].nbytes for name in archive.files)


def _outcome(code: int) -> str:
    if code == KILLED:
        return "killed"
    return {0: "finished", 20: "stopped"}.get(code, "failed")


def _print(row: Row) -> None:
    sizes = (row.budget_bytes, row.predicted_bytes, row.process_bytes, row.cgroup_bytes)
    numbers = " ".join("        -" if n is None else f"{n / MIB:7.1f} M" for n in sizes)
    print(
        f"{row.device:25} {row.model:16} {row.trainable_share:6.1%} {row.micro_batch:5} "
        f"{numbers}  {row.outcome}",
        flush=True,
    )


def _keep(rows: list[Row]) -> None:
    """Put the rows into the JSON, over those of the same triples."""
    earlier = json.loads(OUT.read_text()) if OUT.exists() else []
    found = {(r["device"], r["model"]): r for r in (*earlier, *map(asdict, rows))}
    write_results("device_triples", list(found.values()))


def main() -> int:
    """Print the table and the verdict."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "device-triples")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--devices", nargs="+", default=list(DEVICES), choices=DEVICES)
    parser.add_argument("--device-python", default=str(ROOT / ".venv-device" / "bin" / "python"))
    options = parser.parse_args()
    print(
        f"{'device':25} {'model':16} {'trains':>6} {'micro':>5} {'budget':>9} {'predicted':>9} "
        f"{'process':>9} {'cgroup':>9}  outcome",
        flush=True,
    )
    rows = []
    for triple in TRIPLES:
        if triple.model in options.models and triple.device in options.devices:
            shutil.rmtree(options.folder, ignore_errors=True)
            options.folder.mkdir(parents=True)
            rows.append(run(triple, options.folder, options.device_python))
            _print(rows[-1])
            _keep(rows)
    finished = sum(row.outcome == "finished" for row in rows)
    killed = sum(row.outcome == "killed" for row in rows)
    print(f"{finished} of {len(rows)} trained to the end within their budget, {killed} killed")
    return int(finished < len(rows))


if __name__ == "__main__":
    sys.exit(main())
