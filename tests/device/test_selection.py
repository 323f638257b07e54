from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from edgetune.errors import SelectionError, UsageError
from edgetune.nouns.loss import LossSpec
from edgetune.nouns.selection import Selection, combine, select_by_patterns

NAMES = ("stem.weight", "stem.bias", "block.0.weight", "block.0.bias", "head.weight", "head.bias")
PARAMETERS = {name: index for index, name in enumerate(NAMES)}


@pytest.mark.parametrize(
    "trainable",
    [
        pytest.param((), id="nothing"),
        pytest.param(("head.bias", "stem.weight"), id="some"),
        pytest.param(NAMES, id="all"),
    ],
)
def test_combining_the_parts_gives_the_whole(trainable: tuple[str, ...]) -> None:
    chosen, frozen = Selection(trainable).partition(PARAMETERS)
    assert combine(chosen, frozen) == PARAMETERS
    assert set(chosen) == set(trainable)
    assert not set(chosen) & set(frozen)


def test_the_parts_keep_the_parameters_order() -> None:
    chosen, frozen = Selection(("head.bias", "stem.weight")).partition(PARAMETERS)
    assert list(chosen) == ["stem.weight", "head.bias"]
    assert list(frozen) == [name for name in NAMES if name not in chosen]


def test_a_name_cannot_be_trainable_and_frozen() -> None:
    with pytest.raises(SelectionError, match="both trainable and frozen: a, b"):
        combine({"a": 1, "b": 1, "c": 1}, {"b": 2, "a": 2})


def test_membership_is_about_what_is_trainable() -> None:
    assert "head.bias" in Selection(("head.bias",))
    assert "stem.bias" not in Selection(("head.bias",))


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        pytest.param(["head.*"], ("head.weight", "head.bias"), id="prefix"),
        pytest.param(["*.bias"], ("stem.bias", "block.0.bias", "head.bias"), id="suffix"),
        pytest.param(["head.bias", "stem.*"], (*NAMES[:2], "head.bias"), id="models-order"),
        pytest.param(["head.*", "*.weight", "head.bias"], (*NAMES[::2], "head.bias"), id="overlap"),
        pytest.param(["*"], NAMES, id="everything"),
        pytest.param(["head.bias"], ("head.bias",), id="exact"),
    ],
)
def test_patterns_select_in_the_models_order(
    patterns: Sequence[str], expected: tuple[str, ...]
) -> None:
    order = tuple(name for name in NAMES if name in expected)
    assert select_by_patterns(patterns, NAMES).trainable == order


def test_every_pattern_that_matches_nothing_is_named_with_the_nearest_names() -> None:
    with pytest.raises(SelectionError) as caught:
        select_by_patterns(["head.*", "haed.weight", "HEAD.bias", "zzz"], NAMES)
    message = str(caught.value)
    assert message.startswith("cannot select what to train: 3 problems")
    assert "'haed.weight' matches no parameter; the nearest names are head.weight" in message
    assert "'HEAD.bias' matches no parameter; the nearest names are stem.bias, head.bias" in message
    assert "'zzz' matches no parameter" in message
    assert "'head.*'" not in message
    assert isinstance(caught.value, UsageError)


def test_an_empty_selection_is_refused() -> None:
    with pytest.raises(SelectionError, match="no pattern was given"):
        select_by_patterns([], NAMES)


# How a loss normalises: PyTorch's reduction="mean" by hand.

Y = np.array([0, 2, 1, -100])
ONES = np.ones(4, np.float32)


@pytest.mark.parametrize(
    ("loss", "targets", "weights", "expected"),
    [
        pytest.param(LossSpec("cross_entropy", 3), Y[:3], ONES[:3], 3.0, id="mean"),
        pytest.param(LossSpec("cross_entropy", 3, None, -100), Y, ONES, 3.0, id="ignored"),
        pytest.param(
            LossSpec("cross_entropy", 3, (1.0, 2.0, 4.0), -100), Y, ONES, 7.0, id="class-weights"
        ),
        pytest.param(
            LossSpec("cross_entropy", 3, (1.0, 2.0, 4.0), -100),
            Y,
            np.array([2, 1, 0, 5], np.float32),
            6.0,
            id="class-and-sample-weights",
        ),
        pytest.param(
            LossSpec("cross_entropy", 3, None, -100),
            np.array([[0, -100], [1, 2], [-100, -100], [0, 0]]),
            ONES,
            5.0,
            id="positions",
        ),
        pytest.param(
            LossSpec("mean_squared_error", elements=6), np.zeros((4, 2, 3)), ONES, 24.0, id="mse"
        ),
        pytest.param(LossSpec("custom"), np.zeros((4, 9)), ONES / 2, 2.0, id="custom"),
    ],
)
def test_the_normalizer_is_what_a_mean_divides_by(
    loss: LossSpec, targets: np.ndarray, weights: np.ndarray, expected: float
) -> None:
    assert loss.normalizer(targets, weights) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("loss", "targets", "expected"),
    [
        (LossSpec("cross_entropy", 3, None, -100), Y, 3),
        (LossSpec("cross_entropy", 3), Y, 4),
        (LossSpec("binary_cross_entropy", elements=5), np.zeros((4, 5)), 20),
    ],
)
def test_only_predictions_that_can_be_right_count(
    loss: LossSpec, targets: np.ndarray, expected: int
) -> None:
    assert loss.counted(targets) == expected
    assert loss.has_accuracy
    assert not LossSpec("huber").has_accuracy
