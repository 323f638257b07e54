"""The INA3221 sensors of Jetson modules, over hwmon or the older iio driver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgetune.errors import MeterError, NoSensorError
from edgetune.meters.boards import JetsonBoard, jetson_board, this_machine
from edgetune.meters.meter import Sensor, plausible_watts
from edgetune.meters.sysfs import find, read_number, read_optional
from edgetune.nouns.profile import PowerScope

_HWMON = ("sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*",)
_IIO = (
    "sys/bus/i2c/drivers/ina3221x/*/iio:device*",  # L4T up to 32
    "sys/bus/i2c/drivers/ina3221/*/iio:device*",
)
_CHANNELS = (1, 2, 3)  # in7 is the sum of the shunt voltages, in4 to in6 are these themselves
_NOT_CONNECTED = ("", "NC")
_NOISE_WATTS = 0.1
"""An idle rail reads a few mA around zero, below it as well; more than this below is no noise."""


@dataclass(frozen=True)
class Rail:
    """One channel of a sensor. voltage is in mV and current in mA; or `power` alone, in mW."""

    label: str
    voltage: Path | None
    current: Path | None
    power: Path | None

    def watts(self) -> float:
        """Power through this rail, in watts. Raises MeterError."""
        if self.power is not None:
            watts = read_number(self.power) * 1e-3
        else:
            assert self.voltage is not None
            assert self.current is not None
            watts = read_number(self.voltage) * read_number(self.current) * 1e-6
        if watts < 0:
            if watts < -_NOISE_WATTS:
                plausible_watts(watts, f"the rail {self.label}")
            return 0.0
        return plausible_watts(watts, f"the rail {self.label}")


@dataclass(frozen=True)
class Ina3221Meter(Sensor):
    """The sum of the rails that make up a Jetson module; none of them contains another."""

    board: str
    rails: tuple[Rail, ...]
    update_seconds: float = 0.0
    name: ClassVar[str] = "ina3221"
    scope: ClassVar[PowerScope] = "module"

    @property
    def source(self) -> str:
        """The sensor, its rails and the board."""
        return f"ina3221: {' + '.join(rail.label for rail in self.rails)} of {self.board}"

    def watts(self) -> float:
        """Power into the module now, in watts. Raises MeterError."""
        return plausible_watts(sum(rail.watts() for rail in self.rails), self.source)


def open_ina3221(root: Path = Path("/")) -> Ina3221Meter:
    """The meter of this Jetson.

    Raises MeterError where there is no sensor, the board is not in the table of rails, or a rail
    of it is missing: a sum without it would be too small.
    """
    machine = this_machine(root)
    if not machine.is_jetson:
        raise NoSensorError("this is not a Jetson")
    board = jetson_board(machine)
    if board is not None and not board.rails:
        raise NoSensorError(f"the {board.name} has no power sensor; use an external meter")
    seen = rails(root)
    if not seen:
        raise MeterError(
            f"no ina3221 sensor in {root / 'sys/bus/i2c/drivers/ina3221'}: the driver is not "
            f"loaded, or this carrier's device tree leaves the sensor out"
        )
    labels = ", ".join(seen)
    if board is None:
        raise MeterError(
            f"no table says which of the rails {labels} contain which on {machine.model!r}, and "
            f"a guess would count some twice; use an external meter"
        )
    chosen, missing = _chosen(board, seen)
    if missing:
        raise MeterError(
            f"the {board.name} must have the rail{'s' if len(missing) > 1 else ''} "
            f"{', '.join(missing)}, and its sensors show {labels}; is the module another one than "
            f"the device tree says?"
        )
    folders = {path.parent for rail in chosen if (path := rail.voltage or rail.power)}
    milliseconds = [read_optional(folder / "update_interval") for folder in folders]
    seconds = max((int(text) / 1e3 for text in milliseconds if text.isdigit()), default=0.0)
    return Ina3221Meter(board.name, chosen, seconds)


def _chosen(
    board: JetsonBoard, seen: Mapping[str, Rail]
) -> tuple[tuple[Rail, ...], tuple[str, ...]]:
    """The board's rails, and names of those that are missing."""
    found = [next((seen[name] for name in names if name in seen), None) for names in board.rails]
    missing = tuple(
        " or ".join(names) for names, rail in zip(board.rails, found, strict=True) if rail is None
    )
    return tuple(rail for rail in found if rail is not None), missing


def rails(root: Path) -> dict[str, Rail]:
    """All rails that the sensors under `root` show, by label; unconnected channels left out."""
    found: dict[str, Rail] = {}
    for folder in find(root, _HWMON):
        for channel in _CHANNELS:
            label = read_optional(folder / f"in{channel}_label")
            voltage, current = folder / f"in{channel}_input", folder / f"curr{channel}_input"
            if label not in _NOT_CONNECTED and voltage.exists() and current.exists():
                found.setdefault(label, Rail(label, voltage, current, None))
    for folder in find(root, _IIO):
        for channel in (0, 1, 2):
            label = read_optional(folder / f"rail_name_{channel}")
            power = folder / f"in_power{channel}_input"
            if label not in _NOT_CONNECTED and power.exists():
                found.setdefault(label, Rail(label, None, None, power))
    return found
