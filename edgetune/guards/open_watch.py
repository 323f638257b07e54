"""From limits to the watch that holds them on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgetune.errors import UsageError
from edgetune.guards.battery import BatteryGuard, open_batteries
from edgetune.guards.deadline import TimeGuard
from edgetune.guards.energy import EnergyGuard
from edgetune.guards.forecast import Forecast, ForecastGuard
from edgetune.guards.guard import Guard
from edgetune.guards.limits import Limits
from edgetune.guards.memory import MemoryGuard, StepPeak
from edgetune.guards.memory_room import memory_files
from edgetune.guards.power import PowerGuard, PowerWindow
from edgetune.guards.temperature import TemperatureGuard, open_thermometer
from edgetune.guards.watch import Watch
from edgetune.meters.meter import Meter
from edgetune.meters.sampler import Sampler
from edgetune.nouns.manifest import Manifest
from edgetune.nouns.plan import UpdatePlan
from edgetune.units import format_bytes


@contextmanager
def open_watch(
    limits: Limits,
    manifest: Callable[[], Manifest],
    data_bytes: int,
    meter: Meter | None = None,
    root: Path = Path("/"),
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    ahead: Forecast | None = None,
) -> Iterator[Watch]:
    """A watch that holds `limits`; within the block `meter`, if there is one, is sampled.

    Memory is always guarded: without a budget of its own by what a cgroup or the machine has.

    manifest: that of the session as it is now. data_bytes: the data sets that the process holds.
    root: above /proc and /sys. clock, sleep: as of `Watch`. ahead: if given, the run also ends
    once it is foreseen that its energy will not last.
    Raises UsageError when energy or power is bounded without a meter, MeterError when the meter
    cannot be read, DeviceError when a thermometer or battery is bounded that is not there.
    """
    if limits.needs_meter and meter is None:
        raise UsageError(
            "a budget of energy or power needs a meter, or a profile that can estimate it: "
            "docs/meters.md says which there are"
        )
    plan = manifest().plan
    guards: list[Guard] = [_memory(limits, manifest, data_bytes, root)]
    if limits.seconds is not None:
        guards.append(TimeGuard(limits.seconds, plan.cost.seconds))
    if limits.battery_percent is not None:
        guards.append(BatteryGuard(limits.battery_percent, open_batteries(root)))
    if limits.celsius is not None:
        guards.append(TemperatureGuard(limits.celsius, open_thermometer(root)))
    if meter is None:
        yield Watch(guards, clock, sleep)
        return
    with Sampler(meter, clock=clock) as sampler:
        begun = sampler.mark()
        used = lambda: sampler.energy_since(begun)  # noqa: E731 - one line says what it is
        if limits.energy_joules is not None:
            if ahead is not None:
                guards.append(ForecastGuard(limits.energy_joules, used, ahead))
            guards.append(EnergyGuard(limits.energy_joules, used, plan.cost.joules))
        if limits.power_watts is not None:
            guards.append(PowerGuard(limits.power_watts, PowerWindow(used)))
        yield Watch(guards, clock, sleep, used)


def _memory(
    limits: Limits, manifest: Callable[[], Manifest], data_bytes: int, root: Path
) -> MemoryGuard:
    def predicted() -> int | None:
        now = manifest()
        # An ort-training process is another than the portable one that was planned.
        planned = now.plan.cost.peak_bytes if now.format == "portable" else 0
        return planned + data_bytes if planned else None

    holds = f"; {format_bytes(data_bytes)} of what the process holds is data"
    return MemoryGuard(
        StepPeak(predicted),
        memory_files(root),
        limits.memory_bytes,
        limits.memory_from,
        _checkpoint_bytes(manifest().plan),
        f"{holds}; plan for less memory, or bring less data",
    )


def _checkpoint_bytes(plan: UpdatePlan) -> int:
    """What writing a checkpoint takes: a chunk, and copies of the shares' values (fp32)."""
    return 2**20 + (4 * plan.trainable_count if plan.selection.shares else 0)
