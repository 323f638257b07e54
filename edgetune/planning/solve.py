"""The exact program solver: HiGHS, with limits added only where a selection breaks them.

The relaxation is solved first, and the limits that its fractional optimum violates are added until
there are none. Then the integral program is solved, and its optimum checked exactly: whatever it
violates is added, until it violates nothing. Every solve on the way is of a program with fewer
limits, so its bound holds for the whole.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from edgetune.planning.highs import MAGNIFIED, Row
from edgetune.planning.integral import Integral, Wanted, solve_integral
from edgetune.planning.program import Limit, Program, Separation, members, total
from edgetune.planning.relaxation import RESOLVED, Fractional, Relaxation
from edgetune.planning.settled import OPEN, Settled, probed

EQUAL = 1e-9  # scores this close, relatively, are equal
_NEGLIGIBLE = 1e-12  # what scores less than this, relatively and all together, scores nothing
_ROUNDING = 1e-6  # what HiGHS may have rounded off a bound, relatively
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
    are not selected, nor those that together score less than 1e-12 of what is found. Deterministic,
    unless the time limit ends the search.
    """
    limit = time_limit_seconds
    search = Search(program, separation, None if limit is None else time.monotonic() + limit)
    search.optimise(gap)
    search.break_ties()
    return search.solution()


class Search:
    """One program's search, which can be left after the relaxation: that is quick.

    Then `bound` holds, and `selected` is a selection within all limits, often a good one.
    deadline: by time.monotonic(), None for no limit.
    """

    def __init__(
        self, program: Program, separation: Separation, deadline: float | None = None
    ) -> None:
        self._program = program
        self._separation = separation
        self._deadline = math.inf if deadline is None else deadline
        self._live = [i for i, score in enumerate(program.scores) if score > 0]
        self._rivals = [0] * len(program.scores)  # of every candidate, those of its groups
        for group in program.exclusive:
            for i in members(group):
                self._rivals[i] |= group
        self._relaxation = Relaxation(program)
        self._relaxed: Fractional | None = None
        self._settled = OPEN  # of all selections that score as much as what was found
        self._known = set(program.limits)
        self._cuts: list[tuple[Row, float]] = []
        self.selected = 0
        self._bound = program.most()
        self._iterations = 0
        self._complete = True  # whether every solve so far came to its end
        if self._live:
            self._relax()
            self.selected = self._rounded(self._relaxed)
            self._leave_out_negligible()

    @property
    def objective(self) -> float:
        """The score of what is selected so far."""
        return self._program.score(self.selected)

    @property
    def bound(self) -> float:
        """No selection within the limits scores more."""
        return max(self._bound, self.objective)

    def start_from(self, selection: int) -> None:
        """Take `selection` if it is within all limits and scores more than what was found."""
        if self._program.score(selection) > self.objective and not self._violates(selection):
            self.selected = selection

    def optimise(self, gap: float, known: float = 0.0) -> None:
        """Search until (bound - objective) / bound is at most `gap`, or the time is over.

        known: the score of another program's selection. It is as good as one found here, and what
        scores less is not searched for.
        """
        while self._complete and not (self._reached(gap) or self._cannot_beat(known, gap)):
            cuts, least = list(self._cuts), 0.0
            self._settle(known)
            if not self._complete or self._reached(gap) or self._cannot_beat(known, gap):
                break
            start: int | None = self.selected
            if known > self.objective * (1 + EQUAL):
                start = None
                cuts.append(self._relaxation.floor(known, EQUAL))
                least = known * (1 - EQUAL)
            objective = self._relaxation.objective()
            found = self._integral(Wanted(objective, start, cuts, settled=self._settled), gap)
            self._lower_bound_to(found.bound * self._relaxation.unit, least)
            if found.selected is not None and self._keeps_all(found.selected):
                self.selected = max(self.selected, found.selected, key=self._program.score)
                if found.complete:
                    self._bound = self._bound if gap else self.objective
                    break
        if not (self._complete or self.selected):  # that nothing fits must be no matter of time
            self.selected = self._rounded(self._relaxed, 2 * len(self._live))
        if self._reached(0.0):
            self._bound = self.objective

    def _reached(self, gap: float) -> bool:
        return self.bound - self.objective <= max(gap, EQUAL) * self.bound

    def _cannot_beat(self, known: float, gap: float) -> bool:
        """Whether nothing here is better than `known`, by more than the gap, or equal to it."""
        return self.bound <= known / (1 - gap) if gap else self.bound <= known * (1 - EQUAL)

    def _lower_bound_to(self, found: float, least: float = 0.0) -> None:
        """No selection that scores `least` scores more than was found, except by rounding."""
        self._bound = min(self._bound, max(found * (1 + _ROUNDING), least))

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
            self._lower_bound_to(found.objective)
        return found

    def _settle(self, known: float) -> None:
        """Settle what is common to all selections that score as much as what is known."""
        while self._complete:
            found = self._relaxation.solve(self._seconds(), self._settled)
            if found is None:
                self._complete = False
                return
            least = max(self.objective, known)
            self._lower_bound_to(found.objective, least * (1 - EQUAL))
            if found.objective * (1 + _ROUNDING) < least * (1 - EQUAL):
                return
            if self._add(self._separation.violated_fractionally(found.values)):
                continue
            rounded = self._rounded(found)
            self.selected = max(self.selected, rounded, key=self._program.score)
            least = max(self.objective, known)
            settled = self._by_losses(found, least)
            if settled == self._settled:
                settled = probed(settled, found.extents, partial(self._is_good, least))
            if settled == self._settled:
                return
            self._settled = settled

    def _is_good(self, least: float, settled: Settled) -> bool:
        found = self._relaxation.solve(self._seconds(), settled)
        return found is None or found.objective >= least * (1 - _ROUNDING)

    def _by_losses(self, found: Fractional, least: float) -> Settled:
        settled = self._settled
        for i in self._live:
            if found.objective - found.losses[i] < least * (1 - _ROUNDING):
                if found.values[i] > 0.5:
                    settled = settled.with_candidate(i, self._rivals[i])
                else:
                    settled = settled.without(1 << i)
        return settled

    def _integral(self, wanted: Wanted, gap: float) -> Integral:
        self._iterations += 1
        found = solve_integral(self._relaxation, wanted, gap, self._seconds())
        self._complete = found.complete
        return found

    def _add(self, limits: Iterable[Limit]) -> bool:
        """Add the limits that are new; whether any is."""
        new = list(dict.fromkeys(limit for limit in limits if limit not in self._known))
        self._known.update(new)
        for limit in new:
            self._relaxation.add(limit)
        return bool(new)

    def _violated(self, selection: int) -> Iterator[Limit]:
        """Limits that `selection` violates, none only when it keeps all, by exact arithmetic."""
        yield from self._program.violated(self._program.limits, selection)
        yield from self._separation.violated(selection)

    def _violates(self, selection: int) -> bool:
        return next(self._violated(selection), None) is not None

    def _keeps_all(self, selection: int) -> bool:
        """Whether `selection` keeps all limits; if not, no later solve finds it again."""
        if not self._violates(selection):
            return True
        if not self._add(self._violated(selection)):
            self._forbid(selection)
        return False

    def _forbid(self, selection: int) -> None:
        """Cut off a selection that exceeds a known limit by less than HiGHS sees.

        Costs grow with the selection, so no selection contains it; nor a part of it that exceeds
        the limit too.
        """
        for i in sorted(members(selection), key=self._program.scores.__getitem__)[:_CHECKS]:
            if self._violates(selection & ~(1 << i)):
                selection &= ~(1 << i)
        chosen = members(selection)
        self._cuts.append((dict.fromkeys(chosen, 1.0), len(chosen) - 1.0))

    def _rounded(self, found: Fractional | None, checks: int = _CHECKS) -> int:
        """A selection near the relaxation's optimum, in runs of candidates that fit together."""
        values = found.values if found else [0.0] * len(self._program.scores)
        order = sorted(self._live, key=lambda i: (-values[i], -self._program.scores[i]))
        chosen, position = 0, 0
        run = max(1, sum(values[i] > 1 - _ROUNDING for i in order))
        for _ in range(checks):
            more = chosen
            for i in order[position : position + run]:
                if not more & self._rivals[i]:
                    more |= 1 << i
            if more == chosen or not self._violates(more):
                position += run
                run = 2 * run if chosen else 1
                chosen = more
            elif run > 1:
                run //= 2
            else:
                position += 1
        return chosen

    def _leave_out_negligible(self) -> None:
        """Select none of what makes no difference; HiGHS could not tell, and it costs."""
        together, without = 0.0, 0
        for i in sorted(self._live, key=self._program.scores.__getitem__):
            together += self._program.scores[i]
            if together > _NEGLIGIBLE * self.objective:
                break
            without |= 1 << i
        self._live = [i for i in self._live if not without >> i & 1]
        self.selected &= ~without
        self._relaxation.leave_out(without)

    def break_ties(self) -> None:
        """Once the best score is proven, find a selection that has it and costs least.

        What HiGHS takes for a tie by a rounding error is met by a floor nearer to the best score.
        """
        program, best = self._program, self.objective
        cost = total(program.tie_break, self.selected)
        if not (self._complete and cost and self._reached(0.0)):
            return
        self._settle(best)
        row = self._relaxation.expression(program.tie_break, cost)
        if not self._may_cost_less(row):
            return
        least_cost = {column: -amount for column, amount in row.items()}
        tolerance = EQUAL
        while self._complete and tolerance > RESOLVED:
            cuts = [*self._cuts, self._relaxation.floor(best, tolerance)]
            wanted = Wanted(least_cost, self.selected, cuts, settled=self._settled)
            selection = self._integral(wanted, 0.0).selected
            if selection is None:
                return
            if program.score(selection) < best * (1 - EQUAL):
                tolerance /= 2
            elif self._keeps_all(selection):
                self.selected = min(
                    self.selected, selection, key=lambda s: total(program.tie_break, s)
                )
                return

    def _may_cost_less(self, cost: Row) -> bool:
        """Whether another selection may score as much as the best, and cost less.

        cost: in units of what the best costs. Mostly none does, and the relaxation of the score,
        which is tight, proves it sooner than that of the cost would.
        """
        ceiling = {column: MAGNIFIED * amount for column, amount in cost.items()}
        wanted = Wanted(
            self._relaxation.objective(),
            self.selected,
            [*self._cuts, (ceiling, MAGNIFIED)],
            2 * EQUAL * self.objective / self._relaxation.unit,
            self._settled,
        )
        return self._integral(wanted, 0.0).selected != self.selected

    def solution(self) -> Solution:
        """What was found so far."""
        if not self._live:
            return Solution(0, 0.0, 0.0, 0.0, (), {}, 0, False)
        out_of_time = not self._complete
        self._fractional()
        return Solution(
            self.selected,
            self.objective,
            self.bound,
            0.0 if self._reached(0.0) else (self.bound - self.objective) / self.bound,
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
            replaced = self.selected & self._rivals[i] | self.selected & 1 << i
            if self._program.scores[i] > self._program.score(replaced) and len(forbidden) < _CHECKS:
                forbidden.append(self._violated_names(self.selected ^ replaced | 1 << i))
        binding = {name for name, price in prices.items() if price > 0}
        binding.update(*(names for names in forbidden if len(names) == 1))
        return tuple(sorted(binding or set().union(*forbidden)))

    def _violated_names(self, selection: int) -> set[str]:
        """Names of limits that `selection` violates; of the separated ones, of the first."""
        violated = self._program.violated(self._program.limits, selection)
        separated = itertools.islice(self._separation.violated(selection), 1)
        return {limit.name for limit in (*violated, *separated)}
