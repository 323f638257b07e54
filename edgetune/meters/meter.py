"""What a meter is: something that reads watts, or counts joules, and says of what."""

from __future__ import annotations

import math
from typing import ClassVar, Protocol, runtime_checkable

from edgetune.errors import MeterError
from edgetune.nouns.energy import ReadingKind
from edgetune.nouns.profile import PowerScope

HIGHEST_PLAUSIBLE_WATTS = 1000.0
"""No board or module that edgetune runs on draws a kilowatt; a sensor that says so is broken."""


class _Source(Protocol):
    @property
    def name(self) -> str:
        """The kind of meter, as in a device profile: `ina3221`, `powercap`, ..."""

    @property
    def source(self) -> str:
        """The meter and what it reads, for people."""

    @property
    def scope(self) -> PowerScope:
        """What is metered."""

    @property
    def kind(self) -> ReadingKind:
        """Whether it is a measurement."""

    @property
    def update_seconds(self) -> float:
        """How long a reading stays the same before the sensor makes a new one; 0 if unknown."""

    @property
    def relative_error(self) -> float | None:
        """How far a reading may be off, as a share of it; None where nobody says."""


class PowerMeter(_Source, Protocol):
    """Reads the power of the moment."""

    def watts(self) -> float:
        """Power now, in watts, finite and not negative. Raises MeterError."""


@runtime_checkable
class EnergyCounter(_Source, Protocol):
    """Counts energy by itself, so that nothing between two readings is missed."""

    def joules(self) -> float:
        """Energy since the counter was opened, in joules; never decreases. Raises MeterError."""


Meter = PowerMeter | EnergyCounter


class Sensor:
    """What the sensors of a machine have in common: they measure, and nobody says how exactly."""

    kind: ClassVar[ReadingKind] = "measured"
    relative_error: ClassVar[float | None] = None


def plausible_watts(watts: float, source: str, highest: float = HIGHEST_PLAUSIBLE_WATTS) -> float:
    """`watts` itself; raises MeterError when no device can draw that."""
    if math.isfinite(watts) and 0 <= watts <= highest:
        return watts
    raise MeterError(
        f"{source} reads {watts:.6g} W, expected 0 to {highest:g} W: the sensor is broken, "
        f"wired the wrong way round, or its shunt is not the one its driver was told of"
    )
