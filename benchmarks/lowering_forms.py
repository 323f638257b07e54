"""The forms of gradients that were tried, timed here, with their operation counts for any machine.

    .venv/bin/python benchmarks/lowering_forms.py [--seconds 60]

For each gradient of workloads/forms.py all forms, timed in the device environment
(sides/form_times.py): first the fastest that edgetune writes. Printed: median and spread, times the
first form's, rate, FLOPs, bytes read and written, operators. build/bench gets lowering_forms.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx
from edgetune_exporters.lowering.lower import infer_types
from edgetune_exporters.step_graph import bytes_of, operation_of
from report import table
from results import write_results
from workloads.forms import Case, cases

from edgetune.planning.device_time import moved_bytes

ROOT = Path(__file__).resolve().parent.parent
_TIMES = ROOT / "benchmarks" / "sides" / "form_times.py"
_PRODUCTS = ("convolution", "pointwise", "depthwise", "matmul")
_MIB = 2**20


@dataclass(frozen=True)
class Row:
    """One form. times: as long as the first form takes."""

    gradient: str
    form: str
    milliseconds: float
    spread: float
    times: float
    gflops: float
    moved_mib: float
    operators: int


def counted(case: Case, name: str) -> tuple[float, int, int]:
    """(FLOPs of products, bytes read and written, operators) of one form."""
    model = onnx.load_from_string(case.model(name))
    types = infer_types(model)
    sizes = bytes_of(types)
    operations = [operation_of(node, types) for node in model.graph.node]
    flops = sum(o.flops for o in operations if o.operator_class in _PRODUCTS)
    return flops, sum(moved_bytes(o, sizes) for o in operations), len(operations)


def rows_of(case: Case, times: dict[str, list[float]]) -> list[Row]:
    """One for each form."""
    first = times[next(iter(case.forms))][0]
    found = []
    for name in case.forms:
        seconds, spread = times[name]
        flops, moved, operators = counted(case, name)
        counts = flops / 1e9, moved / _MIB, operators
        found.append(Row(case.name, name, 1e3 * seconds, spread, seconds / first, *counts))
    return found


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="for all gradients together")
    parser.add_argument("--device-python", default=str(ROOT / ".venv-device" / "bin" / "python"))
    options = parser.parse_args()
    command = [options.device_python, str(_TIMES), str(options.seconds)]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return 1  # it has said why
    times = json.loads(done.stdout)
    rows = [row for case in cases() for row in rows_of(case, times[case.name])]
    heading = ("gradient of the", "form", "ms", "spread", "x the first", "GFLOP", "GFLOP/s",
               "MiB moved", "operators")  # fmt: skip
    lines = [
        (
            row.gradient,
            row.form,
            f"{row.milliseconds:.2f}",
            f"{row.spread:.0%}",
            f"{row.times:.2f}",
            f"{row.gflops:.2f}",
            f"{1e3 * row.gflops / row.milliseconds:.0f}",
            f"{row.moved_mib:.0f}",
            str(row.operators),
        )
        for row in rows
    ]
    print(table([heading, *lines]))
    write_results("lowering_forms", [asdict(row) for row in rows])
    return 0


if __name__ == "__main__":
    sys.exit(main())
