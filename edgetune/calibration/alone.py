"""The peak memory of one bundle's steps, in a process of their own.

Run as a program, `python -m edgetune.calibration.alone BUNDLE` prints it in bytes: what `train`
takes without its data, for nothing else was ever in that process.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from edgetune.errors import BundleError
from edgetune.runtime.open_session import open_session
from edgetune.runtime.process_memory import peak_bytes
from edgetune.runtime.self_test import read_self_test

STEPS = 3
LEARNING_RATE = 1e-6  # the values are thrown away; they shall only stay finite


def peak_alone(bundle: Path) -> int | None:
    """Peak resident bytes of a new process that trains `bundle` for STEPS steps of its self-test.

    None where the system does not tell. Raises BundleError where that process fails.
    """
    command = [sys.executable, "-m", __name__, str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise BundleError(f"{bundle} cannot be run in a process of its own: {last}")
    told = done.stdout.split()[-1]
    return None if told == "unknown" else int(told)


def _main(bundle: Path) -> None:
    session, batch = open_session(bundle), read_self_test(bundle).batch
    plan = session.manifest.plan
    for _ in range(STEPS):
        for _ in range(plan.batch // plan.micro_batch):
            session.accumulate(batch)
        session.update(LEARNING_RATE, None)
    found = peak_bytes()
    print("unknown" if found is None else found)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
