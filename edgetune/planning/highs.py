"""HiGHS, driven by arrays: columns and rows in, a status out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import highspy
import numpy as np
import numpy.typing as npt

from edgetune.errors import RuntimeSetupError

Row = Mapping[int, float]  # coefficients by column
Floats = npt.NDArray[np.float64]
FEASIBILITY = 1e-8  # what HiGHS may exceed a row by; rows are scaled to 1
MAGNIFIED = 1e3  # an integral objective: what is better by less than HiGHS's tolerance is missed


def add_columns(solver: highspy.Highs, costs: Floats, lower: Floats, upper: Floats) -> None:
    """Append columns that are in no row yet."""
    starts, columns, values = np.zeros(len(costs), np.int32), np.zeros(0, np.int32), np.zeros(0)
    solver.addCols(len(costs), costs, lower, upper, 0, starts, columns, values)


def add_rows(solver: highspy.Highs, rows: Sequence[Row], right: Sequence[float]) -> None:
    """Append rows that are at most `right`."""
    sizes = [len(row) for row in rows]
    solver.addRows(
        len(rows),
        np.full(len(rows), -highspy.kHighsInf),
        np.array(right, float),
        sum(sizes),
        np.cumsum([0, *sizes], dtype=np.int32)[:-1],
        np.array([column for row in rows for column in row], np.int32),
        np.array([value for row in rows for value in row.values()], float),
    )


def run(solver: highspy.Highs, seconds: float) -> highspy.HighsModelStatus:
    """Solve; the status is that of an optimum, of no solution, or of the time limit.

    Without presolve, which at times cuts off the optimum (seen in HiGHS 1.7.2 to 1.15.1); with it
    when the solve fails. Raises RuntimeSetupError when that fails too.
    """
    known = highspy.HighsModelStatus
    solver.setOptionValue("time_limit", solver.getRunTime() + seconds)
    for presolve in ("off", "on"):
        solver.setOptionValue("presolve", presolve)
        solver.run()
        status = solver.getModelStatus()
        if status in (known.kOptimal, known.kInfeasible, known.kTimeLimit):
            return status
        solver.clearSolver()
    raise RuntimeSetupError(
        f"HiGHS {solver.version()} cannot solve the program: {status.name}; another version of "
        "highspy may (pip install --upgrade highspy)"
    )


def quiet_highs() -> highspy.Highs:
    """A solver that prints nothing, and does the same each time."""
    solver = highspy.Highs()  # type: ignore[no-untyped-call]  # it has no annotation
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", 1)
    solver.setOptionValue("random_seed", 0)
    return solver
