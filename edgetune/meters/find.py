"""The best meter of this machine, or why there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgetune.errors import MeterError, NoSensorError
from edgetune.meters.battery import open_battery
from edgetune.meters.ina2xx import open_ina2xx
from edgetune.meters.ina3221 import open_ina3221
from edgetune.meters.meter import EnergyCounter, Meter
from edgetune.meters.model import ModelMeter
from edgetune.meters.pmic import open_pmic
from edgetune.meters.rapl import open_rapl
from edgetune.nouns.profile import DeviceProfile

_OPENERS: tuple[tuple[str, Callable[[Path], Meter]], ...] = (
    ("ina3221", open_ina3221),
    ("ina2xx", open_ina2xx),  # somebody wired it into the supply: it sees more than the Pi 5 does
    ("vcgencmd-pmic", open_pmic),
    ("battery", open_battery),  # off the charger it sees all of a laptop, RAPL the processor alone
    ("powercap", open_rapl),
)


@dataclass(frozen=True)
class MeterSearch:
    """What was found. meter: the best; None when there is none.

    absent: why each other kind that was tried before it is not there, by kind, in order.
    unreadable: those of them whose sensor is there, and could be read if something were mended.
    """

    meter: Meter | None
    absent: tuple[tuple[str, str], ...]
    unreadable: tuple[tuple[str, str], ...] = ()

    def describe(self) -> str:
        """What was found, or one line per kind that was not."""
        lines = [f"{kind}: {reason}" for kind, reason in self.absent]
        if self.meter is not None:
            return f"{self.meter.source} ({self.meter.scope}, {self.meter.kind})"
        return "\n".join(["no power meter was found", *(f"  {line}" for line in lines)])

    def require(self) -> Meter:
        """The meter. Raises MeterError with what was tried."""
        if self.meter is None:
            raise MeterError(self.describe())
        return self.meter


def find_meter(root: Path = Path("/"), profile: DeviceProfile | None = None) -> MeterSearch:
    """The best meter of the machine whose files are under `root`; it was read once.

    profile: if given, and nothing measures, its model estimates. An external meter is not looked
    for: only you know its command.
    """
    absent, unreadable = [], []
    for kind, opened in _OPENERS:
        try:
            meter = opened(root)
            meter.joules() if isinstance(meter, EnergyCounter) else meter.watts()
        except MeterError as error:
            absent.append((kind, str(error)))
            if not isinstance(error, NoSensorError):
                unreadable.append(absent[-1])
        else:
            return MeterSearch(meter, tuple(absent), tuple(unreadable))
    if profile is not None:
        try:
            return MeterSearch(ModelMeter(profile, root), tuple(absent), tuple(unreadable))
        except MeterError as error:
            absent.append(("model", str(error)))
    return MeterSearch(None, tuple(absent), tuple(unreadable))
