"""Predicted against measured step times after `edgetune calibrate`, on six bundles.

    .venv/bin/python benchmarks/calibration_truth.py [--folder build/calibration-truth]

Six bundles of workloads/planned.py are exported where they are not there yet. In the device
environment the machine is calibrated, the six steps are predicted from the bundles' own cost
tables, and timed, all of them interleaved in one process. None of the models takes part in the
calibration. Printed: predicted, median, their ratio. Exit code 1 when one is off by more than 20 %.

--processor-time: on a machine that is busy with other work, one thread per session, and its own
processor time in place of time, on both sides.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BATCH = 8
TOLERATED = 0.2
_MOBILENET = "model.mobilenet_v2"
BUNDLES = (
    ("mobilenet_v2_96", "head", ("model.classifier.*",)),
    (
        "mobilenet_v2_96",
        "last-two",
        (
            *(f"{_MOBILENET}.{part}.*" for part in ("layer.14", "layer.15", "conv_1x1")),
            "model.classifier.*",
        ),
    ),
    ("mobilenet_v2_96", "full", ("*",)),
    ("resnet18_160", "last-block", ("model.resnet.encoder.stages.3.layers.1.*", "*.classifier.*")),
    ("bert_2x256", "full", ("*",)),
    ("cnn_64", "full", ("*",)),
)

# Runs in the device environment, which has no torch. Arguments: seconds, clock, bundles.
_CHILD = """
import json, sys, tempfile, time
from pathlib import Path
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


def export_missing(folder: Path) -> list[Path]:
    """The six bundles; those that are not in `folder` yet are exported."""
    # Here, because where the bundles are there already, a device can run all of this.
    from edgetune_exporters.export import export  # noqa: PLC0415
    from edgetune_exporters.factory import load_example  # noqa: PLC0415
    from edgetune_exporters.make_plan import make_plan  # noqa: PLC0415

    from edgetune.files.device_profiles import load_profile  # noqa: PLC0415
    from edgetune.nouns.plan_request import PlanRequest  # noqa: PLC0415

    request = PlanRequest(load_profile("generic-x86"), batch=BATCH, micro_batch=BATCH)
    targets = []
    for model, name, patterns in BUNDLES:
        targets.append(folder / f"{model}-{name}")
        if not targets[-1].exists():
            example = load_example(f"{ROOT}/benchmarks/workloads/planned.py:{model}")
            planned = make_plan(example, replace(request, patterns=patterns))
            export(example, planned, ("portable",), targets[-1])
    return targets


def main() -> int:
    """Export, calibrate, measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "calibration-truth")
    parser.add_argument("--device-python", default=str(ROOT / ".venv-device" / "bin" / "python"))
    parser.add_argument("--seconds", type=float, default=60.0, help="of each of the two parts")
    parser.add_argument("--processor-time", action="store_true")
    options = parser.parse_args()
    bundles = export_missing(options.folder)
    clock = "process_time" if options.processor_time else "perf_counter"
    command = [options.device_python, "-c", _CHILD, str(options.seconds), clock]
    done = subprocess.run(
        [*command, *map(str, bundles)], check=True, stdout=subprocess.PIPE, text=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    for key, (rate, spread) in sorted(found["rates"].items()):
        print(f"{key:20} {rate / 1e9:10.4f} G/s   spread {spread:.0%}")
    print(f"{found['noisy']} noisy workloads")
    print(f"{'bundle':28} {'predicted':>12} {'median':>12} {'ratio':>7} {'spread':>7} steps")
    worst = 0.0
    for name, predicted, measured, spread, rounds in found["rows"]:
        worst = max(worst, abs(predicted / measured - 1))
        print(
            f"{name:28} {predicted * 1e3:9.1f} ms {measured * 1e3:9.1f} ms "
            f"{predicted / measured:7.2f} {spread:7.0%} {rounds}"
        )
    print(f"worst off by {worst:.0%}, tolerated {TOLERATED:.0%}")
    return int(worst > TOLERATED)


if __name__ == "__main__":
    sys.exit(main())
