"""Temperature: pauses above a limit, and goes on when the processor is well below it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgetune.errors import DeviceError
from edgetune.guards.guard import BudgetName, Moment, Pause, Stop, unreadable
from edgetune.units import format_celsius

RESUME_BELOW_CELSIUS = 5.0
"""A pause lasts until it is so much cooler: else the run would stutter at the limit."""

LONGEST_PAUSE_SECONDS = 3600.0
"""What does not cool in an hour of rest is not heated by the training."""

_PAUSE_SECONDS = 1.0
_PLAUSIBLE_CELSIUS = (-40.0, 150.0)

# Of the Linux thermal zones' types. A Jetson has others beside them, one of which (PMIC-Die) is not
# a measurement, and a phone has its battery's and its radios'.
_PROCESSOR = re.compile(r"cpu|gpu|soc|pkg|package|cluster|^tj\b|bcm", re.IGNORECASE)


@dataclass(frozen=True)
class Thermometer:
    """The hottest of some thermal zones. zones: folders of /sys/class/thermal."""

    zones: tuple[Path, ...]

    def celsius(self) -> float | None:
        """Degrees Celsius; None when no zone can be read, or none reads what a processor can be."""
        low, high = _PLAUSIBLE_CELSIUS
        readings = [_celsius(zone) for zone in self.zones]
        return max((r for r in readings if r is not None and low < r < high), default=None)


def open_thermometer(root: Path = Path("/")) -> Thermometer:
    """The processor's zones under `root`, or all zones where none is named after it.

    Raises DeviceError where there are none that can be read.
    """
    zones = sorted((root / "sys/class/thermal").glob("thermal_zone*"))
    ours = [zone for zone in zones if _PROCESSOR.search(_text(zone / "type"))]
    for chosen in (ours, zones):
        thermometer = Thermometer(tuple(chosen))
        if thermometer.celsius() is not None:
            return thermometer
    raise DeviceError(
        f"a temperature cannot be held: no thermal zone in {root / 'sys/class/thermal'} can be "
        "read; leave --temperature out"
    )


@dataclass(frozen=True)
class TemperatureGuard:
    """Pauses above `limit_celsius`; stops when pausing does not help, or nothing can be read."""

    limit_celsius: float
    thermometer: Thermometer
    budget: BudgetName = "temperature"
    every_seconds: float = 1.0

    def check(self, moment: Moment) -> Stop | Pause | None:
        """Stop, Pause, or None."""
        resting = moment.paused_by == self.budget
        bound = self.limit_celsius - (RESUME_BELOW_CELSIUS if resting else 0.0)
        celsius = self.thermometer.celsius()
        limit = format_celsius(self.limit_celsius)
        if celsius is None:
            zones, where = "the thermal zones", "/sys/class/thermal"
            holds = f"it is below {limit}"
            return unreadable("temperature", self.limit_celsius, "C", zones, holds, where)
        if celsius <= bound:
            return None
        if not resting or moment.paused_seconds <= LONGEST_PAUSE_SECONDS:
            return Pause(_PAUSE_SECONDS)
        reason = (
            f"it is {format_celsius(celsius)} after a pause of an hour, and training goes on below "
            f"{format_celsius(bound)}; cool the device, or raise --temperature"
        )
        return Stop("temperature", celsius, self.limit_celsius, "C", reason)


def _celsius(zone: Path) -> float | None:
    text = _text(zone / "temp")  # in thousandths; a zone that is off gives an error
    return int(text) / 1000 if re.fullmatch(r"-?\d+", text) else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
