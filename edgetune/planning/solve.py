"""The exact program solver: HiGHS, with limits added only where a selection breaks them.

The relaxation is solved first, and the limits that its fractional optimum violates are added until
there are none. Then the integral program is solved, and its optimum checked exactly: whatever it
violates is added, until it violates nothing. Every solve on the way is of a program with fewer
limits, so its bound holds for the whole.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgetune.planning.highs import Row
from edgetune.planning.program import Limit, Program, Separation, members, total
from edgetune.planning.relaxation import SLACK, Fractional, Integral, Relaxation, Wanted

_EQUAL = 1e-9  # scores this close, relatively, are equal
_ROUNDING = 1e-6  # what HiGHS may have rounded off a bound, relatively
_RESOLVED = 1e-11
_MAG = 1e3
_CHECKS = 24  # exact checks spent on a start, on a cut, and on what holds the optimum back


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


def solve(
    program: Program,
    separation: Separation,
    gap: float = 0.0,
    time_limit_seconds: float | None = None,
) -> Solution:
    """Maximise the score within all limits, those of `separation` too; ties go to the least cost.

    gap: the search ends when (bound - objective) / bound is at most this. Scores within 1e-9 of
    each other are ties; they are broken once the optimum is proven. Candidates that score nothing
    are not selected. Deterministic, unless the time limit ends the search.
    """
    return _Search(program, separation, gap, time_limit_seconds).run()


class _Search:
    def __init__(
        self, program: Program, separation: Separation, gap: float, seconds: float | None
    ) -> None:
        self._program = program
        self._separation = separation
        self._gap = gap
        self._deadline = math.inf if seconds is None else time.monotonic() + seconds
        self._live = [i for i, score in enumerate(program.scores) if score > 0]
        self._rivals = [0] * len(program.scores)  # of every candidate, those of its groups
        for group in program.exclusive:
            for i in members(group):
                self._rivals[i] |= group
        self._relaxation = Relaxation(program)
        self._relaxed: Fractional | None = None
        self._known = set(program.limits)
        self._cuts: list[tuple[Row, float]] = []
        self._best = 0
        self._bound = _unlimited(program)
        self._iterations = 0
        self._complete = True  # whether every solve so far came to its end

    def run(self) -> Solution:
        if not self._live:
            return Solution(0, 0.0, 0.0, 0.0, (), {}, 0, False)
        self._relax()
        self._best = self._rounded()
        self._leave_out_negligible()
        while self._complete and not self._reached(self._gap):
            found = self._integral(Wanted(self._best, self._cuts), self._gap)
            self._bound = min(self._bound, found.bound * (1 + _ROUNDING))
            if found.selected is not None and self._keeps_all(found.selected):
                self._best = max(self._best, found.selected, key=self._program.score)
                if found.complete:
                    break
        proven = self._complete and not self._gap
        if proven or self._reached(0.0):
            self._bound = self._objective
            self._break_ties()
        return self._solution()

    @property
    def _objective(self) -> float:
        return self._program.score(self._best)

    def _reached(self, gap: float) -> bool:
        return self._bound - self._objective <= max(gap, _EQUAL) * self._bound

    def _seconds(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    def _relax(self) -> None:
        """Add every limit that the relaxation's optimum violates."""
        while self._complete:
            found = self._fractional()
            if found is None or not self._add(self._separation.violated_fractionally(found.values)):
                return

    def _fractional(self) -> Fractional | None:
        """The relaxation's optimum within the limits known so far."""
        found = self._relaxation.solve(self._seconds())
        if found is None:
            self._complete = False
        else:
            self._relaxed = found
            self._bound = min(self._bound, found.objective * (1 + _ROUNDING))
        return found

    def _integral(self, wanted: Wanted, gap: float) -> Integral:
        self._iterations += 1
        found = self._relaxation.solve_integral(wanted, gap, self._seconds())
        self._complete = found.complete
        return found

    def _add(self, limits: Sequence[Limit]) -> bool:
        """Add the limits that are new; whether any is."""
        new = [limit for limit in limits if limit not in self._known]
        for limit in new:
            self._known.add(limit)
            self._relaxation.add(limit)
        return bool(new)

    def _violated(self, selection: int) -> list[Limit]:
        """Limits that `selection` violates, none only when it keeps all, by exact arithmetic."""
        broken = self._program.violated(self._program.limits, selection)
        return [*broken, *self._separation.violated(selection)]

    def _keeps_all(self, selection: int) -> bool:
        """Whether `selection` keeps all limits; if not, no later solve finds it again."""
        violated = self._violated(selection)
        if violated and not self._add(violated):
            self._forbid(selection)
        return not violated

    def _forbid(self, selection: int) -> None:
        """Cut off a selection that exceeds a known limit by less than HiGHS sees.

        Costs grow with the selection, so no selection contains it; nor a part of it that exceeds
        the limit too.
        """
        for i in sorted(members(selection), key=self._program.scores.__getitem__)[:_CHECKS]:
            if self._violated(selection & ~(1 << i)):
                selection &= ~(1 << i)
        chosen = members(selection)
        self._cuts.append((dict.fromkeys(chosen, 1.0), len(chosen) - 1.0))

    def _rounded(self) -> int:
        """A selection near the relaxation's optimum, in runs of candidates that fit together."""
        values = self._relaxed.values if self._relaxed else [0.0] * len(self._program.scores)
        order = sorted(self._live, key=lambda i: (-values[i], -self._program.scores[i]))
        chosen, position = 0, 0
        run = max(1, sum(values[i] > 1 - _ROUNDING for i in order))
        for _ in range(_CHECKS):
            more = chosen
            for i in order[position : position + run]:
                if not more & self._rivals[i]:
                    more |= 1 << i
            if more == chosen or not self._violated(more):
                position += run
                run = 2 * run if chosen else 1
                chosen = more
            elif run > 1:
                run //= 2
            else:
                position += 1
        return chosen

    def _leave_out_negligible(self) -> None:
        least = self._objective * 1e-12
        together, dropped = 0.0, 0
        for i in sorted(self._live, key=self._program.scores.__getitem__):
            together += self._program.scores[i]
            if together > least:
                break
            dropped |= 1 << i
        self._live = [i for i in self._live if not dropped >> i & 1]
        self._best &= ~dropped
        self._relaxation.leave_out(dropped)

    def _break_ties(self) -> None:
        """Of all selections with the best score, find one of the least tie-break cost."""
        program, best = self._program, self._objective
        cost = total(program.tie_break, self._best)
        if not cost or not self._complete:
            return
        row = self._relaxation.expression(program.tie_break, cost)
        included, excluded = self._settled(best)
        tolerance = _EQUAL
        while self._complete and tolerance > _RESOLVED:
            scored = {i: -_MAG * program.scores[i] / best for i in self._live}
            floor = (scored, -_MAG * (1 - tolerance))
            wanted = Wanted(self._best, [*self._cuts, floor], row, included, excluded)
            selection = self._integral(wanted, 0.0).selected
            if selection is None:
                return
            if program.score(selection) < best * (1 - _EQUAL):  # it only seemed to score enough
                tolerance /= 2
            elif self._keeps_all(selection):
                self._best = min(self._best, selection, key=lambda s: total(program.tie_break, s))
                return

    def _settled(self, least: float) -> tuple[int, int]:
        """(included, excluded): what every selection that scores at least `least` agrees on."""
        included, excluded = 0, 0
        found = self._fractional()
        if found is not None:
            for i in self._live:
                if found.objective - found.losses[i] < least * (1 - _ROUNDING):
                    included |= (found.values[i] > 0.5) << i
                    excluded |= (found.values[i] <= 0.5) << i
        return included, excluded

    def _solution(self) -> Solution:
        objective = self._objective
        out_of_time = not self._complete
        self._fractional()
        bound = max(self._bound, objective)
        return Solution(
            self._best,
            objective,
            bound,
            0.0 if self._reached(0.0) else (bound - objective) / bound,
            self._binding(),
            self._relaxed.prices if self._relaxed else {},
            self._iterations,
            out_of_time,
        )

    def _binding(self) -> tuple[str, ...]:
        """The limits with a price, and those that alone forbid an exchange that scores more.

        An exchange is one candidate more, or in place of its rivals; those are tried at which the
        relaxation's optimum loses least.
        """
        losses = self._relaxed.losses if self._relaxed else [0.0] * len(self._program.scores)
        prices = self._relaxed.prices if self._relaxed else {}
        forbidden: list[set[str]] = []
        for i in sorted(self._live, key=losses.__getitem__):
            replaced = self._best & self._rivals[i] | self._best & 1 << i
            if self._program.scores[i] > self._program.score(replaced) and len(forbidden) < _CHECKS:
                violated = self._violated(self._best ^ replaced | 1 << i)
                forbidden.append({limit.name for limit in violated})
        binding = {name for name, price in prices.items() if price > 0}
        binding.update(*(names for names in forbidden if len(names) == 1))
        return tuple(sorted(binding or set().union(*forbidden)))


def _unlimited(program: Program) -> float:
    """The score of the best candidate of every group and all that are in none."""
    grouped = 0
    for group in program.exclusive:
        grouped |= group
    best = [max((program.scores[i] for i in members(g)), default=0.0) for g in program.exclusive]
    others = [score for i, score in enumerate(program.scores) if not grouped >> i & 1]
    return math.fsum((*best, *others))
