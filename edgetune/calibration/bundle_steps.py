"""Runs the steps of bundles here: their time, memory, energy, and time by operator."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgetune.calibration.alone import LEARNING_RATE, peak_alone
from edgetune.calibration.heat import Heat, read_heat
from edgetune.calibration.operator_times import NodeTime, read_node_times
from edgetune.calibration.timing import Clock
from edgetune.data.dataset import Dataset
from edgetune.files.bundle import read_manifest
from edgetune.meters import Meter, Sampler
from edgetune.nouns.energy import EnergyReading
from edgetune.runtime.batches import epoch_order, micro_batches, plan_batch
from edgetune.runtime.portable_session import PortableSession
from edgetune.runtime.process_memory import cgroup_peak_bytes
from edgetune.runtime.session import MicroBatch, TrainingSession

_PROFILED_STEPS = 4
_MOST_BATCHES = 8


@dataclass(frozen=True)
class Opened:
    """A bundle, how to open it, and the micro-batches of its steps, over and over again."""

    folder: Path
    open: Callable[[], TrainingSession]
    batches: Sequence[Sequence[MicroBatch]]


@dataclass(frozen=True)
class Memory:
    """process_bytes: the most that a process of this bundle alone had resident, without data; None
    where nothing tells. cgroup_bytes: the most that its cgroup ever had, page cache included.
    """

    process_bytes: int | None
    cgroup_bytes: int | None


@dataclass(frozen=True)
class MeasuredStep:
    """One bundle here. times: seconds of every step, in order.

    energy: of all these steps together; None without a meter. heat: after the last step.
    nodes: None where the format lets no node be timed.
    """

    times: tuple[float, ...]
    memory: Memory
    energy: EnergyReading | None
    heat: Heat
    nodes: tuple[NodeTime, ...] | None

    @property
    def median_seconds(self) -> float:
        return statistics.median(self.times)

    @property
    def p95_seconds(self) -> float:
        """95 % of the steps take at most this."""
        return sorted(self.times)[-(-95 * len(self.times) // 100) - 1]

    @property
    def joules(self) -> float | None:
        """Energy of one step, in joules."""
        return None if self.energy is None else self.energy.joules / len(self.times)


def batches_of(data: Dataset, session: TrainingSession) -> list[list[MicroBatch]]:
    """The first batches of the data, in the order of a training with seed 0. Raises DataError."""
    manifest = session.manifest
    size, micro_batch = manifest.plan.batch, manifest.plan.micro_batch
    order, _ = epoch_order(len(data), 0, 0)
    kept = order[: _MOST_BATCHES * size]
    plans = [
        plan_batch(data, kept[start : start + size], manifest, "the data")
        for start in range(0, len(kept), size)
    ]
    return [list(micro_batches(data, plan, micro_batch)) for plan in plans]


def measure_steps(
    bundles: Sequence[Opened],
    steps: int,
    meter: Meter | None,
    progress: Callable[[str, float], None],
    clock: Clock = time.perf_counter,
) -> list[MeasuredStep]:
    """Measure `steps` steps of each bundle, step by step in turns.

    Before that each runs alone, for its memory; after it once more under onnxruntime's profiler.
    Raises what running a bundle raises, MeterError where the meter cannot be read.
    """
    memories = []
    for place, bundle in enumerate(bundles):
        progress("memory", place / len(bundles))
        memories.append(Memory(peak_alone(bundle.folder), cgroup_peak_bytes()))
    sessions = [bundle.open() for bundle in bundles]
    if meter is None:
        times, energies = _timed(bundles, sessions, steps, None, progress, clock)
    else:
        with Sampler(meter) as sampler:
            times, energies = _timed(bundles, sessions, steps, sampler, progress, clock)
    heat = read_heat()
    del sessions
    found = []
    for place, bundle in enumerate(bundles):
        progress("operators", place / len(bundles))
        nodes = _node_times(bundle)
        energy = energies[place]
        found.append(MeasuredStep(tuple(times[place]), memories[place], energy, heat, nodes))
    return found


def _step(session: TrainingSession, batch: Iterable[MicroBatch]) -> None:
    for micro_batch in batch:
        session.accumulate(micro_batch)
    session.update(LEARNING_RATE, None)


def _timed(
    bundles: Sequence[Opened],
    sessions: Sequence[TrainingSession],
    steps: int,
    sampler: Sampler | None,
    progress: Callable[[str, float], None],
    clock: Clock,
) -> tuple[list[list[float]], list[EnergyReading | None]]:
    times: list[list[float]] = [[] for _ in bundles]
    energies: list[EnergyReading | None] = [None for _ in bundles]
    for number in range(steps + 1):  # the first is not counted: pages and caches are cold
        for place, bundle in enumerate(bundles):
            batch = bundle.batches[number % len(bundle.batches)]
            mark = None if sampler is None else sampler.mark()
            before = clock()
            _step(sessions[place], batch)
            after = clock()
            if number:
                times[place].append(after - before)
                if sampler is not None and mark is not None:
                    energies[place] = _sum(energies[place], sampler.energy_since(mark))
        progress("steps", number / steps)
    return times, energies


def _sum(total: EnergyReading | None, more: EnergyReading) -> EnergyReading:
    if total is None:
        return more
    return replace(
        total,
        joules=total.joules + more.joules,
        error_bound_joules=total.error_bound_joules + more.error_bound_joules,
        seconds=total.seconds + more.seconds,
        samples=total.samples + more.samples,
        gaps=(*total.gaps, *more.gaps),
    )


def _node_times(bundle: Opened) -> tuple[NodeTime, ...] | None:
    manifest, digest = read_manifest(bundle.folder)
    if manifest.format != "portable":
        return None
    with tempfile.TemporaryDirectory() as folder:
        session = PortableSession(bundle.folder, manifest, digest, str(Path(folder) / "nodes"))
        for step in range(_PROFILED_STEPS):
            _step(session, bundle.batches[step % len(bundle.batches)])
        return tuple(read_node_times(session.end_profiling()))
