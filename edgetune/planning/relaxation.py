"""The program as rows and columns for HiGHS: a linear relaxation that grows.

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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import highspy
import numpy as np

from edgetune.planning.highs import (
    FEASIBILITY,
    MAGNIFIED,
    Floats,
    Row,
    add_columns,
    add_rows,
    quiet_highs,
    run,
)
from edgetune.planning.program import Limit, Program, Term, members, total
from edgetune.planning.settled import OPEN, Settled
from edgetune.planning.smaller import Linear

# By how much more than HiGHS's tolerance a row, scaled to 1, may be exceeded: without that HiGHS
# loses selections that keep a limit exactly. What exceeds a limit within this is cut off later.
SLACK = 1e-7
RESOLVED = FEASIBILITY / MAGNIFIED  # how closely a floor is kept
_LARGEST = 1e3  # of a row's coefficients: more than the whole bound is as good as this
_LINKED_DIRECTLY = 8  # candidates that are linked themselves rather than through smaller sets


@dataclass(frozen=True)
class Fractional:
    """The optimum of the relaxation.

    objective: -inf when nothing keeps all rows. values, losses: of every candidate, how far it is
    selected, and what the objective loses at least if a value of 0 or 1 becomes the other. extents:
    of every set that has a column, how far it is reached. prices: by name of limit, what the
    objective gains per unit of the bounds of that name, all raised at once.
    """

    objective: float
    values: list[float]
    losses: list[float]
    extents: Mapping[int, float]
    prices: Mapping[str, float]


class Relaxation:
    """Grows with `add`; `solve` starts from the solution before."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._count = len(program.scores)
        self.unit = max(program.scores, default=0.0) or 1.0
        self._score = [score / self.unit for score in program.scores]
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
        unit = score / self.unit / MAGNIFIED
        row = {i: -own / unit for i, own in enumerate(self._score[: self._count]) if own}
        return row, MAGNIFIED * (tolerance - 1)

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

    def solve(self, seconds: float, settled: Settled = OPEN) -> Fractional | None:
        """The optimum where that much is settled; None when `seconds` do not suffice."""
        columns, rows = self._sent
        count = len(self._score)
        new = count - columns
        add_columns(self._solver, -np.array(self._score[columns:]), np.zeros(new), np.zeros(new))
        every = np.arange(count, dtype=np.int32)
        self._solver.changeColsBounds(count, every, *self._bounds(settled))
        add_rows(self._solver, self._rows[rows:], self._right[rows:])
        self._sent = count, len(self._rows)
        status = run(self._solver, seconds)
        if status == highspy.HighsModelStatus.kTimeLimit:
            return None
        if status == highspy.HighsModelStatus.kInfeasible:
            nothing = [0.0] * self._count
            return Fractional(-math.inf, nothing, nothing, {}, {})
        solution = self._solver.getSolution()
        values = [min(1.0, max(0.0, value)) for value in list(solution.col_value)]
        return Fractional(
            -self._solver.getInfo().objective_function_value * self.unit,
            values[: self._count],
            [abs(cost) * self.unit for cost in list(solution.col_dual)[: self._count]],
            {any_of: values[column] for _, any_of, column in self._sets},
            self._prices(list(solution.row_dual)),
        )

    def _bounds(self, settled: Settled) -> tuple[Floats, Floats]:
        lower, upper = np.zeros(len(self._upper)), np.array(self._upper)
        if settled != OPEN:
            lower[members(settled.included)] = 1.0
            upper[members(settled.excluded)] = 0.0
            for _, any_of, column in self._sets:
                lower[column] = settled.extent(any_of) or 0.0
        return np.minimum(lower, upper), upper

    def _prices(self, duals: list[float]) -> dict[str, float]:
        prices: dict[str, float] = {}
        for limit, row, scale in self._limits:
            price = -duals[row] * self.unit / scale if -duals[row] > FEASIBILITY else 0.0
            prices[limit.name] = prices.get(limit.name, 0.0) + price
        return prices

    @property
    def columns(self) -> int:
        return len(self._score)

    def linear(self, cuts: Iterable[tuple[Row, float]]) -> Linear:
        """All rows and the cuts."""
        cuts = list(cuts)
        return Linear(
            self._count,
            [(any_of, column) for _, any_of, column in self._sets],
            self._groups,
            {column for column, _ in self._maxima.values()},
            {column for column, upper in enumerate(self._upper) if not upper},
            [*self._rows, *(row for row, _ in cuts)],
            [*self._right, *(right for _, right in cuts)],
        )

    def objective(self) -> dict[int, float]:
        """The score, in `unit`s."""
        return {i: score for i, score in enumerate(self._score[: self._count]) if score}

    def point(self, selection: int) -> list[float]:
        """The columns' values for `selection`."""
        values = [float(selection >> i & 1) for i in range(self._count)]
        values += [0.0] * (len(self._score) - self._count)
        for _, any_of, column in self._sets:
            values[column] = float(any_of & selection != 0)
        for k, (column, unit) in self._maxima.items():
            sums = (total(terms, selection) for terms in self._program.maxima[k])
            values[column] = max(sums) / unit
        return values
