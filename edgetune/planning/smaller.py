"""The integral program without what is settled: fewer columns, and only rows that still bind.

HiGHS keeps columns that are fixed and rows that hold anyway, and its time per node grows with them.
Sets of which the same candidates are open are one column; sets that lie within a group need none.
Of rows like the memory at two moments, that which takes no more of any column than another follows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgetune.planning.highs import Row
from edgetune.planning.program import members
from edgetune.planning.settled import Settled

_COMPARED_FIRST = 16  # columns by which most pairs of rows are told apart


@dataclass(frozen=True)
class Linear:
    """A program as rows <= right; columns are from 0 to 1, except the `unbounded` ones, from 0.

    candidates: the number of columns that are candidates, the first. sets: (any_of, column) of the
    sets that have a column, ascending by size. groups: of every candidate, the groups it is in.
    empty: columns that are 0.
    """

    candidates: int
    sets: Sequence[tuple[int, int]]
    groups: Sequence[Sequence[int]]
    unbounded: Collection[int]
    empty: Collection[int]
    rows: Sequence[Row]
    right: Sequence[float]


@dataclass(frozen=True)
class Smaller:
    """rows, right: of the columns numbered as in `columns`, those of the program that are left.

    constants: of every column of the program that is settled, its value. members: of every other
    candidate or set, the columns whose sum it is.
    """

    columns: Sequence[int]
    rows: Sequence[Row]
    right: Sequence[float]
    constants: Mapping[int, float]
    members: Mapping[int, Sequence[int]]

    def row(self, row: Row) -> tuple[dict[int, float], float]:
        """What is left of `row`, in columns of the program, and what the settled ones add."""
        return _substituted(row, self.constants, self.members)


def smaller(
    linear: Linear, settled: Settled, kept: Collection[int], feasibility: float
) -> Smaller | None:
    """`linear` without what is settled; None when nothing is left that keeps a row.

    kept: columns to keep though no row has them. feasibility: what a row may be exceeded by.
    """
    empty = sum(1 << i for i in linear.empty if i < linear.candidates)
    for any_of, column in linear.sets:
        empty |= any_of if column in linear.empty else 0
    settled = settled.without(empty)
    constants, parts = _columns(linear, settled)
    rows: dict[tuple[tuple[int, float], ...], float] = {}
    for row, right in zip(linear.rows, linear.right, strict=True):
        left, constant = _substituted(row, constants, parts)
        room = right - constant
        if not left and room < -feasibility:
            return None
        if _can_exceed(left, room, linear.unbounded):
            key = tuple(sorted(left.items()))
            rows[key] = min(rows.get(key, room), room)
    binding = _binding(list(rows.items()))
    used = {column for key, _ in binding for column, _ in key}
    used.update(part for i in kept if i not in constants for part in parts.get(i, (i,)))
    columns = sorted(used)
    number = {column: k for k, column in enumerate(columns)}
    return Smaller(
        columns,
        [{number[column]: amount for column, amount in key} for key, _ in binding],
        [right for _, right in binding],
        constants,
        parts,
    )


def _columns(linear: Linear, settled: Settled) -> tuple[dict[int, float], dict[int, Sequence[int]]]:
    """The values of settled columns, and of the others the columns whose sum they are."""
    constants: dict[int, float] = {}
    parts: dict[int, Sequence[int]] = {}
    for i in range(linear.candidates):
        extent = settled.extent(1 << i)
        if extent is None:
            parts[i] = (i,)
        else:
            constants[i] = float(extent)
    of_open: dict[int, Sequence[int]] = {}
    for any_of, column in linear.sets:
        extent = settled.extent(any_of)
        if extent is not None:
            constants[column] = float(extent)
            continue
        rest = any_of & ~settled.excluded
        if rest not in of_open:
            first = (rest & -rest).bit_length() - 1
            within = not rest & rest - 1 or any(not rest & ~g for g in linear.groups[first])
            of_open[rest] = members(rest) if within else (column,)
        parts[column] = of_open[rest]
    return constants, parts


def _substituted(
    row: Row, constants: Mapping[int, float], parts: Mapping[int, Sequence[int]]
) -> tuple[dict[int, float], float]:
    left: dict[int, float] = {}
    constant = 0.0
    for column, amount in row.items():
        if column in constants:
            constant += amount * constants[column]
        else:
            for part in parts.get(column, (column,)):
                left[part] = left.get(part, 0.0) + amount
    return {column: amount for column, amount in left.items() if amount}, constant


def _can_exceed(row: Row, right: float, unbounded: Collection[int]) -> bool:
    most = 0.0
    for column, amount in row.items():
        if amount > 0:
            if column in unbounded:
                return True
            most += amount
    return most > right


_Rows = list[tuple[tuple[tuple[int, float], ...], float]]


def _binding(rows: _Rows) -> _Rows:
    """`rows` without those that another one implies, as it takes no less of any column."""
    sums = [row for row in rows if row[1] > 0 and all(amount > 0 for _, amount in row[0])]
    others = [row for row in rows if not (row[1] > 0 and all(amount > 0 for _, amount in row[0]))]
    columns = {column: k for k, column in enumerate(sorted({c for row, _ in sums for c, _ in row}))}
    shares = np.zeros((len(sums), len(columns)))
    for k, (row, right) in enumerate(sums):
        shares[k, [columns[column] for column, _ in row]] = [amount / right for _, amount in row]
    first = np.argsort(-shares.sum(axis=0), kind="stable")[:_COMPARED_FIRST]
    told_apart = np.ascontiguousarray(shares[:, first])
    kept: list[int] = []
    for k in np.argsort(-shares.sum(axis=1), kind="stable"):
        near = [kept[at] for at in np.flatnonzero((told_apart[kept] >= told_apart[k]).all(axis=1))]
        if not (near and (shares[near] >= shares[k]).all(axis=1).any()):
            kept.append(int(k))
    return [*others, *(sums[k] for k in sorted(kept))]
