"""Whether cost grows with what is trained: eight selections of MobileNetV2, from head to full.

    .venv/bin/python benchmarks/selection_ladder.py [--device ID] [--rounds N]

Each selection trains all that the one before it does. Each is a process of the device environment
(see step_speed.py); printed are predicted and measured step times and peaks (the batch, which a
prediction does not contain, is taken off), whether they rise from row to row, and how well the
prediction ranks them. The micro-batch is the whole batch throughout. build/bench gets
selection_ladder.json. Exit code 1 when a measured column falls by more than its spread.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from report import table
from results import write_results
from scipy.stats import spearmanr
from step_bundles import BATCH, ROOT, WorkloadFiles, sources_digest
from step_processes import Measured, Start, measure
from step_ratios import spread
from step_workloads import FULL, HEAD, EdgetuneSide, Trained

from edgetune.files.bundle import read_manifest
from edgetune.files.cost_table import read_cost_table
from edgetune.files.device_profiles import load_profile
from edgetune.planning.predict import predicted_cost

_BLOCKS = 17
_LAST_BLOCKS = (1, 2, 4, 8, 12)
_SIDE = EdgetuneSide("edgetune-fp32", micro_batch=BATCH)
_SCRIPT = Path(__file__).resolve().parent / "sides" / "edgetune_process.py"
_MIB = 2**20
# Peaks of the same process differ by this much from run to run.
_MEMORY_TOLERANCE_BYTES = 2**20


@dataclass(frozen=True)
class Rung:
    """One selection. predicted_seconds: None where the device's profile lacks a rate."""

    name: str
    trainable_share: float
    predicted_seconds: float | None
    predicted_bytes: int
    seconds: float
    spread_seconds: float
    peak_bytes: int


def ladder() -> list[Trained]:
    """From the head to everything."""
    last = ("last.*", *HEAD.patterns)
    rungs = [HEAD, Trained("last convolution", last)]
    for count in _LAST_BLOCKS:
        blocks = tuple(f"blocks.{n}.*" for n in range(_BLOCKS - count, _BLOCKS))
        rungs.append(Trained(f"last {count} blocks", (*blocks, *last)))
    return [*rungs, FULL]


def falls(values: Sequence[float], tolerances: Sequence[float]) -> list[int]:
    """Places whose value is below the one before by more than the larger of both tolerances."""
    return [
        place
        for place in range(1, len(values))
        if values[place] < values[place - 1] - max(tolerances[place - 1 : place + 1])
    ]


def rungs_of(
    bundles: Sequence[tuple[Trained, Path]], found: Mapping[str, Measured], device: str, data: Path
) -> list[Rung]:
    """Predictions beside measurements."""
    profile = load_profile(device)
    with np.load(data) as file:
        data_bytes = sum(file[name].nbytes for name in file.files)
    rungs = []
    for trained, bundle in bundles:
        manifest, _ = read_manifest(bundle)
        cost = predicted_cost(read_cost_table(bundle, manifest), manifest.plan, profile)
        measured = found[trained.name]
        rungs.append(
            Rung(
                trained.name,
                manifest.plan.trainable_share,
                cost.seconds,
                cost.peak_bytes,
                measured.median_seconds,
                spread(measured.round_seconds),
                measured.peak_bytes - data_bytes,
            )
        )
    return rungs


def ladder_table(rungs: Sequence[Rung]) -> str:
    """One line per rung."""
    heading = (
        "trained", "share", "predicted ms", "step ms", "spread", "predicted MiB", "peak MiB",
    )  # fmt: skip
    lines = [
        (
            rung.name,
            f"{rung.trainable_share:.1%}",
            "-" if rung.predicted_seconds is None else f"{1e3 * rung.predicted_seconds:.1f}",
            f"{1e3 * rung.seconds:.1f}",
            f"{1e3 * rung.spread_seconds:.1f}",
            f"{rung.predicted_bytes / _MIB:.1f}",
            f"{rung.peak_bytes / _MIB:.1f}",
        )
        for rung in rungs
    ]
    return table([heading, *lines])


def main() -> int:
    """Export, measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="generic-x86", help="an id, or calibrate's profile")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each in a round")
    parser.add_argument("--device-python", default=str(ROOT / ".venv-device" / "bin" / "python"))
    parser.add_argument("--processor-time", action="store_true", help="as in step_speed.py")
    options = parser.parse_args()
    folder = ROOT / "build" / "step-speed" / sources_digest()
    factory = f"{ROOT}/benchmarks/workloads/plain.py:mobilenet_v2"
    files = WorkloadFiles(factory, folder / "mobilenet_v2")
    bundles = [(trained, files.bundle(trained, _SIDE)) for trained in ladder()]
    starts = [
        Start(
            trained.name,
            (options.device_python, str(_SCRIPT)),
            {
                "bundle": str(bundle),
                "data": str(files.data()),
                "features": None,
                "threads": 1 if options.processor_time else None,
                "processor_time": options.processor_time,
            },
            {},
        )
        for trained, bundle in bundles
    ]
    compared = measure(starts, options.rounds, options.steps, folder / "logs")
    if compared.failed:
        for name, reason in compared.failed.items():
            print(f"{name}: {reason}", file=sys.stderr)
        return 1
    print(f"other work took {compared.others:.0%} of the machine")
    rungs = rungs_of(bundles, compared.sides, options.device, files.data())
    print(ladder_table(rungs))
    slower = falls([r.seconds for r in rungs], [r.spread_seconds for r in rungs])
    larger = falls([r.peak_bytes for r in rungs], [_MEMORY_TOLERANCE_BYTES for _ in rungs])
    for what, places in (("step time", slower), ("memory", larger)):
        names = ", ".join(rungs[place].name for place in places)
        print(f"{what}: " + (f"falls at {names}" if places else "rises from row to row"))
    memory = spearmanr([r.predicted_bytes for r in rungs], [r.peak_bytes for r in rungs]).statistic
    print(f"rank correlation with the prediction: memory {memory:.3f}", end="")
    predicted = [r.predicted_seconds for r in rungs if r.predicted_seconds is not None]
    if len(predicted) == len(rungs):
        print(f", time {spearmanr(predicted, [r.seconds for r in rungs]).statistic:.3f}", end="")
    print()
    write_results("selection_ladder", [vars(rung) for rung in rungs])
    return int(bool(slower or larger))


if __name__ == "__main__":
    sys.exit(main())
