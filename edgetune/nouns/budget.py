"""What an update may cost."""

from __future__ import annotations

from dataclasses import dataclass

from edgetune.errors import UsageError


@dataclass(frozen=True)
class Budget:
    """Upper bounds on training; None is unbounded.

    memory_bytes: peak of the whole process on the device, in bytes.
    energy_joules: energy of one step (one whole batch), in joules.
    step_seconds: duration of one step, in seconds.
    run_energy_joules: energy of a whole run of `run_steps` steps, in joules.
    """

    memory_bytes: int | None = None
    energy_joules: float | None = None
    step_seconds: float | None = None
    run_energy_joules: float | None = None
    run_steps: int | None = None

    def __post_init__(self) -> None:
        if (self.run_energy_joules is None) != (self.run_steps is None):
            raise UsageError("a budget per run needs both its energy and its number of steps")
