"""What was measured against the budgets it was planned within."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgetune.nouns.budget import Budget


@dataclass(frozen=True)
class Verdict:
    """One budget. unit: "byte", "J" or "s". measured: None where it could not be measured."""

    budget: str
    unit: str
    limit: float
    measured: float | None

    @property
    def exceeded(self) -> bool:
        return self.measured is not None and self.measured > self.limit

    @property
    def text(self) -> str:
        """ "within", "exceeded by 12 %", or "not measured"."""
        if self.measured is None:
            return "not measured"
        share = self.measured / self.limit
        return f"exceeded by {share - 1:.1%}" if self.exceeded else f"within, {1 - share:.1%} left"


def verdicts(
    budget: Budget, peak_bytes: float | None, joules: float | None, seconds: float
) -> Iterator[Verdict]:
    """One verdict per budget that is set. joules, seconds: of one step."""
    if budget.memory_bytes is not None:
        yield Verdict("memory", "byte", budget.memory_bytes, peak_bytes)
    if budget.energy_joules is not None:
        yield Verdict("energy per step", "J", budget.energy_joules, joules)
    if budget.step_seconds is not None:
        yield Verdict("step", "s", budget.step_seconds, seconds)
    if budget.run_energy_joules is not None and budget.run_steps is not None:
        run = None if joules is None else joules * budget.run_steps
        yield Verdict(f"energy of {budget.run_steps} steps", "J", budget.run_energy_joules, run)
