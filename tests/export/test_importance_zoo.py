"""Every criterion on every kind of model, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import pytest
import torch
from edgetune_exporters.capture import capture
from edgetune_exporters.factory import Example, example_from
from edgetune_exporters.importance import Importance, measure_importance
from torch import Tensor, nn

from edgetune.errors import EdgetuneError, ExportError, TrainingError, UsageError
from edgetune.nouns.candidate import Share
from edgetune.nouns.criterion import CRITERIA
from tests.zoo import mlp, sequence, text

ZOO = [
    pytest.param(mlp.regression, id="mlp"),
    pytest.param(sequence.cnn1d, id="cnn-with-batch-norm"),
    pytest.param(text.distilbert, id="transformer"),
]


@cache
def parameters_of(factory: Callable[[], Any]) -> Mapping[str, Tensor]:
    example = example_from(factory())
    return capture(example.model, example.inputs).parameters


def measured(criterion: str, factory: Callable[[], Any]) -> Importance:
    macs = {name: float(value.numel()) for name, value in parameters_of(factory).items()}
    options: dict[str, Any] = {"macs": macs} if criterion == "tinytrain" else {}
    return measure_importance(example_from(factory()), criterion, 3, 7, **options)


@pytest.mark.parametrize("factory", ZOO)
@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_scores_every_tensor_and_its_slices_add_up(
    criterion: str, factory: Callable[[], Any]
) -> None:
    parameters, found = parameters_of(factory), measured(criterion, factory)
    assert set(found.tensors) == set(parameters)
    assert max(found.whole().values()) > 0
    for name, value in parameters.items():
        for axis, size in enumerate(value.shape[:2]):
            everything = Share(axis, tuple(range(size)))
            tolerance = 1e-9 * max(found.whole().values())
            expected = pytest.approx(found.score(name), rel=1e-9, abs=tolerance)
            assert found.score(name, everything) == expected
            assert found.best_indices(name, axis, size) == everything.indices


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_second_run_gives_the_same_bits(criterion: str) -> None:
    assert measured(criterion, sequence.cnn1d) == measured(criterion, sequence.cnn1d)


def one_layer() -> Example:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    return Example(model, torch.randn(4, 3), torch.tensor([0, 1, 0, 1]), nn.CrossEntropyLoss())


MACS = {"weight": 6.0, "bias": 2.0}


@pytest.mark.parametrize(
    ("criterion", "options", "message"),
    [
        pytest.param(
            "fischer",
            {},
            "cannot measure importance: unknown criterion 'fischer': expected one of fisher, "
            "magnitude, gradient-norm, taylor, loss-reduction, tinytrain, contribution, random; "
            "the nearest names are fisher",
            id="unknown-criterion",
        ),
        pytest.param(
            "fisher",
            {"samples": 0},
            "cannot measure importance: 0 calibration samples: expected at least one",
            id="no-samples",
        ),
        pytest.param(
            "contribution",
            {"samples": -2, "steps": 0, "learning_rate": float("nan")},
            "cannot measure importance: 3 problems\n"
            "  - -2 calibration samples: expected at least one\n"
            "  - a learning rate of nan: expected a number greater than 0\n"
            "  - 0 steps: expected at least one",
            id="all-at-once",
        ),
        pytest.param(
            "tinytrain",
            {},
            "cannot measure importance: the multiply-accumulates of the parameters go with "
            "tinytrain, and only so",
            id="tinytrain-without-macs",
        ),
        pytest.param(
            "fisher",
            {"macs": MACS},
            "cannot measure importance: the multiply-accumulates of the parameters go with "
            "tinytrain, and only so",
            id="macs-without-tinytrain",
        ),
        pytest.param(
            "tinytrain",
            {"macs": {"weight": 0.0, "other": 3.0}},
            "tinytrain cannot use the multiply-accumulates: 3 problems\n"
            "  - the model has no parameter other\n"
            "  - weight has 0.0, expected a number greater than 0\n"
            "  - bias has none, expected a number greater than 0",
            id="wrong-macs",
        ),
    ],
)
def test_what_cannot_be_measured_is_said(
    criterion: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        measure_importance(one_layer(), criterion, **{"samples": 4, "seed": 0, **options})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("weight", "criterion"),
    [(float("nan"), "fisher"), (float("inf"), "magnitude"), (float("nan"), "contribution")],
)
def test_scores_that_are_not_finite_are_refused(weight: float, criterion: str) -> None:
    broken = one_layer()
    with torch.no_grad():
        broken.model.weight[0, 0] = weight
    refused(broken, criterion, TrainingError, r"importance by \w+ is not finite: .*weight has")


def test_a_model_without_parameters_is_refused() -> None:
    empty = Example(nn.Flatten(), torch.randn(2, 3), torch.tensor([0, 1]), nn.CrossEntropyLoss())
    refused(empty, "fisher", ExportError, "the loss does not depend on any parameter")


def refused(example: Example, criterion: str, kind: type[EdgetuneError], message: str) -> None:
    with pytest.raises(kind) as caught:
        measure_importance(example, criterion, 4, 0)
    assert re.match(message, str(caught.value), re.DOTALL)
