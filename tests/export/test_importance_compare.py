"""The table that compares what criteria pick."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from edgetune_exporters.importance import (
    ComparedCriterion,
    Importance,
    TensorScores,
    compare_criteria,
)

from edgetune.nouns.candidate import Candidate, Share

FISHER = Importance(
    "fisher",
    {"a": TensorScores(6.0, ((1.0, 5.0),)), "b": TensorScores(3.0, ()), "c": TensorScores(1.0, ())},
)
TAYLOR = Importance(
    "taylor",
    {"a": TensorScores(1.0, ((0.9, 0.1),)), "b": TensorScores(2.0, ()), "c": TensorScores(1.0, ())},
)
NEGATIVE = Importance("loss-reduction", {"a": TensorScores(-2.0, ()), "b": TensorScores(4.0, ())})
NOTHING = Importance("contribution", {"a": TensorScores(0.0, ()), "b": TensorScores(-1.0, ())})


def best_two(importance: Importance) -> Sequence[Candidate]:
    scores = importance.whole()
    names = sorted(scores, key=lambda name: -scores[name])[:2]
    return [Candidate(name, name, f"gradient:{name}") for name in names]


def best_half_of_a(importance: Importance) -> Sequence[Candidate]:
    share = Share(0, importance.best_indices("a", 0, 1))
    return [Candidate("a:out/2", "a", "gradient:a:out/2", share)]


def test_each_criterion_has_a_row_and_the_first_is_the_measure() -> None:
    assert compare_criteria([FISHER, TAYLOR], best_two) == (
        ComparedCriterion("fisher", ("a", "b"), 2, 0.9, 1.0),
        ComparedCriterion("taylor", ("b", "a"), 2, 0.75, 1.0),
    )


def test_the_overlap_counts_shared_names_over_all() -> None:
    chosen = {"fisher": ["a", "b"], "taylor": ["b", "c"], "loss-reduction": ["a", "b", "c"]}

    def choose(importance: Importance) -> Sequence[Candidate]:
        return [Candidate(name, name, "") for name in chosen[importance.criterion]]

    rows = compare_criteria([FISHER, TAYLOR, NEGATIVE], choose)
    assert [row.overlap for row in rows] == [1.0, pytest.approx(1 / 3), pytest.approx(2 / 3)]


def test_a_share_captures_the_score_of_its_own_slices() -> None:
    by_fisher, by_taylor = compare_criteria([FISHER, TAYLOR], best_half_of_a)
    assert by_fisher.captured == 0.5
    assert by_taylor.captured == pytest.approx(0.9 / 4)
    assert (by_fisher.tensors, by_taylor.overlap) == (1, 1.0)


def test_negative_scores_lower_what_is_captured_and_not_what_there_is() -> None:
    (row,) = compare_criteria([NEGATIVE], best_two)
    assert row.captured == 0.5


def test_without_anything_positive_nothing_is_captured() -> None:
    (row,) = compare_criteria([NOTHING], lambda importance: [])
    assert row == ComparedCriterion("contribution", (), 0, 0.0, 1.0)
