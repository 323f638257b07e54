"""Does the memory guard act in time? Training in real cgroups that are too small.

    .venv/bin/python benchmarks/guard_truth.py [--runs 20] [--python .venv-device/bin/python]

Exports the model of workloads/guarded.py and measures what its process needs before the first step
and at the most (cgroup, memory.max_usage_in_bytes). Then it trains
  - with limits evenly between the two, so that no step fits, and to compare without the guard;
  - with a limit that is enough, while a neighbour in the same cgroup takes 2 MiB every 50 ms from
    the third step on.
A run is clean when it ends with exit code 20, nothing was killed, the checkpoint can be read, and
resuming from it without a limit gives the bytes of a run that was never stopped.
Needs root and cgroup v1 or v2 with the memory controller. Exit code 1 when one run is not clean.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from memory_cgroup import ROOT, group

from edgetune.errors import CheckpointError
from edgetune.files.checkpoint import read_checkpoint

MIB = 2**20
EPOCHS = 3

_NEIGHBOUR = """
import time
held = []
while True:
    held.append(b"x" * (2 * 2**20))
    time.sleep(0.05)
"""


_UNGUARDED = """
import sys
from pathlib import Path
from edgetune import Trainer, TrainerConfig, load_data, open_session
session = open_session(Path(sys.argv[1]))
data = load_data(sys.argv[2], session.manifest.signature, session.manifest.loss)
Trainer(session, TrainerConfig(epochs=3, progress=False)).fit(data)
"""


class Job:
    """One bundle and its data; trains it again and again."""

    def __init__(self, folder: Path, python: str) -> None:
        self._python, self._bundle, self._data = python, folder / "bundle", folder / "data.npz"
        model = f"{ROOT}/benchmarks/workloads/guarded.py:factory"
        export = ["export", model, "--device", "generic-x86", "--train", "*", "--batch", "32"]
        self._edgetune([*export, "--micro-batch", "32", "--out", str(self._bundle)], sys.executable)
        generator = np.random.default_rng(0)
        images = generator.random((64, 3, 48, 48), np.float32)
        np.savez(self._data, images=images, targets=np.arange(64) % 4)
        self.reference = folder / "reference"
        self.resume(self.reference)  # from nothing; and it warms the page cache

    def command(self, out: Path, *more: str, epochs: int = EPOCHS) -> list[str]:
        """The command that trains into the folder `out`."""
        paths = ["--checkpoint", str(out / "checkpoint"), "--out", str(out / "delta")]
        train = ["train", str(self._bundle), "--data", str(self._data), *paths, "--quiet"]
        return [
            *(self._python, "-m", "edgetune.cli.main", *train),
            *("--epochs", str(epochs), "--memory", "none", *more),
        ]

    def unguarded(self) -> list[str]:
        """The command that trains without any guard."""
        return [self._python, "-c", _UNGUARDED, str(self._bundle), str(self._data)]

    def resume(self, out: Path) -> None:
        """Train on without a limit, from the checkpoint in `out` if there is one."""
        out.mkdir(exist_ok=True)
        more = ["--resume"] if (out / "checkpoint").exists() else []
        self._edgetune(self.command(out, *more)[3:], self._python)

    def peak_bytes(self, out: Path, *more: str) -> int:
        """What a process of its own group is charged at the most."""
        out.mkdir()
        with group("measure") as made:
            process = made.start(self.command(out, *more))
            process.communicate()
            return made.peak_bytes

    def _edgetune(self, arguments: list[str], python: str) -> None:
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/exporters"}
        command = [python, "-m", "edgetune.cli.main", *arguments]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


def limited(job: Job, out: Path, limit_bytes: int) -> str:
    """Train below a limit; returns what was not clean."""
    out.mkdir()
    with group("limited", limit_bytes) as made:
        process = made.start(job.command(out))
        _, errors = process.communicate()
    return verdict(job, out, process.returncode, errors)


def is_killed_unguarded(job: Job, limit_bytes: int) -> bool:
    """Whether the kernel kills the same training when nothing guards it."""
    with group("unguarded", limit_bytes) as made:
        process = made.start(job.unguarded())
        process.communicate()
        return process.returncode == -signal.SIGKILL


def beside_a_neighbour(job: Job, out: Path, limit_bytes: int) -> str:
    """Train while another process takes what is left; returns what was not clean."""
    out.mkdir()
    with group("shared", limit_bytes) as made:
        log = out / "log"
        process = made.start(job.command(out, "--log", str(log), epochs=10**6))
        while process.poll() is None and (not log.exists() or log.read_bytes().count(b"\n") < 3):
            time.sleep(0.01)
        neighbour = made.start([sys.executable, "-c", _NEIGHBOUR])
        try:
            _, errors = process.communicate(timeout=120)
            alive = neighbour.poll() is None
        finally:
            for each in (process, neighbour):
                each.kill()
                each.communicate()
    found = verdict(job, out, process.returncode, errors, complete=False)
    return found if alive else f"the neighbour was killed; {found}"


def verdict(job: Job, out: Path, code: int, errors: str, complete: bool = True) -> str:
    """Empty when a stop was clean."""
    if code != 20:
        return f"exit code {code} {errors.strip()[-300:]}"
    try:
        read_checkpoint(out / "checkpoint")
    except CheckpointError as error:
        return str(error)
    if complete:
        job.resume(out)
        for name in ("checkpoint", "delta"):
            if (out / name).read_bytes() != (job.reference / name).read_bytes():
                return f"the {name} of the resumed run is another"
    return ""


def main() -> int:
    """Print one line per run, and the verdict."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="of each kind (default 20)")
    parser.add_argument("--python", default=str(ROOT / ".venv-device" / "bin" / "python"))
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="edgetune-guard-truth-"))
    try:
        return _print(Job(folder, options.python), folder, options.runs)
    finally:
        shutil.rmtree(folder)


def _print(job: Job, folder: Path, runs: int) -> int:
    rest = job.peak_bytes(folder / "rest", "--seconds", "1us")
    most = job.peak_bytes(folder / "most")
    print(f"before the first step {rest / MIB:.1f} MiB, at the most {most / MIB:.1f} MiB")
    clean, killed, stepped, reached = 0, 0, 0, []
    for run in range(runs):
        limit = int(rest + (most - rest) * (run + 1) / (runs + 1))
        problem = limited(job, folder / f"limited-{run}", limit)
        clean += not problem
        control = is_killed_unguarded(job, limit)
        killed += control
        without = "killed" if control else "survives"
        print(
            f"limit {limit / MIB:5.1f} MiB: {problem or 'clean'}; unguarded {without}", flush=True
        )
    for run in range(runs):
        out = folder / f"shared-{run}"
        problem = beside_a_neighbour(job, out, most + 64 * MIB)
        stepped += not problem
        steps = read_checkpoint(out / "checkpoint").step if not problem else 0
        reached.append(steps)
        print(f"beside a neighbour: {problem or f'clean, after {steps} steps'}", flush=True)
    print(
        f"clean with a limit below the step: {clean} of {runs} (unguarded {killed} of {runs} are "
        f"killed); beside a growing neighbour: "
        f"{stepped} of {runs}, after {statistics.median(reached):g} steps on the median"
    )
    return 0 if clean == stepped == runs else 1


if __name__ == "__main__":
    sys.exit(main())
