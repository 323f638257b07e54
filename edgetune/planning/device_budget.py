"""No budget is larger than the device."""

from __future__ import annotations

from dataclasses import replace

from edgetune.nouns.budget import Budget
from edgetune.nouns.profile import DeviceProfile


def within_device(budget: Budget, profile: DeviceProfile) -> Budget:
    """`budget`, bounded by the memory that the device can give any process."""
    usable = profile.usable_memory_bytes
    if usable is None:
        return budget
    bound = int(usable.value)
    if budget.memory_bytes is not None:
        bound = min(bound, budget.memory_bytes)
    return replace(budget, memory_bytes=bound)
