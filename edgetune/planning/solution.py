"""What the exact program solver found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Solution:
    """The best selection found, and how good it is known to be.

    objective: its score. bound: no selection within the limits scores more. gap: (bound -
    objective) / bound, 0 when it is the best. binding: names of the limits that forbid what would
    be better by one exchange. prices: by name of limit, what the relaxation's optimum gains per
    unit of the bounds of that name. iterations: integral programs solved. out_of_time: whether the
    time limit ended the search; then the gap may be larger than asked for, and ties not broken.
    """

    selected: int
    objective: float
    bound: float
    gap: float
    binding: tuple[str, ...]
    prices: Mapping[str, float]
    iterations: int
    out_of_time: bool
