"""The program as rows and columns for HiGHS: a linear relaxation that grows, and its integer form.

Columns, all from 0 to 1: x of every candidate; y of every set of candidates that a term names, the
extent to which any of them is selected; m of every maximum. Rows, with all right-hand sides scaled
to 1: the limits; sums <= m; exclusive groups; and links, which say y(D) >= the sum of x over D and
any exclusive group. (The sum, not each x alone, is what makes the relaxation tight. Where D lies
within a group it is exact, and needs no y.) Sets are mostly nested, so y(D) is linked to the y of
large sets inside D and to the few candidates these leave over.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import highspy
import numpy as np

from edgetune.planning.highs import Row, add_columns, add_rows, quiet_highs, run
from edgetune.planning.program import Limit, Program, Term, members, total

# Rows are scaled to 1. What HiGHS may exceed them by, and by how much more is allowed: without that
# it loses selections that keep a limit exactly. What exceeds a limit within this is cut off later.
_FEASIBILITY = 1e-8
SLACK = 1e-7
_MAGNIFIED = 1e3  # of the objective: what is better by less than HiGHS's tolerance is missed
RESOLVED = _FEASIBILITY / _MAGNIFIED  # how closely a floor is kept
_LARGEST = 1e3  # of a row's coefficients: more than the whole bound is as good as this
_LINKED_DIRECTLY = 8  # candidates that are linked themselves rather than through smaller sets


@dataclass(frozen=True)
class Fractional:
    """The optimum of the relaxation.

    values, losses: of every candidate, how far it is selected, and what the objective loses at
    least if a value of 0 or 1 becomes the other. prices: by name of limit, what the objective gains
    per unit of the bounds of that name, all raised at once.
    """

    objective: float
    values: list[float]
    losses: list[float]
    prices: dict[str, float]


@dataclass(frozen=True)
class Wanted:
    """Of which integral selection the score is largest, or the `cost` least.

    cuts: more rows <= their right-hand side. start: a selection known to do.
    """

    start: int
    cuts: Sequence[tuple[Row, float]] = ()
    cost: Row | None = None
    included: int = 0
    excluded: int = 0


@dataclass(frozen=True)
class Integral:
    """What a mixed-integer solve found.

    selected: None when it found nothing. bound: no selection's objective is better, except by
    rounding. complete: whether it ended by itself, within the gap asked for.
    """

    selected: int | None
    bound: float
    complete: bool


class Relaxation:
    """Grows with `add`; `solve` starts from the solution before."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._count = len(program.scores)
        self._unit = max(program.scores, default=0.0) or 1.0
        self._score = [score / self._unit for score in program.scores]
        self._upper = [1.0 if score > 0 else 0.0 for score in program.scores]
        self._rows: list[Row] = []
        self._right: list[float] = []
        self._limits: list[tuple[Limit, int, float]] = []  # with their rows and scales
        self._columns: dict[int, list[int]] = {}  # whose sum is the extent of a set
        self._sets: list[tuple[int, int, int]] = []  # size, set, column; by size
        self._maxima: dict[int, tuple[int, float]] = {}  # column, unit
        self._groups: list[list[int]] = [[] for _ in program.scores]
        self._solver = quiet_highs()
        self._sent = (0, 0)
        for group in program.exclusive:
            self._row(dict.fromkeys(members(group), 1.0))
            for i in members(group):
                self._groups[i].append(group)
        for limit in program.limits:
            self.add(limit)

    def add(self, limit: Limit) -> None:
        scale = limit.bound or 1.0
        right = limit.bound / scale + SLACK
        row = {}
        for column, amount in self.expression(limit.terms, scale).items():
            if amount > right + SLACK:
                self._upper[column] = 0.0  # it alone is too much
            else:
                row[column] = amount
        for k in limit.maxima:
            column, unit = self._maximum(k, scale)
            row[column] = min(row.get(column, 0.0) + unit / scale, _LARGEST)
        self._limits.append((limit, len(self._rows), scale))
        self._row(row, right)

    def leave_out(self, candidates: int) -> None:
        """Let no selection contain any of these candidates."""
        for i in members(candidates):
            self._upper[i] = 0.0

    def expression(self, terms: Iterable[Term], scale: float) -> dict[int, float]:
        """The sum of `terms` in units of `scale`."""
        amounts: dict[int, float] = {}
        for term in terms:
            if term.amount:
                amounts[term.any_of] = amounts.get(term.any_of, 0.0) + term.amount
        row: dict[int, float] = {}
        for any_of in sorted(amounts, key=lambda any_of: (any_of.bit_count(), any_of)):
            for column in self._extent(any_of):
                row[column] = row.get(column, 0.0) + amounts[any_of] / scale
        return row

    def floor(self, score: float, tolerance: float) -> tuple[Row, float]:
        """The cut of selections that score less than `score`, to a relative `tolerance`."""
        unit = score / self._unit / _MAGNIFIED
        row = {i: -own / unit for i, own in enumerate(self._score[: self._count]) if own}
        return row, _MAGNIFIED * (tolerance - 1)

    def _row(self, row: Row, right: float = 1.0) -> None:
        self._rows.append(row)
        self._right.append(right)

    def _column(self) -> int:
        self._score.append(0.0)
        self._upper.append(1.0)
        return len(self._score) - 1

    def _maximum(self, k: int, scale: float) -> tuple[int, float]:
        """The column of a maximum and its unit: the `scale` of the first limit that counts it."""
        if k not in self._maxima:
            column = self._column()
            self._upper[column] = highspy.kHighsInf
            for terms in self._program.maxima[k]:
                row = self.expression(terms, scale)
                row = {other: min(amount, _LARGEST) for other, amount in row.items()}
                self._row({**row, column: -1.0}, 0.0)
            self._maxima[k] = (column, scale)
        return self._maxima[k]

    def _extent(self, any_of: int) -> list[int]:
        if any_of not in self._columns:
            first = (any_of & -any_of).bit_length() - 1
            if any_of == 1 << first or any(any_of & ~group == 0 for group in self._groups[first]):
                self._columns[any_of] = members(any_of)
            else:
                self._columns[any_of] = [self._linked(any_of)]
        return self._columns[any_of]

    def _linked(self, any_of: int) -> int:
        """A new column that is at least the extent of `any_of`."""
        extent = self._column()
        rest = any_of
        size = any_of.bit_count()
        for position in range(bisect.bisect_left(self._sets, (size,)) - 1, -1, -1):
            if rest.bit_count() <= _LINKED_DIRECTLY:
                break
            _, inside, column = self._sets[position]
            if inside & rest and not inside & ~any_of:
                self._row({column: 1.0, extent: -1.0}, 0.0)
                rest &= ~inside
        while rest:
            first = (rest & -rest).bit_length() - 1
            for group in self._groups[first] or [1 << first]:
                self._row({**dict.fromkeys(members(group & any_of), 1.0), extent: -1.0}, 0.0)
                rest &= ~group
        bisect.insort(self._sets, (size, any_of, extent))
        return extent

    def solve(self, seconds: float) -> Fractional | None:
        """The relaxation's optimum; None when `seconds` do not suffice."""
        columns, rows = self._sent
        count = len(self._score)
        new = count - columns
        add_columns(self._solver, -np.array(self._score[columns:]), np.zeros(new), np.zeros(new))
        every = np.arange(count, dtype=np.int32)
        self._solver.changeColsBounds(count, every, np.zeros(count), np.array(self._upper))
        add_rows(self._solver, self._rows[rows:], self._right[rows:])
        self._sent = count, len(self._rows)
        if run(self._solver, seconds) == highspy.HighsModelStatus.kTimeLimit:
            return None
        solution = self._solver.getSolution()
        duals = list(solution.row_dual)
        prices: dict[str, float] = {}
        for limit, row, scale in self._limits:
            price = -duals[row] * self._unit / scale if -duals[row] > _FEASIBILITY else 0.0
            prices[limit.name] = prices.get(limit.name, 0.0) + price
        return Fractional(
            -self._solver.getInfo().objective_function_value * self._unit,
            [min(1.0, max(0.0, value)) for value in list(solution.col_value)[: self._count]],
            [abs(cost) * self._unit for cost in list(solution.col_dual)[: self._count]],
            prices,
        )

    def solve_integral(self, wanted: Wanted, gap: float, seconds: float) -> Integral:
        """The best selection that keeps all rows: the score, within `gap`, or the cost is best."""
        solver = quiet_highs()
        columns = len(self._score)
        objective = -np.array(self._score)
        if wanted.cost is not None:
            objective = np.zeros(columns)
            objective[list(wanted.cost)] = list(wanted.cost.values())
        upper = np.array(self._upper)
        upper[members(wanted.excluded)] = 0.0
        lower = np.zeros(columns)
        lower[members(wanted.included)] = 1.0
        add_columns(solver, _MAGNIFIED * objective, lower, upper)
        rows = [*self._rows, *(row for row, _ in wanted.cuts)]
        add_rows(solver, rows, [*self._right, *(right for _, right in wanted.cuts)])
        # All of them: branching on a whole set is what settles a long chain.
        binary = np.full(columns, highspy.HighsVarType.kInteger.value, np.uint8)
        if self._maxima:
            binary[[column for column, _ in self._maxima.values()]] = 0
        solver.changeColsIntegrality(columns, np.arange(columns, dtype=np.int32), binary)
        solver.setOptionValue("mip_allow_restart", False)
        solver.setOptionValue("mip_rel_gap", gap)
        solver.setOptionValue("mip_abs_gap", 0.0)
        solver.setOptionValue("mip_feasibility_tolerance", _FEASIBILITY)
        solver.setSolution(self._point(wanted.start))
        status = run(solver, seconds)
        info = solver.getInfo()
        if status == highspy.HighsModelStatus.kInfeasible:
            return Integral(None, -math.inf, True)
        complete = status == highspy.HighsModelStatus.kOptimal
        bound = -info.mip_dual_bound / _MAGNIFIED * self._unit
        selected = None
        if info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible:
            values = list(solver.getSolution().col_value)[: self._count]
            selected = sum(1 << i for i, value in enumerate(values) if value > 0.5)
        return Integral(selected, bound, complete)

    def _point(self, selection: int) -> highspy.HighsSolution:
        """The columns' values for `selection`."""
        values = [float(selection >> i & 1) for i in range(self._count)]
        values += [0.0] * (len(self._score) - self._count)
        for _, any_of, column in self._sets:
            values[column] = float(any_of & selection != 0)
        for k, (column, unit) in self._maxima.items():
            sums = (total(terms, selection) for terms in self._program.maxima[k])
            values[column] = max(sums) / unit
        point = highspy.HighsSolution()
        point.col_value = values
        return point
