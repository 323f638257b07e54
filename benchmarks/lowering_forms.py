"""The forms of gradients that were tried, timed here, with their operation counts for any machine.

    .venv/bin/python benchmarks/lowering_forms.py [--seconds 60]

For each gradient of workloads/forms.py all forms, interleaved in one process, two threads, with the
session options of a step: first the form that edgetune writes. Printed: median and spread, times
the first form's, rate, FLOPs, bytes read and written, operators. All results are compared with the
first one's. build/bench gets lowering_forms.json. Exit code 1 when a form disagrees.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import onnx
import onnxruntime
from edgetune_exporters.step_graph import operation_of
from onnx import helper
from report import table
from results import write_results
from workloads.forms import Case, Form, cases, operand

from edgetune.calibration.timing import Duration, interleaved
from edgetune.files.onnx_model import onnx_model
from edgetune.nouns.bundle_names import GRADIENTS
from edgetune.nouns.loss import Array
from edgetune.nouns.step_graph import Operation
from edgetune.planning.device_time import moved_bytes
from edgetune.runtime.onnx_session import session_options

THREADS = 2
TOLERANCE = 1e-4  # of the largest value
_MIB = 2**20


@dataclass(frozen=True)
class Row:
    """One form. times: as long as the form that edgetune writes."""

    gradient: str
    form: str
    milliseconds: float
    spread: float
    times: float
    gflops: float
    gflops_per_second: float
    moved_mib: float
    operators: int


@dataclass(frozen=True)
class Ready:
    """A form that can be run."""

    run: Callable[[], Array]
    operations: tuple[Operation, ...]
    tensor_bytes: dict[str, int]


def ready(case: Case, build: Callable[[Form], str], feeds: dict[str, Array]) -> Ready:
    """Make a session of it, and count what it does."""
    form = Form()
    result = build(form)
    model = onnx_model(form.nodes, feeds, [result], form.constants)
    inferred = onnx.shape_inference.infer_shapes(onnx.load_from_string(model), data_prop=True)
    graph = inferred.graph
    types = {
        value.name: (
            value.type.tensor_type.elem_type,
            tuple(d.dim_value for d in value.type.tensor_type.shape.dim),
        )
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    types.update({t.name: (t.data_type, tuple(t.dims)) for t in graph.initializer})
    sizes = {
        name: int(np.prod(shape)) * helper.tensor_dtype_to_np_dtype(kind).itemsize
        for name, (kind, shape) in types.items()
    }
    options = session_options(onnxruntime, GRADIENTS)
    options.intra_op_num_threads = THREADS
    options.enable_cpu_mem_arena = True  # a step has one of its own
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run() -> Array:
        (found,) = session.run(None, feeds)
        return np.asarray(found)

    return Ready(run, tuple(operation_of(node, types) for node in graph.node), sizes)


def timed(case: Case, seconds: float) -> list[Row]:
    """All forms of one gradient. Raises ValueError when their results differ."""
    feeds = {"x": operand(case.x, 0), "g": operand(case.g, 1)}
    forms = {name: ready(case, build, feeds) for name, build in case.forms.items()}
    first, *others = forms
    expected = forms[first].run()
    for name in others:
        gap = float(np.abs(forms[name].run() - expected).max() / np.abs(expected).max())
        if gap > TOLERANCE:
            raise ValueError(f"{case.name}: {name} differs from {first} by {gap:.1e}")
    durations = interleaved({name: form.run for name, form in forms.items()}, seconds)
    least = durations[first].seconds
    return [
        _row(case.name, name, forms[name], d, d.seconds / least) for name, d in durations.items()
    ]


def _row(gradient: str, name: str, form: Ready, duration: Duration, times: float) -> Row:
    products = ("convolution", "pointwise", "depthwise", "matmul")
    flops = sum(o.flops for o in form.operations if o.operator_class in products)
    return Row(
        gradient,
        name,
        1e3 * duration.seconds,
        duration.spread,
        times,
        flops / 1e9,
        flops / duration.seconds / 1e9,
        sum(moved_bytes(o, form.tensor_bytes) for o in form.operations) / _MIB,
        len(form.operations),
    )


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="for all cases together")
    options = parser.parse_args()
    found = list(cases())
    try:
        rows = [row for case in found for row in timed(case, options.seconds / len(found))]
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
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
            f"{row.gflops_per_second:.0f}",
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
