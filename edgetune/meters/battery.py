"""Batteries in /sys/class/power_supply: what they give is what the device draws, off the charger.

Values are in microvolt, microampere and microwatt. The kernel's rule since 2020 is that a current
out of the battery is negative; older drivers have it the other way round or give no sign, and the
sign of power_now has no rule (Documentation/ABI/testing/sysfs-class-power and Linux 05f94eb98907).
So `status` says which way the current goes, and the sign only where there is no status.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgetune.errors import MeterError, NoSensorError
from edgetune.meters.meter import Sensor, plausible_watts
from edgetune.meters.sysfs import find, read_number, read_optional
from edgetune.nouns.profile import PowerScope

_STATUSES_THAT_SAY_NOTHING = ("", "Unknown")


@dataclass(frozen=True)
class BatteryMeter(Sensor):
    """The sum over the machine's batteries. folders: of /sys/class/power_supply."""

    folders: tuple[Path, ...]
    name: ClassVar[str] = "battery"
    scope: ClassVar[PowerScope] = "board"
    update_seconds: ClassVar[float] = 0.0

    @property
    def source(self) -> str:
        """The batteries."""
        return f"battery: {' + '.join(folder.name for folder in self.folders)}"

    def watts(self) -> float:
        """Power out of the batteries now, in watts.

        Raises MeterError while one is charged, and when none gives any: the device then runs from
        the charger, which has no sensor.
        """
        watts = sum(_watts_out(folder) for folder in self.folders)
        if watts == 0:
            raise MeterError(
                f"no current flows out of {self.source}: the device runs from the charger, whose "
                f"power nothing measures; unplug it, or use an external meter"
            )
        return plausible_watts(watts, self.source)


def _watts_out(folder: Path) -> float:
    status = read_optional(folder / "status")
    watts = _signed_watts(folder)
    if status == "Discharging":
        return abs(watts)
    if status == "Charging" or (status in _STATUSES_THAT_SAY_NOTHING and watts > 0):
        raise MeterError(
            f"{folder.name} is being charged: its current is not what the device draws; unplug the "
            f"charger, or use an external meter"
        )
    return abs(watts) if status in _STATUSES_THAT_SAY_NOTHING else 0.0  # Full, Not charging


def _signed_watts(folder: Path) -> float:
    """Power with the sign that the driver gives it."""
    if (folder / "power_now").exists():
        return read_number(folder / "power_now") * 1e-6
    volts = read_number(folder / "voltage_now") * 1e-6
    return volts * read_number(folder / "current_now") * 1e-6


def system_batteries(root: Path = Path("/")) -> list[Path]:
    """The folders of the batteries that supply this machine."""
    return [
        path.parent
        for path in find(root, ("sys/class/power_supply/*/type",))
        if read_optional(path) == "Battery"
        and read_optional(path.with_name("scope")) != "Device"  # of a mouse, a pen
        and read_optional(path.with_name("present")) != "0"
    ]


def open_battery(root: Path = Path("/")) -> BatteryMeter:
    """The meter of this machine's batteries. Raises MeterError where there are none that tell."""
    folders = system_batteries(root)
    if not folders:
        raise NoSensorError(f"no battery in {root / 'sys/class/power_supply'}")
    silent = [
        folder.name
        for folder in folders
        if not (folder / "power_now").exists()
        and not ((folder / "voltage_now").exists() and (folder / "current_now").exists())
    ]
    if silent:
        raise MeterError(f"{', '.join(silent)} shows neither power_now nor voltage and current")
    return BatteryMeter(tuple(folders))
