"""Times the forms of workloads/forms.py. Needs no torch.

    PYTHON benchmarks/sides/form_times.py SECONDS

Prints JSON: {gradient: {form: [median seconds, spread]}}, all forms of a gradient interleaved, two
threads, with the session options of a step. Exit code 1 when forms of one gradient disagree.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from workloads.forms import Case, cases

from edgetune.calibration.timing import interleaved
from edgetune.nouns.bundle_names import GRADIENTS
from edgetune.nouns.loss import Array
from edgetune.runtime.onnx_session import session_options

THREADS = 2
TOLERANCE = 1e-4  # of the largest value


def runs(case: Case) -> dict[str, Callable[[], Array]]:
    """A session of each form."""
    options = session_options(onnxruntime, GRADIENTS)
    options.intra_op_num_threads = THREADS
    options.enable_cpu_mem_arena = True  # a step has one of its own
    feeds = case.feeds()

    def run_of(name: str) -> Callable[[], Array]:
        session = onnxruntime.InferenceSession(
            case.model(name), options, providers=["CPUExecutionProvider"]
        )
        return lambda: np.asarray(session.run(None, feeds)[0])

    return {name: run_of(name) for name in case.forms}


def timed(case: Case, seconds: float) -> dict[str, tuple[float, float]]:
    """Median and spread of each form. Raises ValueError when their results differ."""
    forms = runs(case)
    first, *others = forms
    expected = forms[first]()
    for name in others:
        gap = float(np.abs(forms[name]() - expected).max() / np.abs(expected).max())
        if gap > TOLERANCE:
            raise ValueError(f"{case.name}: {name} differs from {first} by {gap:.1e}")
    return {name: (d.seconds, d.spread) for name, d in interleaved(forms, seconds).items()}


if __name__ == "__main__":
    every = list(cases())
    try:
        found = {case.name: timed(case, float(sys.argv[1]) / len(every)) for case in every}
    except ValueError as error:
        sys.exit(str(error))
    print(json.dumps(found))
