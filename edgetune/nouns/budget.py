"""What an update may cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """Upper bounds on a training step; None is unbounded.

    memory_bytes: peak of the whole process on the device, in bytes.
    energy_joules: energy of one step (one whole batch), in joules.
    step_seconds: duration of one step, in seconds.
    """

    memory_bytes: int | None = None
    energy_joules: float | None = None
    step_seconds: float | None = None
