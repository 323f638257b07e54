"""Ratios between sides, round by round, and the goals that they are held against."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from step_processes import Measured
from step_workloads import FULL, ORT_TRAINING, TORCH

# (selection, side) -> what was measured, of one workload
Results = Mapping[tuple[str, str], Measured]
Quantity = Literal["time", "over base", "process"]
# PyTorch's best, training everything or the same selection; onnxruntime-training, the same.
Against = Literal["torch full", "torch same", "onnxruntime-training"]
AGAINST: tuple[Against, ...] = ("torch full", "torch same", "onnxruntime-training")


@dataclass(frozen=True)
class Ratio:
    """How many times less the side takes. spread: interquartile range over rounds; 0 of memory.

    other: the side that it is against.
    """

    times: float
    spread: float
    other: str


@dataclass(frozen=True)
class Goal:
    """What issue 4 asks for: the side takes at least `at_least` times less."""

    workload: str
    selection: str
    side: str
    against: Against
    at_least: float
    quantity: Quantity = "time"


def spread(values: Sequence[float]) -> float:
    """From quartile to quartile; 0 of a single value."""
    if len(values) < 2:
        return 0.0
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return third - first


def amount(measured: Measured, quantity: Quantity) -> float:
    """Seconds of a step, or bytes."""
    if quantity == "time":
        return measured.median_seconds
    return measured.over_base_bytes if quantity == "over base" else measured.peak_bytes


def opponent(results: Results, selection: str, against: Against, quantity: Quantity) -> str | None:
    """The side to compare with: PyTorch's is the best of them in this quantity; None without."""
    names = [ORT_TRAINING.name] if against == "onnxruntime-training" else [s.name for s in TORCH]
    chosen = FULL.name if against == "torch full" else selection
    there = [name for name in names if (chosen, name) in results]
    return min(there, key=lambda n: amount(results[chosen, n], quantity), default=None)


def ratio(
    results: Results, selection: str, side: str, against: Against, quantity: Quantity = "time"
) -> Ratio | None:
    """The side against its opponent; None where one of them was not measured."""
    other = opponent(results, selection, against, quantity)
    if other is None or (selection, side) not in results:
        return None
    chosen = FULL.name if against == "torch full" else selection
    mine, theirs = results[selection, side], results[chosen, other]
    if quantity != "time":
        # A process that stays within its base took nothing that could be seen.
        return Ratio(amount(theirs, quantity) / max(amount(mine, quantity), 1), 0.0, other)
    rounds = [b / a for a, b in zip(mine.round_seconds, theirs.round_seconds, strict=True)]
    return Ratio(statistics.median(rounds), spread(rounds), other)


def _by_precision(
    workload: str, selection: str, against: Against, fp32: float, int8: float, cached: float
) -> tuple[Goal, ...]:
    sides = {"edgetune-fp32": fp32, "edgetune-int8": int8, "edgetune-cached": cached}
    return tuple(Goal(workload, selection, s, against, least) for s, least in sides.items())


_DENSE = ("mobilenet_v2", "resnet18", "bert6")
GOALS = (
    *_by_precision("mobilenet_v2", "last two", "torch full", 4.5, 6.5, 10),
    *_by_precision("mobilenet_v2", "last two", "torch same", 1.5, 2.2, 3.3),
    *_by_precision("mobilenet_v2", "last two", "onnxruntime-training", 1.8, 2.6, 4),
    *_by_precision("mobilenet_v2", "head", "torch same", 2.2, 4, 100),
    *_by_precision("bert6", "last two", "torch full", 1.7, 2.2, 2.8),
    *_by_precision("bert6", "last two", "torch same", 1, 1.3, 1.6),
    *(Goal(w, "full", "edgetune-fp32", "torch full", 1) for w in _DENSE),
    *(Goal(w, "full", "edgetune-fp32", "torch full", 1, "over base") for w in _DENSE),
    Goal("mobilenet_v2", "last two", "edgetune-fp32", "torch full", 12, "over base"),
    Goal("mobilenet_v2", "last two", "edgetune-fp32-micro1", "torch full", 12, "over base"),
    Goal("mobilenet_v2", "last two", "edgetune-int8-micro1", "torch full", 20, "over base"),
    Goal("mobilenet_v2", "last two", "edgetune-fp32", "torch full", 9, "process"),
    Goal("mobilenet_v2", "last two", "edgetune-int8-micro1", "torch full", 9, "process"),
)


def goal_of(workload: str, selection: str, side: str, against: Against) -> float | None:
    """The goal for the time of a step, if there is one."""
    wanted = (workload, selection, side, against, "time")
    for goal in GOALS:
        if (goal.workload, goal.selection, goal.side, goal.against, goal.quantity) == wanted:
            return goal.at_least
    return None
