"""No meter at all: power estimated from a device profile and how busy the cores are."""

from __future__ import annotations

from pathlib import Path

from edgetune.errors import MeterError
from edgetune.meters.meter import plausible_watts
from edgetune.meters.sysfs import read_text
from edgetune.nouns.energy import ReadingKind
from edgetune.nouns.profile import DeviceProfile, PowerScope

UNCALIBRATED_ERROR = 0.3
"""Where load and idle were not measured on the very board, the model is off by up to 30 %."""


class ModelMeter:
    """`idle + (load - idle) x busy` in watts; an estimate, and labelled as one.

    busy is the share of all cores' time that was not idle since the previous reading, of all
    processes together, from /proc/stat under `root`.
    Raises MeterError when the profile does not know idle_watts, load_watts and their scope.
    """

    name = "model"
    kind: ReadingKind = "estimated"
    update_seconds = 0.0
    relative_error: float | None = UNCALIBRATED_ERROR

    def __init__(self, profile: DeviceProfile, root: Path = Path("/")) -> None:
        needed = {
            "idle_watts": profile.idle_watts,
            "load_watts": profile.load_watts,
            "power_scope": profile.power_scope,
        }
        unknown = [name for name, value in needed.items() if value is None]
        if profile.idle_watts is None or profile.load_watts is None or profile.power_scope is None:
            raise MeterError(
                f"power cannot be estimated: the profile {profile.id} does not know "
                f"{', '.join(unknown)}; measure them with an external meter and write them into a "
                f"profile of your own"
            )
        self.scope: PowerScope = profile.power_scope
        self._idle_watts = profile.idle_watts.value
        self._load_watts = profile.load_watts.value
        self._id = profile.id
        self._stat = root / "proc" / "stat"
        self._last = _ticks(self._stat)
        self._busy = 0.0

    @property
    def source(self) -> str:
        """The profile, and what was assumed."""
        return (
            f"model: {self._idle_watts:g} W idle to {self._load_watts:g} W at full load of the "
            f"profile {self._id}, by how busy the cores are"
        )

    def watts(self) -> float:
        """Estimated mean power since the previous reading, in watts. Raises MeterError."""
        busy, total = _ticks(self._stat)
        last_busy, last_total = self._last
        if total > last_total:  # else less than a tick (10 ms) has passed: as before
            self._busy = min(max((busy - last_busy) / (total - last_total), 0.0), 1.0)
            self._last = busy, total
        watts = self._idle_watts + (self._load_watts - self._idle_watts) * self._busy
        return plausible_watts(watts, self.source)


def _ticks(stat: Path) -> tuple[int, int]:
    """Ticks that all cores together were busy, and all their ticks. Raises MeterError."""
    first = read_text(stat).partition("\n")[0].split()
    try:
        # user nice system idle iowait irq softirq steal; guests are in user already: proc(5)
        ticks = [int(number) for number in first[1:9]]
        idle = ticks[3] + ticks[4]
    except (ValueError, IndexError):
        raise MeterError(f"cannot read how busy the cores are in {stat}: {first}") from None
    return sum(ticks) - idle, sum(ticks)
