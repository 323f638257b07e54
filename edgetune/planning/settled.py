"""What every selection has in common that is good enough: by reduced costs and by probing.

A relaxation that must do without, or with, some candidates bounds every selection that does; when
that is less than what is known already, no such selection is wanted. Most of a program is settled
so before any branching, and what is left of it is small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Settled:
    """included, excluded: candidates. reached: sets of each of which some candidate is selected."""

    included: int = 0
    excluded: int = 0
    reached: tuple[int, ...] = ()

    def extent(self, any_of: int) -> int | None:
        """1 when some candidate of `any_of` is selected, 0 when none is, None when it is open."""
        if not any_of & ~self.excluded:
            return 0
        if any_of & self.included or any(not inside & ~any_of for inside in self.reached):
            return 1
        return None

    def with_candidate(self, i: int, rivals: int) -> Settled:
        """Candidate i is selected, and so are none of its rivals."""
        excluded = self.excluded | rivals & ~(1 << i)
        return replace(self, included=self.included | 1 << i, excluded=excluded)

    def without(self, candidates: int) -> Settled:
        return replace(self, excluded=self.excluded | candidates)

    def reaching(self, any_of: int) -> Settled:
        if self.extent(any_of) == 1:
            return self
        larger = (inside for inside in self.reached if any_of & ~inside)
        return replace(self, reached=(*larger, any_of))


OPEN = Settled()


def by_losses(
    settled: Settled, lost: Iterable[int], values: Sequence[float], rivals: Sequence[int]
) -> Settled:
    """`settled`, and that the candidates `lost` are selected as in `values`.

    values: of a relaxation's optimum, to which no good selection comes close that differs in them.
    rivals: of every candidate, those of its groups.
    """
    for i in lost:
        if values[i] > 0.5:
            settled = settled.with_candidate(i, rivals[i])
        else:
            settled = settled.without(1 << i)
    return settled


def chain(sets: Iterable[int]) -> list[int]:
    """Sets each of which lies within the next, from the largest down; side branches are left."""
    found: list[int] = []
    for any_of in sorted(sets, key=lambda any_of: (-any_of.bit_count(), any_of)):
        if not found or not any_of & ~found[-1]:
            found.append(any_of)
    return found[::-1]


def probed(
    settled: Settled, extents: Mapping[int, float], is_good: Callable[[Settled], bool]
) -> Settled:
    """`settled`, and how far down a chain of half-reached sets every good selection reaches.

    extents: to which extent a fractional selection reaches each set. is_good: whether a selection
    of which that much is settled may be good. It takes few probes: what none that reaches a set can
    be, none that reaches a smaller one within can be either; nor one that does not reach a larger.
    """
    half = [any_of for any_of, extent in extents.items() if _HALF < extent < 1 - _HALF]
    sets = chain(any_of for any_of in half if settled.extent(any_of) is None)
    start = settled
    beyond = _first(sets, lambda any_of: is_good(start.reaching(any_of)))
    if beyond:
        settled = settled.without(sets[beyond - 1])
    if beyond == len(sets):
        return settled
    needed = _first(sets[beyond:], lambda any_of: not is_good(start.without(any_of)))
    if beyond + needed < len(sets):
        settled = settled.reaching(sets[beyond + needed])
    return settled


_HALF = 1e-6  # what is reached by less, or lacks less, is not worth a probe


def _first(sets: Sequence[int], holds: Callable[[int], bool]) -> int:
    """The position of the first set that `holds`, as do all after it; their number when none."""
    low, high = 0, len(sets)
    while low < high:
        middle = (low + high) // 2
        if holds(sets[middle]):
            high = middle
        else:
            low = middle + 1
    return low
