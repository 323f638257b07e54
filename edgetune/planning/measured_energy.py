"""Planning with what a step was measured to take, where that is not what was predicted.

What all steps of a device take more, or less, is taken for a factor: predictions of energy are as
wrong for every selection as they are for the one that was measured.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edgetune.errors import BudgetError
from edgetune.nouns.budget import Budget
from edgetune.nouns.cost import StepCost
from edgetune.nouns.plan import UpdatePlan


def energy_factor(measured_joules: float, predicted: StepCost, device: str) -> float:
    """What predictions of energy are to be multiplied by.

    measured_joules: of one step, which was `predicted` for the device of that id. Raises
    BudgetError where the device's profile predicts no energy.
    """
    if not predicted.joules:
        raise BudgetError(
            f"the profile of {device} predicts no energy, which the measured one could correct: "
            "`edgetune calibrate` writes a profile that does; pass that as --device"
        )
    return measured_joules / predicted.joules


def as_predicted(budget: Budget, factor: float) -> Budget:
    """`budget` in the joules of predictions that are off by `factor`."""
    return replace(budget, **{name: j / factor for name, j in _energies(budget).items()})


def as_measured(plan: UpdatePlan, budget: Budget, factor: float) -> UpdatePlan:
    """`plan`, made within `as_predicted(budget, factor)`, in the joules that were measured."""
    joules, certificate = plan.cost.joules, plan.certificate
    prices = {
        name: price / factor if "energy" in name else price
        for name, price in certificate.prices.items()
    }
    return replace(
        plan,
        cost=replace(plan.cost, joules=None if joules is None else joules * factor),
        budget=replace(plan.budget, **_energies(budget)),
        certificate=replace(certificate, prices=prices),
    )


def _energies(budget: Budget) -> dict[str, Any]:
    energies = {
        "energy_joules": budget.energy_joules,
        "run_energy_joules": budget.run_energy_joules,
    }
    return {name: joules for name, joules in energies.items() if joules is not None}
