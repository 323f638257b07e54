"""Predicted against measured step times of many plans on this machine.

    .venv/bin/python benchmarks/time_truth.py [--folder build/time-truth]

Rates are calibrated on other models first: steps of the calibration models are timed, and the rate
of each operator class, the bandwidth and the overhead per operator are fitted to them (non-negative
least squares). Then plans of the four models of workloads/planned.py, from the head alone to
everything, are exported and timed, all plans of a model interleaved in one process of the device
environment. Printed: predicted and measured seconds (the least of all rounds, for other work on the
machine only ever adds), and Spearman's rank correlation per model and over all; build/bench has the
rows. Exit code 1 when it is below 0.95 over all plans.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from edgetune_exporters.export import export
from edgetune_exporters.factory import load_example
from edgetune_exporters.make_plan import Variants, plan_for
from scipy.optimize import nnls
from scipy.stats import spearmanr

from edgetune.errors import ExportError
from edgetune.files.device_profiles import load_profile
from edgetune.nouns.plan_request import PlanRequest
from edgetune.nouns.profile import DeviceProfile, Quantity
from edgetune.nouns.selection import Selection
from edgetune.nouns.step_graph import StepGraph
from edgetune.planning.device_time import moved_bytes
from edgetune.planning.named_selections import named_selections
from edgetune.planning.split import split_step
from edgetune.planning.step_cost import cost_of

ROOT = Path(__file__).resolve().parent.parent
CALIBRATION = ("resnet18_224", "mobilenet_v1_160", "bert_2x256", "cnn_64")
JUDGED = ("mobilenet_v2", "resnet50", "minilm_l6", "vit_small")
BATCH = 8
CLASSES = ("convolution", "pointwise", "depthwise", "matmul")

_CHILD = """
import json, sys, time
from pathlib import Path
from edgetune.runtime.open_session import open_as_exported
from edgetune.runtime.self_test import read_self_test
rounds, folders = int(sys.argv[1]), [Path(name) for name in sys.argv[2:]]
opened = [(open_as_exported(folder), read_self_test(folder)) for folder in folders]
times = [[] for _ in folders]
for number in range(rounds + 1):
    for place, (session, recorded) in enumerate(opened):
        start = time.perf_counter()
        for _ in range(session.manifest.plan.batch // session.manifest.plan.micro_batch):
            session.accumulate(recorded.batch)
        session.update(1e-5, None)
        if number:
            times[place].append(time.perf_counter() - start)
print(json.dumps(times))
"""


@dataclass(frozen=True)
class Timed:
    """One exported plan."""

    model: str
    name: str
    folder: Path
    selection: Selection


def bundles(model: str, folder: Path, request: PlanRequest) -> tuple[StepGraph, list[Timed]]:
    """The dense step of a model, and its hand-made selections, exported."""
    example = load_example(f"{ROOT}/benchmarks/workloads/planned.py:{model}")
    variants = Variants(example, request, None)
    graph = next(iter(variants)).graph
    found = []
    for name, chosen in named_selections([c.name for c in graph.candidates]).items():
        planned = plan_for(variants, None, replace(request, patterns=chosen))
        target = folder / f"{model}-{name.replace(' ', '-')}"
        try:
            export(example, planned, ("portable",), target)
        except ExportError as error:
            # With random weights a ReLU's input may lie so near to zero that rounding decides.
            print(f"{model}, {name}, is left out: {error}", file=sys.stderr)
            continue
        found.append(Timed(model, name, target, planned.plan.selection))
    return graph, found


def measure(timed: list[Timed], python: str, rounds: int) -> list[list[float]]:
    """Seconds of every step of every bundle, interleaved in one process."""
    command = [python, "-c", _CHILD, str(rounds), *(str(item.folder) for item in timed)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    times: list[list[float]] = json.loads(done.stdout.splitlines()[-1])
    return times


def work_of(graph: StepGraph, selection: Selection) -> list[float]:
    """FLOPs by class, bytes moved by element-wise operations, and the number of operations."""
    split = split_step(graph, selection)
    running = [o for o in (*split.prefix, *split.tail) if o.operator_class != "view"]
    by_class = [sum(o.flops for o in running if o.operator_class == kind) for kind in CLASSES]
    moved = sum(moved_bytes(o, graph) for o in running if o.operator_class == "elementwise")
    return [*by_class, moved, len(running)]


def fitted_profile(works: list[list[float]], seconds: list[float]) -> DeviceProfile:
    """The profile whose rates explain the measured steps; relative errors count."""
    matrix, target = np.array(works), np.array(seconds)
    scale = matrix.max(axis=0)
    weights = 1 / target
    found, _ = nnls(matrix / scale * weights[:, None], target * weights)
    *per_flop, per_byte, per_operator = np.maximum(found / scale, 1e-15)

    def quantity(value: float, unit: str) -> Quantity:
        return Quantity(float(value), unit, "measured", "benchmarks/time_truth.py", "2026-11-25")

    return replace(
        load_profile("generic-x86"),
        flops_per_second={
            kind: quantity(1 / cost, "flop/s") for kind, cost in zip(CLASSES, per_flop, strict=True)
        },
        bandwidth_bytes_per_second=quantity(1 / per_byte, "byte/s"),
        dispatch_seconds=quantity(per_operator, "s"),
    )


def main() -> int:
    """Calibrate, measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "time-truth")
    parser.add_argument("--device-python", default=str(ROOT / ".venv-device" / "bin" / "python"))
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    shutil.rmtree(options.folder, ignore_errors=True)
    options.folder.mkdir(parents=True)
    request = PlanRequest(
        load_profile("generic-x86"), batch=BATCH, micro_batch=BATCH, recomputation=False
    )
    works, seconds = [], []
    for model in CALIBRATION:
        graph, timed = bundles(model, options.folder, request)
        for item, times in zip(
            timed, measure(timed, options.device_python, options.rounds), strict=True
        ):
            works.append(work_of(graph, item.selection))
            seconds.append(min(times))
    profile = fitted_profile(works, seconds)
    rates = {kind: rate.value / 1e9 for kind, rate in profile.flops_per_second.items()}
    assert profile.bandwidth_bytes_per_second and profile.dispatch_seconds
    print("calibrated on", ", ".join(CALIBRATION), end=": ")
    print(", ".join(f"{kind} {rate:.1f} GFLOP/s" for kind, rate in rates.items()), end=", ")
    print(f"{profile.bandwidth_bytes_per_second.value / 1e9:.1f} GB/s, ", end="")
    print(f"{profile.dispatch_seconds.value * 1e6:.1f} us per operator")
    print(f"{'model':14} {'selection':26} {'predicted':>10} {'measured':>10} {'ratio':>6}  spread")
    predicted_all, measured_all, correlations, rows = [], [], {}, []
    for model in JUDGED:
        graph, timed = bundles(model, options.folder, request)
        predicted, measured = [], []
        for item, times in zip(
            timed, measure(timed, options.device_python, options.rounds), strict=True
        ):
            cost = cost_of(graph, item.selection, BATCH, request.optimizer, profile)
            assert cost.seconds is not None
            least, (low, high) = min(times), np.percentile(times, [25, 75])
            predicted.append(cost.seconds)
            measured.append(least)
            rows.append({"plan": f"{model} {item.name}", "predicted": cost.seconds, "steps": times})
            print(
                f"{model:14} {item.name:26} {cost.seconds * 1e3:7.1f} ms {least * 1e3:7.1f} ms "
                f"{cost.seconds / least:6.2f}  {low * 1e3:.1f}-{high * 1e3:.1f} ms",
                flush=True,
            )
        correlations[model] = float(spearmanr(predicted, measured).statistic)
        predicted_all += predicted
        measured_all += measured
    overall = float(spearmanr(predicted_all, measured_all).statistic)
    ratios = sorted(p / m for p, m in zip(predicted_all, measured_all, strict=True))
    print(
        "rank correlation: "
        + ", ".join(f"{model} {value:.3f}" for model, value in correlations.items())
        + f"; over all {len(ratios)} plans {overall:.3f}; predicted / measured from "
        f"{ratios[0]:.2f} to {ratios[-1]:.2f}, median {ratios[len(ratios) // 2]:.2f}"
    )
    build = ROOT / "build" / "bench"
    build.mkdir(parents=True, exist_ok=True)
    (build / "time_truth.json").write_text(json.dumps(rows, indent=1) + "\n")
    return int(overall < 0.95)


if __name__ == "__main__":
    sys.exit(main())
