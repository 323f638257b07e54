"""Predicted against measured step times of many plans, after `edgetune calibrate` on this machine.

    .venv/bin/python benchmarks/time_truth.py [--folder build/time-truth] [--seconds 60]

Plans of workloads/planned.py are exported where the folder has none of these sources: hand-made
selections of four models of usual size, from the head alone to everything, and six steps of small
ones. In the device environment the machine is calibrated, which takes kernels of its own and none
of the models; each step is predicted from its bundle's cost table, and timed, all interleaved in
one process. Printed: predicted, median and their ratio; Spearman's rank correlation over the large
plans. Exit code 1 when that is below 0.95, or when one of the six is off by more than 20 %.

--processor-time: on a machine that is busy with other work, one thread per session, and its own
processor time in place of time, on both sides.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from results import write_results

ROOT = Path(__file__).resolve().parent.parent
LARGE = ("mobilenet_v2", "resnet50", "minilm_l6", "vit_small")
BATCH = 8
LEAST_CORRELATION = 0.95
TOLERATED = 0.2
_MOBILENET = "model.mobilenet_v2"
SMALL = {
    "mobilenet_v2_96": {
        "head": ("model.classifier.*",),
        "last-two": (
            *(f"{_MOBILENET}.{part}.*" for part in ("layer.14", "layer.15", "conv_1x1")),
            "model.classifier.*",
        ),
        "full": ("*",),
    },
    "resnet18_160": {"last-block": ("model.resnet.encoder.stages.3.layers.1.*", "*.classifier.*")},
    "bert_2x256": {"full": ("*",)},
    "cnn_64": {"full": ("*",)},
}
"""Six steps: patterns of what is trained, by model and name."""

# Runs in the device environment, which has no torch. Arguments: seconds, clock, bundles.
_CHILD = """
import json, sys, tempfile, time
from pathlib import Path
from edgetune.runtime.huge_pages import use_huge_pages
use_huge_pages()
import onnxruntime
from edgetune.calibration.calibrate import calibrate
from edgetune.calibration.profile_text import profile_text
from edgetune.calibration.timing import interleaved
from edgetune.files.cost_table import read_cost_table
from edgetune.files.device_profiles import load_profile
from edgetune.planning.predict import predicted_cost
from edgetune.runtime.open_session import open_as_exported
from edgetune.runtime.self_test import read_self_test

seconds, clock = float(sys.argv[1]), getattr(time, sys.argv[2])
folders = [Path(name) for name in sys.argv[3:]]
if sys.argv[2] == "process_time":
    make = onnxruntime.SessionOptions

    def alone():
        options = make()
        options.intra_op_num_threads = 1
        return options

    onnxruntime.SessionOptions = alone
found = calibrate(onnxruntime, seconds, None, None, lambda phase, share: None, clock)
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "here.toml"
    path.write_text(profile_text(found, "here", "here", "2026-01-01", None))
    profile = load_profile(str(path))
sessions = {folder.name: open_as_exported(folder) for folder in folders}
recorded = {folder.name: read_self_test(folder).batch for folder in folders}

def step(name):
    session = sessions[name]
    for _ in range(session.manifest.plan.batch // session.manifest.plan.micro_batch):
        session.accumulate(recorded[name])
    session.update(1e-5, None)

times = interleaved({name: lambda name=name: step(name) for name in sessions}, seconds, clock)
rows = []
for folder in folders:
    manifest = sessions[folder.name].manifest
    cost = predicted_cost(read_cost_table(folder, manifest), manifest.plan, profile)
    measured = times[folder.name]
    rows.append((folder.name, cost.seconds, measured.seconds, measured.spread, measured.rounds))
rates = {key: [1 / d.seconds, d.spread] for key, d in found.rates.items()}
print(json.dumps({"rows": rows, "rates": rates, "noisy": len(found.noisy)}))
"""


@dataclass(frozen=True)
class Row:
    """One step. spread: interquartile range over the median."""

    name: str
    predicted_seconds: float
    median_seconds: float
    spread: float
    rounds: int

    @property
    def ratio(self) -> float:
        return self.predicted_seconds / self.median_seconds

    @property
    def large(self) -> bool:
        return any(self.name.startswith(f"{model}@") for model in LARGE)


def bundles_of(folder: Path, models: Sequence[str]) -> list[Path]:
    """Their bundles in `folder`; those that are not there, or of other sources, are exported."""
    if find_spec("edgetune_exporters") is not None:
        for model in models:
            _export(model, folder)
    lists = [json.loads((folder / f"{model}.json").read_text()) for model in models]
    return [folder / name for found in lists for name in found["bundles"]]


def _export(model: str, folder: Path) -> None:
    # Here, because where the bundles are there already, a device can run all of this.
    from edgetune_exporters.export import export  # noqa: PLC0415
    from edgetune_exporters.factory import load_example  # noqa: PLC0415
    from edgetune_exporters.make_plan import Variants, plan_for  # noqa: PLC0415
    from step_bundles import sources_digest  # noqa: PLC0415

    from edgetune.errors import ExportError  # noqa: PLC0415
    from edgetune.files.device_profiles import load_profile  # noqa: PLC0415
    from edgetune.nouns.plan_request import PlanRequest  # noqa: PLC0415
    from edgetune.planning.named_selections import named_selections  # noqa: PLC0415

    done, sources = folder / f"{model}.json", sources_digest()
    if done.exists() and json.loads(done.read_text())["sources"] == sources:
        return
    request = PlanRequest(
        load_profile("generic-x86"), batch=BATCH, micro_batch=BATCH, recomputation=False
    )
    example = load_example(f"{ROOT}/benchmarks/workloads/planned.py:{model}")
    variants = Variants(example, request, None)
    candidates = [c.name for c in next(iter(variants)).graph.candidates]
    names = []
    for name, patterns in (SMALL.get(model) or named_selections(candidates)).items():
        planned = plan_for(variants, None, replace(request, patterns=patterns))
        target = f"{model}@{name.replace(' ', '-')}"
        shutil.rmtree(folder / target, ignore_errors=True)
        try:
            export(example, planned, ("portable",), folder / target)
        except ExportError as error:
            # With random weights a ReLU's input may lie so near to zero that rounding decides.
            print(f"{target} is left out: {error}", file=sys.stderr)
            continue
        names.append(target)
    done.write_text(json.dumps({"sources": sources, "bundles": names}))


def _judge(rows: list[Row]) -> int:
    from scipy.stats import spearmanr  # noqa: PLC0415  (a device has no scipy)

    large = [row for row in rows if row.large]

    def correlation(chosen: list[Row]) -> float:
        predicted = [row.predicted_seconds for row in chosen]
        return float(spearmanr(predicted, [row.median_seconds for row in chosen]).statistic)

    for model in LARGE if large else ():
        of_model = [row for row in large if row.name.startswith(f"{model}@")]
        print(f"rank correlation, {len(of_model)} plans of {model}: {correlation(of_model):.3f}")
    overall = correlation(large) if large else 1.0
    if large:
        print(f"rank correlation over all {len(large)} plans: {overall:.3f}", end="")
        print(f", at least {LEAST_CORRELATION} asked for")
    worst = max(abs(row.ratio - 1) for row in rows if not row.large)
    print(f"the six small steps: off by at most {worst:.0%}, tolerated {TOLERATED:.0%}")
    return int(overall < LEAST_CORRELATION or worst > TOLERATED)


def main() -> int:
    """Export, calibrate, measure, print, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "time-truth")
    parser.add_argument("--device-python", default=str(ROOT / ".venv-device" / "bin" / "python"))
    parser.add_argument("--seconds", type=float, default=60.0, help="of each of the two parts")
    parser.add_argument("--processor-time", action="store_true")
    parser.add_argument("--small", action="store_true", help="only the six small steps")
    options = parser.parse_args()
    bundles = bundles_of(options.folder, (*(() if options.small else LARGE), *SMALL))
    clock = "process_time" if options.processor_time else "perf_counter"
    command = [options.device_python, "-c", _CHILD, str(options.seconds), clock]
    done = subprocess.run(
        [*command, *map(str, bundles)], check=True, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    for key, (rate, spread) in sorted(found["rates"].items()):
        print(f"{key:20} {rate / 1e9:10.4f} G/s   spread {spread:.0%}")
    print(f"{found['noisy']} noisy workloads of the calibration")
    rows = [Row(*values) for values in found["rows"]]
    print(f"{'plan':36} {'predicted':>12} {'median':>12} {'ratio':>7} {'spread':>7} rounds")
    for row in rows:
        print(
            f"{row.name:36} {row.predicted_seconds * 1e3:9.1f} ms {row.median_seconds * 1e3:9.1f} "
            f"ms {row.ratio:7.2f} {row.spread:7.0%} {row.rounds}"
        )
    write_results("time_truth", found)
    return _judge(rows)


if __name__ == "__main__":
    sys.exit(main())
