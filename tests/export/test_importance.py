"""Fisher information against a loop over samples on the module itself."""

from __future__ import annotations

import pytest
import torch
from edgetune_exporters.factory import Example
from edgetune_exporters.importance import fisher_information
from torch import nn

from tests.zoo.mlp import multi_label, regression


def by_hand(example: Example, samples: int) -> dict[str, float]:
    totals = {name: 0.0 for name, _ in example.model.named_parameters()}
    for row in range(samples):
        example.model.zero_grad()
        inputs, targets = example.inputs[row : row + 1], example.targets[row : row + 1]
        example.loss(example.model(inputs), targets).backward()
        for name, parameter in example.model.named_parameters():
            if parameter.grad is not None:
                totals[name] += float((parameter.grad.double() ** 2).sum())
    return {name: total / samples for name, total in totals.items()}


def classification(loss: nn.Module) -> Example:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    return Example(model, torch.randn(6, 1, 4, 4), torch.tensor([0, 1, 2, 0, 1, 1]), loss)


WEIGHTS = torch.tensor([0.5, 2.0, 1.0])
EXAMPLES = [
    pytest.param(classification(nn.CrossEntropyLoss()), id="cross-entropy"),
    pytest.param(classification(nn.CrossEntropyLoss(WEIGHTS)), id="class-weights"),
    pytest.param(Example(*regression()[:1], *regression()[1], regression()[2]), id="mse"),
    pytest.param(Example(*multi_label()[:1], *multi_label()[1], multi_label()[2]), id="bce"),
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_it_is_the_mean_squared_gradient_of_single_samples(example: Example) -> None:
    found = fisher_information(example, len(example.targets))
    assert found == pytest.approx(by_hand(example, len(example.targets)), rel=1e-4, abs=1e-12)


def test_only_the_first_samples_count() -> None:
    example = classification(nn.CrossEntropyLoss())
    assert fisher_information(example, 2) == pytest.approx(by_hand(example, 2), rel=1e-4)
    assert fisher_information(example, 2) != pytest.approx(by_hand(example, 6), rel=1e-4)


def test_more_samples_than_there_are_means_all_of_them() -> None:
    example = classification(nn.CrossEntropyLoss())
    assert fisher_information(example, 100) == fisher_information(example, 6)


def test_an_ignored_sample_says_nothing() -> None:
    example = classification(nn.CrossEntropyLoss())
    targets = torch.tensor([0, -100, 2])
    ignoring = Example(example.model, example.inputs[:3], targets, example.loss)
    kept = Example(example.model, example.inputs[[0, 2]], targets[[0, 2]], example.loss)
    found = fisher_information(ignoring, 3)
    assert all(score == score for score in found.values())
    expected = {name: score * 2 / 3 for name, score in fisher_information(kept, 2).items()}
    assert found == pytest.approx(expected, rel=1e-4)


def test_what_the_loss_does_not_depend_on_has_no_score() -> None:
    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.used(data), self.unused(data)

    torch.manual_seed(0)
    example = Example(TwoHeads(), torch.randn(2, 3), torch.tensor([0, 1]), nn.CrossEntropyLoss())
    assert set(fisher_information(example, 2)) == {"used.weight", "used.bias"}


def test_the_model_keeps_no_gradients() -> None:
    example = classification(nn.CrossEntropyLoss())
    fisher_information(example, 2)
    assert all(parameter.grad is None for parameter in example.model.parameters())
