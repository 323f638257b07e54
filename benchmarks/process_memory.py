"""Predicted against measured peak of the device process, one bundle per process.

    .venv/bin/python benchmarks/process_memory.py BUNDLE... [--device-python PYTHON]

Every bundle's recorded self-test batch is trained for a few steps in a process of its own, in the
device environment; its peak resident memory (VmHWM) stands beside the manifest's prediction. The
constants in edgetune/planning/process_memory.py were chosen on such a table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

_STEPS = 4

_CHILD = f"""
import json, sys
from pathlib import Path
import edgetune.cli.main
from edgetune.runtime.open_session import open_as_exported
from edgetune.runtime.process_memory import current_bytes, peak_bytes
from edgetune.runtime.self_test import read_self_test
import onnxruntime
base = current_bytes()
folder = Path(sys.argv[1])
session, recorded = open_as_exported(folder), read_self_test(folder)
for _ in range({_STEPS}):
    session.accumulate(recorded.batch)
    session.update(1e-4, None)
print(json.dumps({{"base": base, "peak": peak_bytes()}}))
"""


def main() -> int:
    """Print the table; exit code 1 when a measured peak exceeds its prediction."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", nargs="+", type=Path)
    parser.add_argument("--device-python", default=".venv-device/bin/python")
    options = parser.parse_args()
    print(f"{'bundle':24} {'imports':>8} {'predicted':>10} {'measured':>9} {'ratio':>6}  MiB")
    exceeded = False
    for bundle in options.bundle:
        plan = json.loads((bundle / "manifest.json").read_text())["plan"]
        predicted = plan["cost"]["peak_bytes"]
        command = [options.device_python, "-c", _CHILD, str(bundle)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        ratio = found["peak"] / predicted
        exceeded |= ratio > 1
        mib = [number / 2**20 for number in (found["base"], predicted, found["peak"])]
        print(f"{bundle.name:24} {mib[0]:8.1f} {mib[1]:10.1f} {mib[2]:9.1f} {ratio:6.2f}")
    return int(exceeded)


if __name__ == "__main__":
    sys.exit(main())
