"""Power and energy as they were read: with their scope, their source and what may be wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgetune.nouns.profile import PowerScope

ReadingKind = Literal["measured", "estimated", "replayed"]


@dataclass(frozen=True)
class PowerSample:
    """`watts` at the moment `seconds` of a clock that never goes back."""

    seconds: float
    watts: float


@dataclass(frozen=True)
class PowerLimits:
    """What the power lies between, whatever was sampled: a profile's idle and load, in watts."""

    lowest_watts: float
    highest_watts: float


@dataclass(frozen=True)
class Gap:
    """From `start_seconds` to `end_seconds` (of the samples' clock) nothing could be read."""

    start_seconds: float
    end_seconds: float
    reason: str


@dataclass(frozen=True)
class EnergyReading:
    """The energy of a stretch of time.

    joules, seconds: what was used, and in how long.
    error_bound_joules: how far `joules` may be from the integral of the power that the sensor
        shows; `edgetune/meters/ledger.py` states what it assumes. The sensor's own accuracy is not
        in it, except for an estimate.
    scope: what was metered: the compute module, the board's supply input, or the wall.
    source: the meter, and what it read.
    samples: readings that the stretch rests on; those of a counter count too.
    gaps: when and why there were none; their energy is guessed, and the guess is in the bound.
    """

    joules: float
    error_bound_joules: float
    seconds: float
    scope: PowerScope
    source: str
    samples: int
    kind: ReadingKind
    gaps: tuple[Gap, ...] = ()

    @property
    def mean_watts(self) -> float:
        """Mean power, in watts; 0 when no time has passed."""
        return self.joules / self.seconds if self.seconds > 0 else 0.0
