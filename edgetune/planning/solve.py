"""The exact program solver: HiGHS, with limits added only where a selection breaks them.

The relaxation is solved first, and the limits that its fractional optimum violates are added until
there are none. Then the integral program is solved, and its optimum checked exactly: whatever it
violates is added, until it violates nothing. Every solve on the way is of a program with fewer
limits, so its bound holds for the whole.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from functools import partial

from edgetune.planning.binding import binding
from edgetune.planning.highs import MAGNIFIED, Row
from edgetune.planning.integral import Integral, Wanted, solve_integral
from edgetune.planning.program import Limit, Program, Separation, members, total
from edgetune.planning.relaxation import RESOLVED, Fractional, Relaxation
from edgetune.planning.rounding import rounded
from edgetune.planning.settled import OPEN, Settled, by_losses, probed
from edgetune.planning.solution import Solution

EQUAL = 1e-9  # scores this close, relatively, are equal
_NEGLIGIBLE = 1e-12  # what scores less than this, relatively and all together, scores nothing
_ROUNDING = 1e-6  # what HiGHS may have rounded off a bound, relatively
_CHECKS = 24  # exact checks spent on a start, and on a cut


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
        self._rivals = program.rivals()
        self._relaxation = Relaxation(program)
        self._relaxed: Fractional | None = None
        self._settled = OPEN  # of all selections that score as much as what is known
        self._sought = 0.0  # the most that was known of other programs
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
        known = self._sought = max(known, self._sought)
        while not self._is_over(known, gap):
            self._settle(known)
            if self._is_over(known, gap):
                break
            cuts, least = list(self._cuts), 0.0
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

    def _is_over(self, known: float, gap: float) -> bool:
        return not self._complete or self._reached(gap) or self._cannot_beat(known, gap)

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
            self.selected = max(self.selected, self._rounded(found), key=self._program.score)
            least = max(self.objective, known)
            losing = found.objective - least * (1 - _ROUNDING)
            lost = [i for i in self._live if found.losses[i] > losing]
            settled = by_losses(self._settled, lost, found.values, self._rivals)
            if settled == self._settled:
                settled = probed(settled, found.extents, partial(self._is_good, least))
            if settled == self._settled:
                return
            self._settled = settled

    def _is_good(self, least: float, settled: Settled) -> bool:
        found = self._relaxation.solve(self._seconds(), settled)
        return found is None or found.objective >= least * (1 - _ROUNDING)

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
        """A selection near a fractional one."""
        values = found.values if found else [0.0] * len(self._program.scores)
        order = sorted(self._live, key=lambda i: (-values[i], -self._program.scores[i]))
        whole = sum(values[i] > 1 - _ROUNDING for i in order)
        return rounded(order, max(1, whole), self._rivals, self._violates, checks)

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
            binding(self._program, self._separation, self.selected, self._live, self._relaxed),
            self._relaxed.prices if self._relaxed else {},
            self._iterations,
            out_of_time,
        )
