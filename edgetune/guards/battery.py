"""Battery: ends the run while enough charge is left for what the device is for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgetune.errors import DeviceError, MeterError
from edgetune.guards.guard import BudgetName, Moment, Stop, unreadable
from edgetune.meters.battery import system_batteries
from edgetune.meters.sysfs import read_number, read_optional
from edgetune.units import format_percent

_ON_THE_CHARGER = ("Charging", "Full", "Not charging")


@dataclass(frozen=True)
class Batteries:
    """The machine's batteries. folders: of /sys/class/power_supply."""

    folders: tuple[Path, ...]

    def percent(self) -> float | None:
        """The mean charge in percent of full; None when one cannot be read."""
        try:
            charges = [read_number(folder / "capacity") for folder in self.folders]
        except MeterError:
            return None
        return sum(charges) / len(charges)

    def drains(self) -> bool:
        """Whether one gives power; one that says nothing of it does."""
        states = [read_optional(folder / "status") for folder in self.folders]
        return any(state not in _ON_THE_CHARGER for state in states)


def open_batteries(root: Path = Path("/")) -> Batteries:
    """Those that supply this machine. Raises DeviceError where there are none that tell."""
    folders = system_batteries(root)
    batteries = Batteries(tuple(folders))
    if not folders or batteries.percent() is None:
        raise DeviceError(
            f"a battery floor cannot be held: no battery in {root / 'sys/class/power_supply'} "
            "tells its capacity; leave --battery-floor out"
        )
    return batteries


@dataclass(frozen=True)
class BatteryGuard:
    """Stops below `floor_percent`, unless the batteries are on the charger."""

    floor_percent: float
    batteries: Batteries
    budget: BudgetName = "battery"
    every_seconds: float = 10.0

    def check(self, moment: Moment) -> Stop | None:
        """Stop, or None."""
        percent = self.batteries.percent()
        floor = format_percent(self.floor_percent)
        if percent is None:
            holds, where = f"it is above {floor}", "/sys/class/power_supply"
            return unreadable("battery", self.floor_percent, "%", "the battery", holds, where)
        if percent >= self.floor_percent or not self.batteries.drains():
            return None
        reason = (
            f"{format_percent(percent)} are left, and {floor} shall remain; charge it, then "
            "continue with --resume"
        )
        return Stop("battery", percent, self.floor_percent, "%", reason)
