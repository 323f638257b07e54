"""The whole of a calibration: idle power, then every rate, then what the machine says of itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetune.calibration.machine import (
    Storage,
    cores,
    cpu_name,
    memory_copy,
    storage,
    usable_memory_bytes,
)
from edgetune.calibration.rates import Timed, rates_of, time_workloads
from edgetune.calibration.timing import Clock, Duration
from edgetune.calibration.workloads import workloads
from edgetune.meters import Meter, Sampler
from edgetune.nouns.profile import PowerScope
from edgetune.runtime.process_memory import current_bytes

Progress = Callable[[str, float], None]

# Shares of the time: the rest goes to rates.
_IDLE, _COPYING = 0.1, 0.05


@dataclass(frozen=True)
class Power:
    """Mean power of the idle and of the busy device, in watts, and how it was metered."""

    idle_watts: float
    load_watts: float
    scope: PowerScope
    meter: str
    source: str


@dataclass(frozen=True)
class Calibration:
    """All that was measured.

    rates: seconds per floating-point operation, byte or operator, by the keys of
        edgetune.calibration.workloads. copy: seconds per byte of copying memory.
    process_bytes: resident memory with onnxruntime and numpy loaded, before any graph.
    power, storage: None where there is no meter, or no folder was given.
    """

    cores: int
    cpu: str
    onnxruntime: str
    timed: tuple[Timed, ...]
    rates: dict[str, Duration]
    copy: Duration
    usable_memory_bytes: int | None
    process_bytes: int | None
    power: Power | None
    storage: Storage | None

    @property
    def noisy(self) -> tuple[str, ...]:
        """Names of workloads whose times spread too much to be trusted."""
        return tuple(f"{item.measures}: {item.name}" for item in self.timed if item.duration.noisy)


def calibrate(
    onnxruntime: Any,
    within_seconds: float,
    meter: Meter | None,
    folder: Path | None,
    progress: Progress,
    clock: Clock = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Calibration:
    """Measure this machine in about `within_seconds`.

    meter: of power; only one that measures. folder: whose storage is measured, if any.
    Raises DeviceError, MeterError where the meter is lost, StorageError.
    """
    process = current_bytes()
    idle = load = None
    resting = _IDLE * within_seconds if meter is not None else 0.0
    if meter is not None:
        progress("idle power", 0.0)
        with Sampler(meter) as sampler:
            mark = sampler.mark()
            sleep(resting)
            idle = sampler.energy_since(mark).mean_watts
    progress("memory", 0.0)
    copying = _COPYING * within_seconds
    copied = memory_copy(copying, clock)
    todo, working = workloads(), within_seconds - resting - copying

    def told(share: float) -> None:
        progress("operators", share)

    if meter is None:
        timed = time_workloads(onnxruntime, todo, working, told, clock)
    else:
        with Sampler(meter) as sampler:
            mark = sampler.mark()
            timed = time_workloads(onnxruntime, todo, working, told, clock)
            load = sampler.energy_since(mark).mean_watts
    progress("storage", 0.0)
    stored = None if folder is None else storage(folder, clock)
    power = None
    if meter is not None and idle is not None and load is not None:
        power = Power(idle, load, meter.scope, meter.name, meter.source)
    return Calibration(
        cores=cores(),
        cpu=cpu_name(),
        onnxruntime=onnxruntime.__version__,
        timed=tuple(timed),
        rates=rates_of(timed),
        copy=copied,
        usable_memory_bytes=usable_memory_bytes(),
        process_bytes=process,
        power=power,
        storage=stored,
    )
