"""What a user lets one run have."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgetune.errors import UsageError
from edgetune.nouns.manifest import Manifest
from edgetune.units import format_bytes, format_joules

PLANS_OWN = "the plan's budget"


@dataclass(frozen=True)
class Limits:
    """Upper bounds that are held while a run works; None is unbounded.

    memory_bytes: resident memory of the whole process, the data set in it.
    energy_joules, seconds: of one call of `fit`.
    power_watts: of the mean over ten seconds (edgetune/guards/power.py).
    celsius: of the processor; above it the run pauses.
    battery_percent: the charge below which the run ends.
    memory_from: who set memory_bytes, for messages.
    """

    memory_bytes: int | None = None
    energy_joules: float | None = None
    power_watts: float | None = None
    seconds: float | None = None
    celsius: float | None = None
    battery_percent: float | None = None
    memory_from: str = "the budget"

    @property
    def needs_meter(self) -> bool:
        """Whether energy or power is bounded."""
        return self.energy_joules is not None or self.power_watts is not None


def with_plans_memory(limits: Limits, manifest: Manifest, data_bytes: int) -> Limits:
    """`limits` with the memory that the bundle's plan was made for.

    That is of the process without its data set, as all predictions are, so `data_bytes` are added.
    A bundle of another format was planned as a portable one: its process is another, and unbounded.
    """
    planned = manifest.plan.budget.memory_bytes
    if planned is None or manifest.format != "portable":
        return limits
    said = f"{PLANS_OWN}, {format_bytes(planned)}, and {format_bytes(data_bytes)} of data"
    return replace(limits, memory_bytes=planned + data_bytes, memory_from=said)


def with_plans_energy(limits: Limits, manifest: Manifest, resumed: bool) -> Limits:
    """`limits` with the energy per run that the bundle's plan was made for.

    Raises UsageError for a run that is `resumed`: the plan's is of the whole run, and what went
    before is not known.
    """
    planned = manifest.plan.budget.run_energy_joules
    if planned is not None and resumed:
        raise UsageError(
            f"the plan allows {format_joules(planned)} for a whole run, and this one has used some "
            "before: say what it may use from here on with --energy, or --energy none"
        )
    return replace(limits, energy_joules=planned)
