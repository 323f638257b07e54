"""From timed workloads to rates: what the planner divides FLOPs and bytes by."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgetune.calibration.timing import Clock, Duration, interleaved
from edgetune.calibration.workloads import Workload
from edgetune.errors import DeviceError
from edgetune.runtime.allocator import return_freed_buffers
from edgetune.runtime.onnx_session import session_options


@dataclass(frozen=True)
class Timed:
    """A workload and how long one copy of it takes. rate: its amount per second."""

    name: str
    measures: str
    amount: float
    duration: Duration

    @property
    def rate(self) -> float:
        return self.amount / self.duration.seconds


def time_workloads(
    onnxruntime: Any,
    workloads: Sequence[Workload],
    within_seconds: float,
    progress: Callable[[float], None] | None = None,
    clock: Clock = time.perf_counter,
) -> list[Timed]:
    """Time all `workloads`, interleaved, with the session options of training.

    Raises DeviceError where onnxruntime refuses one.
    """
    return_freed_buffers()
    runs = {f"{w.measures}: {w.name}": _runner(onnxruntime, w) for w in workloads}
    found = interleaved(runs, within_seconds, clock, progress)
    return [
        Timed(w.name, w.measures, w.amount, replace(d, seconds=d.seconds / w.copies))
        for w, d in zip(workloads, found.values(), strict=True)
    ]


def _runner(onnxruntime: Any, workload: Workload) -> Callable[[], object]:
    options = session_options(onnxruntime, workload.graph)
    providers = ["CPUExecutionProvider"]
    try:
        session = onnxruntime.InferenceSession(workload.model, options, providers=providers)
    except Exception as error:  # onnxruntime raises its own types, one per status code
        raise DeviceError(
            f"this onnxruntime, {onnxruntime.__version__}, does not run the {workload.measures} "
            f"workload {workload.name!r}: {error}"
        ) from error

    binding = session.io_binding()
    for name, array in workload.feeds.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
    for result in workload.results:
        binding.bind_output(result)
    session.run_with_iobinding(binding)
    # In a step results lie within one large block, whose pages cost little. Copies share one place.
    room = np.empty(binding.get_outputs()[0].shape(), np.float32)
    for result in workload.results:
        binding.bind_ortvalue_output(result, onnxruntime.OrtValue.ortvalue_from_numpy(room))
    held = (*workload.feeds.values(), room)

    def run() -> object:
        session.run_with_iobinding(binding)
        return held  # the memory that the binding points to

    return run


def rates_of(timed: Sequence[Timed]) -> dict[str, Duration]:
    """Seconds per operation, byte or operator, by what was measured.

    Of several workloads the amounts and the durations are summed, as they are in a step, so that
    the larger ones count more. The spread is that of the noisiest.
    """
    groups: dict[str, list[Timed]] = {}
    for item in timed:
        groups.setdefault(item.measures, []).append(item)
    return {key: _mean(items) for key, items in groups.items()}


def _mean(items: Sequence[Timed]) -> Duration:
    per_unit = sum(i.duration.seconds for i in items) / sum(i.amount for i in items)
    spread = max(item.duration.spread for item in items)
    return Duration(per_unit, spread, min(item.duration.rounds for item in items))
