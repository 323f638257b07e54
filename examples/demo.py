"""The main job from end to end: `make demo`.

On the workstation (.venv, with PyTorch) a small CNN is trained on digits, planned for a Raspberry
Pi within a memory budget, and exported in both formats. In the device environment (.venv-device,
with stock onnxruntime and neither torch nor onnx) it is verified, adapted to shifted digits,
evaluated and merged. Every command is printed as you would type it.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "demo"
WORKSTATION = Path(sys.executable).parent / "edgetune"
DEVICE = ROOT / ".venv-device" / "bin" / "edgetune"
TARGET = "examples/digits.py:factory --device raspberry-pi-zero-2-w --batch 32"
BUDGET = "--memory 110MiB --step-seconds 85ms"
TRAINING = "--data build/demo/adapt.npz --epochs 10 --schedule cosine"
# Of 0.0005, 0.001, 0.002 and 0.004 the best for each: what trains less stands more.
DENSE_RATE, SPARSE_RATE = 1e-3, 2e-3


@dataclass(frozen=True)
class Row:
    """One line of the table: what was planned, and what came out on the device."""

    name: str
    plan: dict[str, Any]
    result: dict[str, Any]
    accuracy: float
    delta_bytes: int


def main() -> None:
    """Run the demo and print dense against sparse."""
    os.environ["EDGETUNE_DEMO"] = str(FOLDER)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    write_data()
    sparse, official = "build/demo/sparse/portable", "build/demo/sparse/ort-training"
    dense = "build/demo/dense"
    say("1. Plan for a Raspberry Pi within a budget, export both formats, verify with PyTorch")
    formats = "--format portable --format ort-training"
    run(WORKSTATION, f"export {TARGET} {BUDGET} {formats} --out build/demo/sparse")
    run(WORKSTATION, f"export {TARGET} --train '*' --out {dense}")
    say("2. On the device: does the bundle compute here what PyTorch computed there?")
    run(DEVICE, f"verify {sparse}")
    say("3. On the device: before adapting, on shifted digits")
    run(DEVICE, f"evaluate {sparse} --data build/demo/test.npz")
    say("4. On the device: adapt, then write an inference model with the tuned weights")
    adapted = adapt(DEVICE, "sparse, portable", sparse, SPARSE_RATE)
    run(DEVICE, f"merge {sparse} --delta {sparse}.delta.safetensors --out build/demo/tuned.onnx")
    adapted_dense = adapt(DEVICE, "dense, portable", dense, DENSE_RATE)
    say("5. The same plan as ONNX Runtime training artifacts, where that runtime exists")
    adapted_official = adapt(WORKSTATION, "sparse, ort-training", official, SPARSE_RATE)
    print_table([adapted_dense, adapted, adapted_official])


def write_data() -> None:
    """Shifted digits that the network has not seen: 400 to adapt on, 397 to test on."""
    sys.path.insert(0, str(ROOT / "examples"))
    from digits import digits, shifted  # noqa: PLC0415  (beside this file, found from here on)

    images, labels = digits()
    for name, rows in (("adapt", slice(1000, 1400)), ("test", slice(1400, None))):
        np.savez(FOLDER / f"{name}.npz", images=shifted(images[rows]), targets=labels[rows])


def adapt(edgetune: Path, name: str, bundle: str, learning_rate: float) -> Row:
    """Train a bundle on the shifted digits and evaluate it."""
    delta = f"{bundle}.delta.safetensors"
    trained = run(edgetune, f"train {bundle} {TRAINING} --learning-rate {learning_rate} --json")
    evaluated = run(
        edgetune, f"evaluate {bundle} --data build/demo/test.npz --delta {delta} --json"
    )
    return Row(
        name=name,
        plan=json.loads((ROOT / bundle / "manifest.json").read_text())["plan"],
        result=json.loads(trained)["result"],
        accuracy=json.loads(evaluated)["accuracy"],
        delta_bytes=(ROOT / delta).stat().st_size,
    )


def print_table(rows: list[Row]) -> None:
    """Dense against sparse."""
    say("Dense against sparse, on this machine")
    print(
        f"{'':22}{'trainable':>10}{'accuracy':>10}{'step':>10}{'peak predicted':>16}"
        f"{'peak measured':>15}{'delta':>11}"
    )
    for row in rows:
        share = row.plan["trainable_count"] / row.plan["parameter_count"]
        predicted = f"{row.plan['cost']['peak_bytes'] / 2**20:.1f} MiB"
        # The prediction is of the portable step; onnxruntime.training brings torch with it.
        predicted = predicted if "portable" in row.name else "-"
        print(
            f"{row.name:22}{share:>10.1%}{row.accuracy:>10.1%}"
            f"{row.result['median_step_seconds'] * 1e3:>7.1f} ms{predicted:>16}"
            f"{row.result['peak_bytes'] / 2**20:>11.1f} MiB{row.delta_bytes / 1024:>7.0f} KiB"
        )


def say(text: str) -> None:
    """A heading."""
    print(f"\n== {text}", flush=True)


def run(edgetune: Path, command: str) -> str:
    """Run an edgetune command, shown as typed; returns what it printed. Exits if it fails."""
    where = "device" if edgetune == DEVICE else "workstation"
    print(f"[{where}] $ edgetune {command}", flush=True)
    arguments = [str(edgetune), *shlex.split(command)]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    if "--json" not in command:
        print("    " + done.stdout.strip().replace("\n", "\n    "), flush=True)
    return done.stdout


if __name__ == "__main__":
    main()
