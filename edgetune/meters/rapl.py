"""RAPL, the energy counters of x86 processors, over the kernel's powercap interface."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgetune.errors import MeterError, NoSensorError
from edgetune.meters.meter import Sensor
from edgetune.meters.sysfs import find, read_number, read_optional
from edgetune.nouns.profile import PowerScope

_ZONES = ("sys/class/powercap/intel-rapl:*",)  # AMD's too; intel-rapl-mmio counts the same again
_UPDATE_SECONDS = 1e-3
"""The counters are brought up to date about every millisecond: Intel SDM volume 3B, RAPL."""


@dataclass(frozen=True)
class _Zone:
    label: str
    energy: Path
    range_uj: int


class RaplCounter(Sensor):
    """The energy of all processor packages, and of the memory where it has a counter of its own.

    Cores, graphics and so on are parts of a package and are not added; nor is psys, which contains
    the packages on those machines that have it. Reading it must not pause for as long as the
    counter takes to wrap around: 262 kJ on many machines, 44 minutes at 100 W.
    """

    name: ClassVar[str] = "powercap"
    scope: ClassVar[PowerScope] = "module"
    update_seconds: ClassVar[float] = _UPDATE_SECONDS

    def __init__(self, zones: tuple[_Zone, ...]) -> None:
        self._zones = zones
        self._last_uj = [read_number(zone.energy) for zone in zones]
        self._total_uj = 0

    @property
    def source(self) -> str:
        """The counters that are added up."""
        return f"powercap: {' + '.join(zone.label for zone in self._zones)}"

    def joules(self) -> float:
        """Energy since this counter was opened, in joules. Raises MeterError."""
        now_uj = [read_number(zone.energy) for zone in self._zones]
        passed = [
            (now - last) % zone.range_uj
            for now, last, zone in zip(now_uj, self._last_uj, self._zones, strict=True)
        ]
        again = [
            zone.label
            for now, last, used, zone in zip(
                now_uj, self._last_uj, passed, self._zones, strict=True
            )
            if now < last and used > zone.range_uj // 2
        ]
        self._last_uj = now_uj
        if again:  # a wrap-around leaves little behind; this began again from zero
            raise MeterError(
                f"the counter of {', '.join(again)} went back: the machine slept or the driver was "
                f"loaded again, and the energy in between is not known"
            )
        self._total_uj += sum(passed)
        return self._total_uj * 1e-6


def open_rapl(root: Path = Path("/")) -> RaplCounter:
    """The counter of this machine. Raises MeterError where there is none or it may not be read."""
    zones: list[_Zone] = []
    for folder in find(root, _ZONES):
        label = read_optional(folder / "name")
        if label.startswith("package"):
            zones.append(_zone(folder, label))
        elif label == "dram":
            package = read_optional(folder.with_name(folder.name.rpartition(":")[0]) / "name")
            zones.append(_zone(folder, f"{package}'s dram" if package else label))
    if not zones:
        raise NoSensorError(
            f"no package counter in {root / 'sys/class/powercap'}: not an x86 processor with RAPL, "
            f"a virtual machine, or the module intel_rapl_msr is not loaded"
        )
    return RaplCounter(tuple(zones))


def _zone(folder: Path, label: str) -> _Zone:
    energy = folder / "energy_uj"
    try:
        range_uj = read_number(folder / "max_energy_range_uj")
        read_number(energy)
    except MeterError as error:
        if not isinstance(error.__cause__, PermissionError):
            raise
        raise MeterError(
            f"no permission to read {energy}: since Linux 5.10 only root may (CVE-2020-8694); run "
            f"as root, or let everybody read it until the next start: sudo chmod -R a+r "
            f"/sys/class/powercap/intel-rapl:*/"
        ) from error
    if range_uj <= 0:
        raise MeterError(f"{folder}/max_energy_range_uj is {range_uj}, expected more than zero")
    return _Zone(label, energy, range_uj)
