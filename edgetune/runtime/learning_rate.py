"""Learning rates as pure functions of the update's index.

Every function takes `index`, the number of updates done before this one, so a resumed run needs
nothing but its step count. They are PyTorch's schedules stepped once per update:
`constant` is none, `cosine` is `CosineAnnealingLR(T_max=total)`, and a warm-up of w updates is
`SequentialLR([LinearLR(start_factor=1/(w+1), total_iters=w), after], milestones=[w])`.
"""

from __future__ import annotations

import math

from edgetune.errors import UsageError

SCHEDULES = ("constant", "cosine")


def constant(base: float, index: int, total: int) -> float:
    """`base`, always."""
    return base


def cosine(base: float, index: int, total: int) -> float:
    """Half a cosine wave from `base` at index 0 to 0 at index `total`."""
    return base * 0.5 * (1.0 + math.cos(math.pi * index / total))


def warm_up(base: float, index: int, warmup_steps: int) -> float:
    """A line that would reach `base` at index `warmup_steps`, and is never 0."""
    return base * (index + 1) / (warmup_steps + 1)


def learning_rate(schedule: str, base: float, index: int, total: int, warmup_steps: int) -> float:
    """The rate of update `index` out of `total`, of which the first `warmup_steps` warm up.

    schedule: one of SCHEDULES; it runs over the updates after the warm-up. Raises UsageError.
    """
    functions = {"constant": constant, "cosine": cosine}
    if schedule not in functions:
        raise UsageError(
            f"unknown learning-rate schedule {schedule!r}: expected one of {', '.join(SCHEDULES)}"
        )
    if index < warmup_steps:
        return warm_up(base, index, warmup_steps)
    return functions[schedule](base, index - warmup_steps, total - warmup_steps)
