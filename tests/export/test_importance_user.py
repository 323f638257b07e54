"""Scores that a user gives in a JSON file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from edgetune_exporters.factory import Example
from edgetune_exporters.importance import measure_importance, user_importance
from torch import Tensor, nn

from edgetune.errors import DataError, UsageError
from edgetune.nouns.candidate import Share


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.head, self.unused = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = torch.relu(self.norm(self.conv(images))).mean((2, 3))
        return self.head(features), self.unused(features)


@pytest.fixture
def example() -> Example:
    torch.manual_seed(0)
    return Example(
        Model().eval(), torch.randn(3, 1, 5, 5), torch.tensor([0, 1, 2]), nn.CrossEntropyLoss()
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "scores.json"


def test_tensors_get_the_scores_in_the_file_and_no_others(example: Example, file: Path) -> None:
    file.write_text('{"head.bias": 2, "conv.weight": 0.5}')
    found = user_importance(example, file, 3, 0)
    assert found.criterion == "user"
    assert found.whole() == {"conv.weight": 0.5, "head.bias": 2.0}


def test_slices_are_in_proportion_to_fisher(example: Example, file: Path) -> None:
    file.write_text('{"head.weight": 8}')
    found, shares = (
        user_importance(example, file, 3, 0),
        measure_importance(example, "fisher", 3, 0),
    )
    for axis, size in ((0, 3), (1, 4)):
        for index in range(size):
            share = Share(axis, (index,))
            proportion = shares.score("head.weight", share) / shares.score("head.weight")
            assert found.score("head.weight", share) == pytest.approx(8 * proportion)
        assert found.best_indices("head.weight", axis, 2) == shares.best_indices(
            "head.weight", axis, 2
        )


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        pytest.param('{"head.bais": 1}', ["the model has no parameter head.bais"], id="unknown"),
        pytest.param(
            '{"head.bias": NaN}', ["head.bias has nan, expected a finite number"], id="nan"
        ),
        pytest.param(
            '{"head.bias": 1e999}', ["head.bias has inf, expected a finite number"], id="infinite"
        ),
        pytest.param(
            f'{{"head.bias": 1{"0" * 400}}}',
            ["head.bias has inf, expected a finite number"],
            id="beyond-a-float",
        ),
        pytest.param('{"head.bias": "2"}', ["head.bias has '2', expected a number"], id="text"),
        pytest.param('{"head.bias": true}', ["head.bias has True, expected a number"], id="truth"),
        pytest.param("{}", ["it holds no score"], id="empty"),
        pytest.param(
            '{"norm.weight": 1}',
            ["norm.weight became part of a convolution: score conv.weight and norm.bias instead"],
            id="folded",
        ),
        pytest.param(
            '{"unused.bias": 1}', ["the loss does not depend on unused.bias"], id="no-gradient"
        ),
        pytest.param(
            '{"head.bias": 1, "head.bias": 2}',
            ["head.bias stands there more than once"],
            id="twice",
        ),
        pytest.param(
            '{"zzz": 1, "conv.weight": -Infinity, "head.bias": null, "head.weight": 1}',
            [
                "3 problems",
                "  - the model has no parameter zzz",
                "  - conv.weight has -inf, expected a finite number",
                "  - head.bias has None, expected a number",
            ],
            id="all-at-once",
        ),
    ],
)
def test_everything_wrong_is_said_at_once(
    example: Example, file: Path, text: str, problems: list[str]
) -> None:
    file.write_text(text)
    with pytest.raises(DataError) as caught:
        user_importance(example, file, 3, 0)
    found = str(caught.value).partition("; the nearest names are")[0]
    assert found == f"cannot use the scores in {file}: " + "\n".join(problems)


@pytest.mark.parametrize("text", ["[1, 2]", "3", "null"])
def test_a_file_that_is_no_object_is_refused(example: Example, file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(DataError, match="are no JSON object of names and numbers"):
        user_importance(example, file, 3, 0)


def test_a_file_that_cannot_be_read_is_refused(example: Example, file: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read the scores in .*No such file"):
        user_importance(example, file, 3, 0)
    file.write_text("{")
    with pytest.raises(DataError, match=r"cannot read the scores in .*scores\.json: Expecting"):
        user_importance(example, file, 3, 0)


def test_at_least_one_sample_is_needed(example: Example, file: Path) -> None:
    with pytest.raises(UsageError, match="0 calibration samples"):
        user_importance(example, file, 0, 0)
