"""edgetune's step against what people run today: time, memory, time to the first step.

    .venv/bin/python benchmarks/step_speed.py [--workloads NAME...] [--sides NAME...] [--rounds N]

Models of workloads/plain.py, batch 8, two threads, AdamW, random weights. Each side is a process of
its own; all are alive, and in every round each does some steps while the others sleep. Printed: the
median of the rounds and their interquartile range, ratios as the median of the rounds' ratios, and
the process's peak (VmHWM), whole and over what it had after its imports, the batch included on both
sides. PyTorch's best is the fastest of its sides, for memory the smallest. Compiled steps come from
build/step-speed after the first run, which shortens that side's first step. Bundles are written
once per state of the sources. build/bench gets step_speed.json and step_speed.svg.

--processor-time: on a machine that is busy with other work, one thread per side, and its processor
time in place of time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from results import BENCH, write_results
from step_bundles import BATCH, ROOT, WorkloadFiles, sources_digest, step_flops
from step_plot import write_step_plot
from step_processes import MALLOC_KEPT, SLEEPING_THREADS, Measured, Start, measure
from step_ratios import GOALS, Results
from step_tables import failures_text, goals_table, json_rows, workload_table
from step_workloads import (
    EXECUTORCH,
    SIDES,
    WORKLOADS,
    EdgetuneSide,
    Side,
    TorchSide,
    Trained,
    Workload,
    runs,
)

from edgetune.calibration.machine import cores, cpu_name

SCRIPTS = Path(__file__).resolve().parent / "sides"
THREADS = 2
_SGEMM_SIZE = 1536
_SGEMM = "sgemm"
_LAST_WORDS = 200  # characters of an error that are printed


class Starts:
    """How the sides of one workload are started; writes what they need."""

    def __init__(self, files: WorkloadFiles, options: argparse.Namespace, scratch: Path) -> None:
        self._files, self._scratch = files, scratch
        self._device_python: str = options.device_python
        self._processor_time: bool = options.processor_time

    def start(self, side: Side, trained: Trained) -> Start:
        """Raises what exporting raises."""
        name = _key(trained, side)
        threads = 1 if self._processor_time else None
        job: dict[str, Any] = {"processor_time": self._processor_time, "threads": threads}
        if isinstance(side, EdgetuneSide):
            job |= {
                "bundle": str(self._files.bundle(trained, side)),
                "data": str(self._files.data()),
                "features": str(self._scratch / name) if side.cached else None,
            }
            here = side.format == "ort-training"
            python = sys.executable if here else self._device_python
            return Start(name, (python, str(SCRIPTS / "edgetune_process.py")), job, {})
        if isinstance(side, TorchSide):
            job |= {
                "factory": self._files.factory,
                "trainable": self._files.trainable(trained.patterns),
                "compiled": side.compiled,
                "threads": threads or THREADS,
            }
            environment = {**SLEEPING_THREADS, **(MALLOC_KEPT if side.keeps_memory else {})}
            if side.compiled:
                environment["TORCHINDUCTOR_CACHE_DIR"] = str(ROOT / "build/step-speed/inductor")
                environment["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # in the process itself
            return Start(
                name, (sys.executable, str(SCRIPTS / "torch_process.py")), job, environment
            )
        job |= {
            "artifacts": str(self._files.artifacts(trained)),
            "data": str(self._files.data()),
            "inputs": self._files.input_names(),
        }
        return Start(name, (sys.executable, str(SCRIPTS / "ort_training_process.py")), job, {})


def sgemm_start(processor_time: bool) -> Start:
    """The side that tells what the machine computes."""
    threads = 1 if processor_time else THREADS
    job = {"size": _SGEMM_SIZE, "threads": threads, "processor_time": processor_time}
    return Start(_SGEMM, (sys.executable, str(SCRIPTS / "sgemm_process.py")), job, SLEEPING_THREADS)


def run(workload: Workload, sides: list[Side], options: argparse.Namespace) -> Results:
    """Measure a workload and print its table."""
    factory = f"{ROOT}/benchmarks/workloads/plain.py:{workload.name}"
    folder = ROOT / "build" / "step-speed" / sources_digest() / workload.name
    files = WorkloadFiles(factory, folder)
    pairs = [(t, s) for t in workload.selections for s in sides if runs(s, t)]
    failed, starts = {}, [sgemm_start(options.processor_time)]
    flops: dict[tuple[str, str], float] = {}
    with tempfile.TemporaryDirectory(prefix="edgetune-") as scratch:
        making = Starts(files, options, Path(scratch))
        for trained, side in pairs:
            print(f"{workload.name}: preparing {_key(trained, side)}", file=sys.stderr, flush=True)
            try:
                starts.append(making.start(side, trained))
            except Exception as error:  # a peer's exporter raises whatever it likes
                failed[_key(trained, side)] = f"{type(error).__name__}: {_last_words(error)}"
        print(f"{workload.name}: measuring {len(starts)} sides", file=sys.stderr, flush=True)
        logs = folder.parent / "logs"
        compared = measure(starts, options.rounds, options.steps, logs)
        found = compared.sides
        for trained, side in pairs:
            if _key(trained, side) in found:
                flops |= _flops(files, trained, side)
    rate = None
    if _SGEMM in found:
        rate = 2 * _SGEMM_SIZE**3 / found[_SGEMM].median_seconds
        clock = "processor time of one thread" if options.processor_time else "two threads"
        print(
            f"\n{workload.name}, batch {BATCH}, {clock}; sgemm here: {rate / 1e9:.0f} GFLOP/s; "
            f"other work took {compared.others:.0%} of the machine"
        )
    results: dict[tuple[str, str], Measured] = {
        (t.name, s.name): found[_key(t, s)] for t, s in pairs if _key(t, s) in found
    }
    print(workload_table(results, flops, rate), flush=True)
    if text := failures_text({**failed, **compared.failed}, []):
        print(text, flush=True)
    return results


def _flops(files: WorkloadFiles, trained: Trained, side: Side) -> dict[tuple[str, str], float]:
    """Of the planned step, which is what every side has to compute; none if it was not exported."""
    cached = isinstance(side, EdgetuneSide) and side.cached
    try:
        bundle = files.bundle(trained, EdgetuneSide("the same"))
    except Exception:  # reported where that side was to be started
        return {}
    return {(trained.name, side.name): step_flops(bundle, cached)}


def _key(trained: Trained, side: Side) -> str:
    return f"{trained.name} {side.name}"


def _last_words(error: Exception) -> str:
    """The end of what it says, where C++ libraries put the reason behind the place."""
    words = " ".join(str(error).split())
    return words if len(words) <= _LAST_WORDS else f"...{words[-_LAST_WORDS:]}"


def available(names: list[str] | None) -> tuple[list[Side], list[str]]:
    """The sides to run, and those that cannot, with the reason."""
    chosen = [side for side in SIDES if not names or side.name in names]
    skipped = []
    if EXECUTORCH in chosen:
        chosen.remove(EXECUTORCH)
        there = find_spec("executorch") is not None
        reason = "no side is written for it yet" if there else "not installed"
        skipped.append(f"{EXECUTORCH.name}: {reason}")
    return chosen, skipped


def main() -> int:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = [workload.name for workload in WORKLOADS]
    parser.add_argument("--workloads", nargs="+", choices=names, default=names)
    parser.add_argument("--sides", nargs="+", choices=[side.name for side in SIDES])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="timed steps of a side in a round")
    parser.add_argument("--device-python", default=str(ROOT / ".venv-device" / "bin" / "python"))
    parser.add_argument("--processor-time", action="store_true")
    options = parser.parse_args()
    sides, skipped = available(options.sides)
    if skipped:
        print(failures_text({}, skipped), flush=True)
    by_workload = {w.name: run(w, sides, options) for w in WORKLOADS if w.name in options.workloads}
    if any(goal.workload in by_workload for goal in GOALS):
        print(f"\n{goals_table(by_workload)}")
    rows = [row for name, results in by_workload.items() for row in json_rows(name, results)]
    machine = f"{cpu_name()}, {cores()} cores"
    if options.processor_time:
        machine += ", processor time of one thread"
    write_results("step_speed", {"machine": machine, "rows": rows})
    measured = {name: results for name, results in by_workload.items() if results}
    if measured:
        write_step_plot(measured, BENCH / "step_speed.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
