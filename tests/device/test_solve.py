from __future__ import annotations

from itertools import combinations

import pytest

from edgetune.planning.program import Limit, Program, Term, total
from edgetune.planning.solve import solve
from tests.device.programs import Case, Hidden, brute_force, random_cases

NOTHING_HIDDEN = ()


def alone(program: Program) -> Hidden:
    return Hidden(program, NOTHING_HIDDEN)


@pytest.mark.parametrize("case", list(random_cases(150, seed=7)), ids=lambda case: case.name)
def test_the_answer_is_that_of_brute_force(case: Case) -> None:
    solution = solve(case.program, case.separation)
    objective, tie_break = brute_force(case)
    assert solution.objective == pytest.approx(objective, rel=1e-9)
    assert total(case.program.tie_break, solution.selected) == pytest.approx(tie_break, rel=1e-9)
    assert (solution.gap, solution.out_of_time) == (0.0, False)
    assert not case.program.violated(case.limits, solution.selected)


@pytest.mark.parametrize("case", list(random_cases(60, seed=8)), ids=lambda case: case.name)
def test_with_a_gap_the_bound_is_honest(case: Case) -> None:
    solution = solve(case.program, case.separation, gap=0.3)
    objective, _ = brute_force(case)
    assert solution.objective <= objective * (1 + 1e-9)
    assert objective <= solution.bound * (1 + 1e-9)
    assert solution.gap <= 0.3
    assert not case.program.violated(case.limits, solution.selected)


def elastic_trainer() -> Program:
    """The instance on which ElasticTrainer's dynamic program (MobiSys 2023, section 4) says 8.

    Tensors are numbered from the input: training tensor i takes dw[i], and passing the gradient
    back from the output down to it, dy[4] + ... + dy[i], which is paid once for all.
    """
    dy, dw, importance = [3, 0, 4, 2], [2, 0, 1, 2], [7, 7, 4, 8]
    passing = [Term(float(cost), (2 << i) - 1) for i, cost in enumerate(dy)]
    training = [Term(float(cost), 1 << i) for i, cost in enumerate(dw)]
    return Program(
        scores=tuple(map(float, importance)),
        exclusive=(),
        maxima=(),
        limits=(Limit("time", 7.0, tuple(t for t in (*passing, *training) if t.amount)),),
    )


def best_of_all_subsets(program: Program) -> float:
    count = len(program.scores)
    subsets = [c for size in range(count + 1) for c in combinations(range(count), size)]
    selections = [sum(1 << i for i in subset) for subset in subsets]
    return max(program.score(s) for s in selections if not program.violated(program.limits, s))


def test_elastic_trainers_counterexample_is_solved() -> None:
    program = elastic_trainer()
    solution = solve(program, alone(program))
    assert solution.objective == best_of_all_subsets(program) == 11
    assert solution.gap == 0.0


@pytest.mark.parametrize(
    ("bound", "selected"),
    [
        pytest.param(0.0, 0, id="nothing-fits"),
        pytest.param(2.0, 0b10, id="the-better-one"),
        pytest.param(5.0, 0b11, id="both"),
    ],
)
def test_a_budget_admits_what_fits_it_exactly(bound: float, selected: int) -> None:
    terms = (Term(3.0, 0b01), Term(2.0, 0b10))
    program = Program((1.0, 5.0), (), (), (Limit("memory", bound, terms),))
    assert solve(program, alone(program)).selected == selected


def test_what_scores_nothing_is_not_selected() -> None:
    program = Program((0.0, 1.0), (), (), ())
    assert solve(program, alone(program)).selected == 0b10


def test_of_a_group_at_most_one_is_selected() -> None:
    program = Program((1.0, 2.0, 3.0), (0b110,), (), ())
    assert solve(program, alone(program)).selected == 0b101
