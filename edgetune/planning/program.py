"""The exact program of planning, without graphs: a knapsack whose costs are coverage functions.

Choose among scored candidates within limits. What a candidate needs may be needed by others too and
is then paid once, so every cost is a sum of terms that count when any of some candidates is
selected. Such costs grow with the selection, and `cost(A or B) <= cost(A) + cost(B)`. A selection
is a bitmask: bit i stands for candidate i.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Term:
    """`amount` >= 0, which counts when any candidate of the bitmask `any_of` is selected.

    `any_of` is never 0: what every selection costs is taken off the limit's bound.
    """

    amount: float
    any_of: int


# The largest of several sums.
Maximum = tuple[tuple[Term, ...], ...]


@dataclass(frozen=True)
class Limit:
    """The sum of `terms` and of the program's maxima numbered `maxima` is at most `bound` >= 0.

    name: what is limited. Many limits may have one name: the memory at each moment of a step.
    Raises ValueError for a bound or a term that is none.
    """

    name: str
    bound: float
    terms: tuple[Term, ...]
    maxima: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.bound < math.inf:
            raise ValueError(f"the bound of {self.name} is {self.bound}: not even nothing keeps it")
        if not all(0 <= term.amount < math.inf and term.any_of > 0 for term in self.terms):
            raise ValueError(f"a term of {self.name} is negative, not finite, or of no candidate")

    def __hash__(self) -> int:
        """Not of every term: there are hundreds, and of few limits all this is equal."""
        return hash((self.name, self.bound, len(self.terms), self.maxima))


@dataclass(frozen=True)
class Program:
    """Maximise the summed scores of a selection within all limits.

    scores: >= 0, one per candidate. exclusive: bitmasks of which at most one candidate is selected.
    tie_break: of selections with equal scores, the one that costs least is wanted.
    """

    scores: tuple[float, ...]
    exclusive: tuple[int, ...]
    maxima: tuple[Maximum, ...]
    limits: tuple[Limit, ...]
    tie_break: tuple[Term, ...] = ()

    def score(self, selection: int) -> float:
        return math.fsum(self.scores[i] for i in members(selection))

    def rivals(self) -> list[int]:
        """Of every candidate those of its groups, itself among them."""
        found = [0] * len(self.scores)
        for group in self.exclusive:
            for i in members(group):
                found[i] |= group
        return found

    def most(self) -> float:
        """The score of the best candidate of every group and all that are in none: a bound."""
        grouped = 0
        for group in self.exclusive:
            grouped |= group
        best = [max((self.scores[i] for i in members(g)), default=0.0) for g in self.exclusive]
        others = [score for i, score in enumerate(self.scores) if not grouped >> i & 1]
        return math.fsum((*best, *others))

    def value(self, limit: Limit, selection: int) -> float:
        """What `limit` bounds: exactly rounded, whatever the order of its terms."""
        maxima = [
            max((total(terms, selection) for terms in self.maxima[k]), default=0.0)
            for k in limit.maxima
        ]
        return math.fsum((total(limit.terms, selection), *maxima))

    def violated(self, limits: Iterable[Limit], selection: int) -> list[Limit]:
        """Those of `limits` that `selection` does not keep."""
        return [limit for limit in limits if self.value(limit, selection) > limit.bound]


class Separation(Protocol):
    """Finds limits that are too many to write down: the memory at thousands of moments.

    Both give them one by one, at least one that is violated first, and others that are likely to be
    violated next; none only when none is violated.
    """

    def violated(self, selection: int) -> Iterable[Limit]:
        """Limits that `selection` violates."""

    def violated_fractionally(self, values: Sequence[float]) -> Iterable[Limit]:
        """Limits that a fractional selection violates.

        values: 0 to 1, one per candidate. A term counts to the extent of the largest value in its
        `any_of`.
        """


def members(selection: int) -> list[int]:
    """The candidates of a bitmask, ascending."""
    first = max((selection & -selection).bit_length() - 1, 0)
    return [first + i for i, bit in enumerate(f"{selection >> first:b}"[::-1]) if bit == "1"]


def total(terms: Iterable[Term], selection: int) -> float:
    """What `selection` costs, exactly rounded."""
    return math.fsum(term.amount for term in terms if term.any_of & selection)
