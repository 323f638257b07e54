from __future__ import annotations

import pytest

from edgetune.planning.program import Limit, Program, Term, members
from edgetune.planning.solution import Solution
from edgetune.planning.solve import Search, solve
from tests.device.chain_programs import chain_program
from tests.device.programs import Case, Hidden, brute_force, disagreement, random_cases

TWO = (Term(3.0, 0b01), Term(2.0, 0b10))


def solved(program: Program, *hidden: Limit) -> Solution:
    return solve(program, Hidden(program, hidden))


@pytest.mark.parametrize("case", list(random_cases(150, seed=7)), ids=lambda case: case.name)
def test_the_answer_is_that_of_brute_force(case: Case) -> None:
    assert disagreement(case, solve(case.program, case.separation)) == ""


@pytest.mark.parametrize(
    ("gap", "seconds"),
    [
        pytest.param(0.05, None, id="small-gap"),
        pytest.param(0.9, None, id="large-gap"),
        pytest.param(0.0, 0.0, id="no-time"),
        pytest.param(0.1, 0.005, id="gap-and-little-time"),
    ],
)
def test_the_best_found_is_within_the_limits_and_its_bound_holds(
    gap: float, seconds: float | None
) -> None:
    for case in random_cases(60, seed=8):
        solution = solve(case.program, case.separation, gap, seconds)
        optimum, _ = brute_force(case)
        assert not case.program.violated(case.limits, solution.selected), case.name
        assert solution.objective == case.program.score(solution.selected)
        assert solution.objective * (1 - 1e-9) <= optimum <= solution.bound * (1 + 1e-9), case.name
        loss = solution.bound - solution.objective
        assert solution.gap == pytest.approx(loss / solution.bound if loss else 0.0, abs=1e-9)
        assert solution.gap <= gap or solution.out_of_time, case.name
        assert seconds is not None or not solution.out_of_time


def test_without_time_the_greedy_answer_has_the_bound_of_no_limits_at_all() -> None:
    program = Program((1.0, 5.0), (), (), (Limit("memory", 2.0, TWO),))
    solution = solve(program, Hidden(program, ()), time_limit_seconds=0.0)
    assert (solution.selected, solution.bound, solution.out_of_time) == (0b10, 6.0, True)
    assert solution.gap == pytest.approx(1 / 6)


def elastic_trainer(numbered_from: str) -> Program:
    """The instance on which ElasticTrainer's dynamic program (MobiSys 2023, section 4) says 8.

    Training tensor i takes dw[i], and passing the gradient back from the output to it the sum of dy
    on the way, paid once for all. The optimum is 11 where tensors are numbered from the input.
    """
    dy, dw, importance = [3, 0, 4, 2], [2, 0, 1, 2], [7, 7, 4, 8]
    beyond = {"input": lambda i: (2 << i) - 1, "output": lambda i: 0b1111 & -1 << i}[numbered_from]
    passing = [Term(float(cost), beyond(i)) for i, cost in enumerate(dy)]
    training = [Term(float(cost), 1 << i) for i, cost in enumerate(dw)]
    limits = (Limit("time", 7.0, (*passing, *training)),)
    return Program(tuple(map(float, importance)), (), (), limits)


@pytest.mark.parametrize(
    ("numbered_from", "optimum", "selected"),
    [
        pytest.param("input", 11, [1, 2], id="input"),
        pytest.param("output", 14, [0, 1], id="output"),
    ],
)
def test_elastic_trainers_counterexample_is_solved(
    numbered_from: str, optimum: float, selected: list[int]
) -> None:
    program = elastic_trainer(numbered_from)
    solution = solved(program)
    assert brute_force(Case("", program, Hidden(program, ())))[0] == optimum
    assert (solution.objective, solution.bound, solution.gap) == (optimum, optimum, 0.0)
    assert members(solution.selected) == selected
    assert solution.binding == ("time",)


@pytest.mark.parametrize(
    ("bound", "selected", "binding"),
    [
        pytest.param(0.0, 0, ("memory",), id="nothing"),
        pytest.param(2.0, 0b10, ("memory",), id="the-better-one"),
        pytest.param(5.0 * (1 - 1e-12), 0b10, ("memory",), id="not-both-by-a-hair"),
        pytest.param(5.0, 0b11, (), id="both"),
    ],
)
@pytest.mark.parametrize("hidden", [False, True])
def test_a_limit_admits_what_keeps_it_exactly(
    bound: float, selected: int, binding: tuple[str, ...], hidden: bool
) -> None:
    limit = Limit("memory", bound, TWO)
    program = Program((1.0, 5.0), (), (), () if hidden else (limit,))
    solution = solved(program, *([limit] if hidden else []))
    assert (solution.selected, solution.binding) == (selected, binding)


def test_what_is_needed_by_both_is_paid_once() -> None:
    shared = (*TWO, Term(4.0, 0b11))
    for bound, selected in ((8.9, 0b10), (9.0, 0b11)):
        assert solved(Program((1.0, 5.0), (), (), (Limit("time", bound, shared),))).selected == (
            selected
        )


def test_of_a_maximum_only_the_largest_sum_counts() -> None:
    maximum = tuple((term,) for term in TWO)
    for bound, selected in ((2.9, 0b10), (3.0, 0b11)):
        limit = Limit("memory", bound, (), (0,))
        assert solved(Program((1.0, 5.0), (), (maximum,), (limit,))).selected == selected


def test_a_price_is_what_more_of_a_bound_would_bring() -> None:
    limits = (Limit("memory", 3.0, TWO), Limit("time", 9.0, TWO), Limit("memory", 50.0, TWO))
    solution = solved(Program((1.0, 5.0), (), (), limits))
    assert solution.prices == pytest.approx({"memory": 1 / 3, "time": 0.0})
    assert solution.binding == ("memory",)


@pytest.mark.parametrize(
    ("known", "selected", "bound"),
    [
        pytest.param((4.0,), 0b100, 6.0, id="worse"),
        pytest.param((6.0,), 0b100, 6.0, id="equal"),
        pytest.param((8.0,), 0, 8.0, id="better"),
        pytest.param((8.0, 4.0), 0, 8.0, id="worse-after-a-better-one"),
    ],
)
def test_what_scores_less_than_what_is_known_elsewhere_is_not_searched_for(
    known: tuple[float, ...], selected: int, bound: float
) -> None:
    """The bound holds all the same."""
    takes = tuple(Term(amount, 1 << i) for i, amount in enumerate((0.6, 0.6, 0.9)))
    program = Program((5.0, 5.0, 6.0), (), (), (Limit("time", 1.0, takes),))
    search = Search(program, Hidden(program, ()))
    for score in known:
        search.optimise(0.0, score)
    assert search.bound == pytest.approx(bound)
    assert search.bound >= 6.0 - 1e-6
    assert selected in (0, search.selected)


def test_ties_go_to_the_least_cost() -> None:
    limit = Limit("time", 1.0, (Term(1.0, 0b01), Term(1.0, 0b10)))
    for costs, selected in (((2.0, 1.0), 0b10), ((1.0, 2.0), 0b01)):
        cost = tuple(Term(amount, 1 << i) for i, amount in enumerate(costs))
        for scores, best in (((1.0, 1.0), selected), ((1.0, 1.0 + 1e-6), 0b10)):
            assert solved(Program(scores, (), (), (limit,), cost)).selected == best


@pytest.mark.parametrize(
    ("less", "selected"),
    [
        pytest.param(1e-10, 0b01, id="a-tie"),
        pytest.param(1e-8, 0b10, id="none"),
    ],
)
def test_scores_within_a_billionth_are_ties(less: float, selected: int) -> None:
    limit = Limit("time", 1.0, (Term(1.0, 0b01), Term(1.0, 0b10)))
    cost = (Term(1.0, 0b01), Term(2.0, 0b10))
    assert solved(Program((1.0 - less, 1.0), (), (), (limit,), cost)).selected == selected


@pytest.mark.parametrize(
    ("small", "kept"),
    [
        pytest.param(1e-300, False, id="next-to-nothing"),
        pytest.param(1e-14, False, id="negligible"),
        pytest.param(3e-9, True, id="just-no-tie"),
        pytest.param(1e-7, True, id="small"),
    ],
)
def test_many_small_scores_cost_no_more_than_a_few_programs(small: float, kept: bool) -> None:
    count = 40
    scores = (1.0, *(small * (1 + i / count) for i in range(count)))
    cost = tuple(Term(1.0 + i, 1 << i) for i in range(count + 1))
    solution = solved(Program(scores, (), (), (), cost))
    assert solution.selected == ((2 << count) - 1 if kept else 1)
    assert (solution.gap, solution.out_of_time) == (0.0, False)
    assert solution.iterations <= 2


@pytest.mark.parametrize(
    ("scores", "exclusive", "selected"),
    [
        pytest.param((), (), 0, id="no-candidate"),
        pytest.param((0.0, 0.0), (), 0, id="no-score"),
        pytest.param((0.0, 1.0), (), 0b10, id="one-scores"),
        pytest.param((1.0, 2.0, 3.0), (0b110,), 0b101, id="one-of-a-group"),
        pytest.param((1.0, 4.0, 2.0), (0b011, 0b110), 0b010, id="groups-overlap"),
    ],
)
def test_what_scores_is_selected_once_a_group(
    scores: tuple[float, ...], exclusive: tuple[int, ...], selected: int
) -> None:
    solution = solved(Program(scores, exclusive, (), ()))
    assert (solution.selected, solution.gap, solution.binding) == (selected, 0.0, ())


def test_a_long_chain_is_solved_to_the_end_and_in_silence(
    capfd: pytest.CaptureFixture[str],
) -> None:
    program, moments = chain_program(120, memory_share=0.5, time_share=0.5, seed=1)
    solution = solve(program, moments)
    assert solution == solve(program, moments)
    assert (solution.gap, solution.out_of_time) == (0.0, False)
    assert not moments.violated(solution.selected)
    assert not program.violated(program.limits, solution.selected)
    rough = solve(program, moments, gap=0.1)
    assert rough.objective <= solution.objective <= rough.bound
    assert rough.gap <= 0.1
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("bound", "term", "message"),
    [
        pytest.param(
            -1.0,
            Term(1.0, 1),
            "the bound of memory is -1.0: not even nothing keeps it",
            id="negative-bound",
        ),
        pytest.param(
            float("inf"), Term(1.0, 1), "the bound of memory is inf", id="a-bound-that-is-none"
        ),
        pytest.param(1.0, Term(-1.0, 1), "a term of memory is negative", id="negative-term"),
        pytest.param(1.0, Term(1.0, 0), "or of no candidate", id="term-of-nobody"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(bound: float, term: Term, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Limit("memory", bound, (term,))
