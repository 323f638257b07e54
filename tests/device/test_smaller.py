from __future__ import annotations

import pytest

from edgetune.planning.settled import OPEN, Settled
from edgetune.planning.smaller import Linear, Smaller, smaller

# Candidates 0 to 3, of which 0 and 1 are a group; sets 0b0111 and 0b1111; a maximum.
SETS, MAXIMUM = [(0b0111, 4), (0b1111, 5)], 6
GROUPS = [[0b0011], [0b0011], [], []]


def left(
    rows: list[tuple[dict[int, float], float]],
    settled: Settled = OPEN,
    kept: tuple[int, ...] = (),
    empty: tuple[int, ...] = (),
) -> Smaller | None:
    linear = Linear(4, SETS, GROUPS, {MAXIMUM}, empty, *zip(*rows, strict=True))
    return smaller(linear, settled, kept, feasibility=1e-8)


def rows_left(*arguments: object, **named: object) -> list[tuple[dict[int, float], float]]:
    """Rows with the program's numbers of columns."""
    found = left(*arguments, **named)  # type: ignore[arg-type]
    assert found is not None
    return [
        ({found.columns[k]: amount for k, amount in row.items()}, right)
        for row, right in zip(found.rows, found.right, strict=True)
    ]


def test_what_is_settled_goes_to_the_right_hand_side() -> None:
    settled = Settled(included=0b1000, excluded=0b0001)
    row = {0: 5.0, 1: 2.0, 3: 1.0, 5: 0.5}, 3.0
    assert rows_left([row], settled) == [({1: 2.0}, 1.5)]


def test_sets_of_which_the_same_is_open_are_one_column() -> None:
    row = {4: 2.0, 5: 3.0, 2: 1.0}, 4.0
    assert rows_left([row]) == [row]
    assert rows_left([row], Settled(excluded=0b1000)) == [({4: 5.0, 2: 1.0}, 4.0)]


def test_a_set_of_which_one_group_is_open_is_the_sum_of_its_candidates() -> None:
    row = {4: 2.0, 0: 1.0}, 2.5
    assert rows_left([row], Settled(excluded=0b1100)) == [({0: 3.0, 1: 2.0}, 2.5)]


@pytest.mark.parametrize(
    ("row", "right", "stays"),
    [
        pytest.param({0: 1.0, 2: 1.0}, 2.0, False, id="all-of-it-fits"),
        pytest.param({0: 1.0, 2: 1.0}, 1.9, True, id="all-of-it-does-not"),
        pytest.param({0: 1.0, MAXIMUM: 1e-9}, 9.0, True, id="a-maximum-has-no-bound"),
        pytest.param({0: 1.0, MAXIMUM: -1.0}, 1.0, False, id="a-maximum-above-it"),
    ],
)
def test_only_rows_that_can_be_exceeded_stay(
    row: dict[int, float], right: float, stays: bool
) -> None:
    assert bool(rows_left([(row, right)])) == stays


def test_of_rows_the_one_that_implies_the_others_stays() -> None:
    rows = [({0: 1.0, 2: 1.0}, 1.0), ({0: 2.0, 2: 3.0}, 2.0), ({0: 1.0, 3: 1.0}, 1.0)]
    assert rows_left(rows) == rows[1:]
    assert rows_left([rows[0], rows[0]]) == [rows[0]]


def test_nothing_is_left_where_what_is_included_exceeds_a_row() -> None:
    row = {0: 1.0, 3: 2.0}, 1.0
    assert left([row], Settled(included=0b1000, excluded=0b0001)) is None
    assert left([row], Settled(included=0b0001, excluded=0b1000)) is not None


def test_columns_that_are_empty_exclude_their_candidates() -> None:
    assert rows_left([({0: 1.0, 3: 2.0, 4: 1.0}, 1.0)], empty=(4,)) == [({3: 2.0}, 1.0)]


def test_what_the_objective_counts_is_kept_though_no_row_has_it() -> None:
    found = left([({0: 2.0}, 1.0)], Settled(included=0b0100), kept=(0, 2, 3))
    assert found is not None
    assert list(found.columns) == [0, 3]
    assert found.row({0: 1.0, 2: 5.0, 3: 7.0}) == ({0: 1.0, 3: 7.0}, 5.0)
