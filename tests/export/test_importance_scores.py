"""Scores of shares and the choice of the best slices."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
from edgetune_exporters.importance import Importance, TensorScores
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetune.errors import SelectionError
from edgetune.nouns.candidate import Candidate, Share

MATRIX = TensorScores(10.0, ((1.0, 6.0, 3.0), (4.0, 6.0)))
ADDED = Importance("fisher", {"w": MATRIX, "b": TensorScores(5.0, ((2.0, 3.0),))})
NORMED = Importance("gradient-norm", ADDED.tensors, root=True)


@pytest.mark.parametrize(
    ("share", "statistic"),
    [
        pytest.param(None, 10.0, id="whole"),
        pytest.param(Share(0, (1,)), 6.0, id="one-row"),
        pytest.param(Share(0, (0, 2)), 4.0, id="rows"),
        pytest.param(Share(1, (0,)), 4.0, id="column"),
        pytest.param(Share(1, (0, 1)), 10.0, id="all-columns"),
        pytest.param(Share(0, ()), 0.0, id="none"),
    ],
)
def test_slices_add_up_and_norms_add_in_squares(share: Share | None, statistic: float) -> None:
    assert ADDED.score("w", share) == statistic
    assert NORMED.score("w", share) == math.sqrt(statistic)


@pytest.mark.parametrize("importance", [ADDED, NORMED])
def test_the_best_slices_come_ascending(importance: Importance) -> None:
    assert importance.best_indices("w", 0, 1) == (1,)
    assert importance.best_indices("w", 0, 2) == (1, 2)
    assert importance.best_indices("w", 1, 2) == (0, 1)


def test_ties_go_to_the_lower_index() -> None:
    tied = Importance("user", {"w": TensorScores(4.0, ((0.0, 1.0, 1.0, 2.0, 0.0, 0.0),))})
    assert tied.best_indices("w", 0, 2) == (1, 3)
    assert tied.best_indices("w", 0, 4) == (0, 1, 2, 3)


@settings(derandomize=True, deadline=None)
@given(st.lists(st.integers(-3, 9), min_size=1, max_size=7), st.data())
def test_no_other_slices_have_a_greater_score(values: list[int], data: st.DataObject) -> None:
    axis = tuple(map(float, values))
    importance = Importance("taylor", {"w": TensorScores(sum(axis), (axis,))})
    count = data.draw(st.integers(1, len(values)))
    best = importance.best_indices("w", 0, count)
    others = combinations(range(len(values)), count)
    greatest = max(importance.score("w", Share(0, indices)) for indices in others)
    assert importance.score("w", Share(0, best)) == greatest


def test_candidates_are_scored_by_their_name_and_share() -> None:
    candidates = [
        Candidate("w", "w", "gradient:w"),
        Candidate("w:out/3", "w", "gradient:w:out/3", Share(0, (1,))),
        Candidate("other", "other", "gradient:other"),
    ]
    assert ADDED.of(candidates) == {"w": 10.0, "w:out/3": 6.0}
    assert ADDED.whole() == {"w": 10.0, "b": 5.0}
    assert "w" in ADDED
    assert "other" not in ADDED


def test_other_sums_keep_the_proportions() -> None:
    assert MATRIX.scaled_to(5.0) == TensorScores(5.0, ((0.5, 3.0, 1.5), (2.0, 3.0)))
    assert MATRIX.scaled_to(-10.0).by_axis == ((-1.0, -6.0, -3.0), (-4.0, -6.0))


def test_without_proportions_slices_are_equal() -> None:
    nothing = TensorScores(0.0, ((0.0, 0.0), (0.0, 0.0, 0.0)))
    assert nothing.scaled_to(6.0) == TensorScores(6.0, ((3.0, 3.0), (2.0, 2.0, 2.0)))
    assert TensorScores(0.0, ()).scaled_to(6.0) == TensorScores(6.0, ())


@pytest.mark.parametrize(
    ("parameter", "share", "message"),
    [
        ("W", None, "W has no score by fisher"),
        ("w", Share(2, (0,)), "w has no scores along axis 2"),
        ("b", Share(1, (0,)), "b has no scores along axis 1"),
        ("w", Share(0, (0, 3)), "w has 3 slices along axis 0: there is no slice 3"),
        ("w", Share(0, (-1,)), "w has 3 slices along axis 0: there is no slice -1"),
    ],
)
def test_what_has_no_score_is_said(parameter: str, share: Share | None, message: str) -> None:
    with pytest.raises(SelectionError) as caught:
        ADDED.score(parameter, share)
    assert str(caught.value) == message


@pytest.mark.parametrize("count", [0, 4])
def test_as_many_slices_as_there_are_can_be_chosen(count: int) -> None:
    with pytest.raises(SelectionError) as caught:
        ADDED.best_indices("w", 0, count)
    assert str(caught.value) == f"w has 3 slices along axis 0: cannot choose {count}"
