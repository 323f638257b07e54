"""The integral program, solved by branching on what is not settled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import highspy
import numpy as np

from edgetune.planning.highs import (
    FEASIBILITY,
    MAGNIFIED,
    Row,
    add_columns,
    add_rows,
    quiet_highs,
    run,
)
from edgetune.planning.program import members
from edgetune.planning.relaxation import Relaxation
from edgetune.planning.settled import OPEN, Settled
from edgetune.planning.smaller import Linear, Smaller, smaller


@dataclass(frozen=True)
class Wanted:
    """Of which integral selections the best is wanted: that of the largest `objective`.

    objective: by candidates and sets' columns, in any unit. cuts: more rows <= their right-hand
    side. start: a selection known to do, if any. handicap: by which its objective counts as less,
    so that another, if there is one within that, is preferred. settled: what is known of all that
    are wanted.
    """

    objective: Row
    start: int | None
    cuts: Sequence[tuple[Row, float]] = ()
    handicap: float = 0.0
    settled: Settled = OPEN


@dataclass(frozen=True)
class Integral:
    """What a mixed-integer solve found.

    selected: None when it found nothing. bound: no selection's objective is better, except by
    rounding. complete: whether it ended by itself, within the gap asked for.
    """

    selected: int | None
    bound: float
    complete: bool


NOTHING = Integral(None, -math.inf, True)


def solve_integral(relaxation: Relaxation, wanted: Wanted, gap: float, seconds: float) -> Integral:
    """The best selection that keeps all rows of `relaxation` and the cuts."""
    aim, cuts = dict(wanted.objective), list(wanted.cuts)
    if wanted.start is not None and wanted.handicap:
        is_start = relaxation.columns  # one more: 1 for the start, and what contains it
        chosen = members(wanted.start)
        cuts.append(({**dict.fromkeys(chosen, 1.0), is_start: -1.0}, len(chosen) - 1.0))
        aim[is_start] = -wanted.handicap
    linear = relaxation.linear(cuts)
    left = smaller(linear, wanted.settled, aim.keys(), FEASIBILITY)
    if left is None:
        return NOTHING
    objective, constant = left.row(aim)
    if not left.columns:
        return Integral(_selection(linear, left, {}), constant, True)
    solver = _solver(linear, left, objective)
    solver.changeObjectiveOffset(-MAGNIFIED * constant)
    solver.setOptionValue("mip_rel_gap", gap)
    if wanted.start is None or wanted.handicap:
        # There may be nothing to find, and searching for it costs most.
        solver.setOptionValue("mip_heuristic_run_rins", False)
        solver.setOptionValue("mip_heuristic_run_rens", False)
        solver.setOptionValue("mip_heuristic_effort", 0.0)
    if wanted.start is not None:
        point = highspy.HighsSolution()
        values = [*relaxation.point(wanted.start), 1.0]
        point.col_value = [values[column] for column in left.columns]
        solver.setSolution(point)
    status = run(solver, seconds)
    info = solver.getInfo()
    if status == highspy.HighsModelStatus.kInfeasible:
        return NOTHING
    complete = status == highspy.HighsModelStatus.kOptimal
    bound = -info.mip_dual_bound / MAGNIFIED
    selected = None
    if info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible:
        values = list(solver.getSolution().col_value)
        selected = _selection(linear, left, dict(zip(left.columns, values, strict=True)))
    return Integral(selected, bound, complete)


def _solver(linear: Linear, left: Smaller, objective: Row) -> highspy.Highs:
    solver = quiet_highs()
    count = len(left.columns)
    costs = np.array([-MAGNIFIED * objective.get(column, 0.0) for column in left.columns])
    unbounded = np.array([column in linear.unbounded for column in left.columns])
    upper = np.where(unbounded, highspy.kHighsInf, 1.0)
    add_columns(solver, costs, np.zeros(count), upper)
    add_rows(solver, left.rows, left.right)
    # All others: branching on a whole set is what settles a long chain.
    kinds = np.where(unbounded, 0, highspy.HighsVarType.kInteger.value).astype(np.uint8)
    solver.changeColsIntegrality(count, np.arange(count, dtype=np.int32), kinds)
    solver.setOptionValue("mip_allow_restart", False)
    solver.setOptionValue("mip_abs_gap", 0.0)
    solver.setOptionValue("mip_feasibility_tolerance", FEASIBILITY)
    return solver


def _selection(linear: Linear, left: Smaller, values: dict[int, float]) -> int:
    return sum(
        1 << i for i in range(linear.candidates) if left.constants.get(i, values.get(i, 0.0)) > 0.5
    )
