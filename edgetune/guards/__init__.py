"""Budgets held while training: memory, energy, time, temperature, power, battery.

    limits = Limits(energy_joules=500, celsius=80)
    with open_watch(limits, lambda: session.manifest, data.bytes, find_meter().require()) as watch:
        result = Trainer(session, TrainerConfig(epochs=5), watch).fit(data)
    print(result.stopped_by)

A rule of your own is a class with `Guard`'s three members, one of those in `Watch([...])`.
"""

from edgetune.guards.guard import STOP_EXIT_CODES, BudgetName, Guard, Moment, Pause, Stop
from edgetune.guards.limits import Limits, with_plans_energy, with_plans_memory
from edgetune.guards.open_watch import open_watch
from edgetune.guards.watch import Watch

__all__ = [
    "open_watch",
    "Watch",
    "Limits",
    "with_plans_memory",
    "with_plans_energy",
    "Guard",
    "Moment",
    "Pause",
    "Stop",
    "BudgetName",
    "STOP_EXIT_CODES",
]
