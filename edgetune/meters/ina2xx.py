"""An INA219, INA226 or relative in the supply line, where the kernel's ina2xx driver has it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgetune.errors import MeterError, NoSensorError
from edgetune.meters.meter import Sensor, plausible_watts
from edgetune.meters.sysfs import find, read_number, read_optional
from edgetune.nouns.profile import PowerScope

CHIPS = ("ina219", "ina220", "ina226", "ina230", "ina231", "ina237", "ina238", "ina260")


@dataclass(frozen=True)
class Ina2xxMeter(Sensor):
    """One such chip. folder: its /sys/class/hwmon/hwmonN. scope: where in the supply it sits."""

    folder: Path
    chip: str
    scope: PowerScope = "board"
    name: ClassVar[str] = "ina2xx"
    update_seconds: ClassVar[float] = 0.0

    @property
    def source(self) -> str:
        """The chip and where it is."""
        return f"ina2xx: {self.chip} at {self.folder}"

    def watts(self) -> float:
        """Power through the chip's shunt now, in watts. Raises MeterError."""
        return plausible_watts(read_number(self.folder / "power1_input") * 1e-6, self.source)


def open_ina2xx(root: Path = Path("/"), scope: PowerScope = "board") -> Ina2xxMeter:
    """The one such chip of this machine; `scope` says where in the supply it sits.

    Raises MeterError when there is none, or several: then only you know which carries the supply,
    and make the Ina2xxMeter yourself.
    """
    named = [(read_optional(path), path.parent) for path in find(root, ("sys/class/hwmon/*/name",))]
    chips = [(chip, folder) for chip, folder in named if chip in CHIPS]
    if not chips:
        raise NoSensorError(
            f"no {', '.join(CHIPS[:3])} or relative in {root / 'sys/class/hwmon'}; on a Raspberry "
            f"Pi, dtoverlay=i2c-sensor,ina219 in config.txt binds one"
        )
    if len(chips) > 1:
        places = ", ".join(f"{chip} at {folder}" for chip, folder in chips)
        raise MeterError(
            f"there are several: {places}; only you know which one carries the supply: make the "
            f"Ina2xxMeter of that folder"
        )
    chip, folder = chips[0]
    return Ina2xxMeter(folder, chip, scope)
