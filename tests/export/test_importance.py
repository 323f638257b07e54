"""Each criterion against PyTorch's autograd on the module itself, tensor by tensor and by slice."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from edgetune_exporters.capture import CapturedModel
from edgetune_exporters.factory import Example, example_from
from edgetune_exporters.importance import Importance, measure_importance
from edgetune_exporters.importance.measure import CHUNK
from edgetune_exporters.reference import torch_optimizer
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from edgetune.nouns.candidate import Share
from edgetune.nouns.criterion import CRITERIA
from edgetune.nouns.optimizer import Optimizer
from tests.zoo.mlp import multi_label, regression

LEARNING_RATE = 1e-3
SAMPLES = 2 * CHUNK + 3  # the last chunk is not full


def classification(loss: nn.Module, samples: int = SAMPLES) -> Example:
    """A convolution with BatchNorm before a linear layer."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    norm.running_mean, norm.running_var = torch.randn(4), torch.rand(4) + 0.5
    model = nn.Sequential(nn.Conv2d(2, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    inputs, targets = torch.randn(samples, 2, 4, 4), torch.arange(samples) % 3
    return Example(model.eval(), inputs, targets, loss)


def without_batch_norm(example: Example) -> Example:
    """The same function, folded by PyTorch's own helper; the parameters keep their names."""
    if not isinstance(example.model, nn.Sequential):
        return example
    convolution, norm, *rest = example.model
    assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    folded = nn.Sequential(fuse_conv_bn_eval(convolution, norm), nn.Identity(), *rest)
    return Example(folded, example.inputs, example.targets, example.loss)


def gradients(example: Example, rows: slice = slice(None)) -> dict[str, Tensor]:
    by_name = dict(example.model.named_parameters())
    loss = example.loss(example.model(example.inputs[rows]), example.targets[rows])
    found = torch.autograd.grad(loss, list(by_name.values()))
    return {name: gradient.double() for name, gradient in zip(by_name, found, strict=True)}


def weights(example: Example) -> dict[str, Tensor]:
    return {name: p.detach().double() for name, p in example.model.named_parameters()}


def fisher(example: Example) -> dict[str, Tensor]:
    singles = [gradients(example, slice(n, n + 1)) for n in range(len(example.targets))]
    return {n: torch.stack([each[n] for each in singles]).square().mean(0) for n in singles[0]}


def magnitude(example: Example) -> dict[str, Tensor]:
    return {name: weight.abs() for name, weight in weights(example).items()}


def gradient_square(example: Example) -> dict[str, Tensor]:
    return {name: gradient**2 for name, gradient in gradients(example).items()}


def taylor(example: Example) -> dict[str, Tensor]:
    slopes = gradients(example)
    return {n: (w * slopes[n]).abs() for n, w in weights(example).items()}


def adamw_loss_reduction(example: Example) -> dict[str, Tensor]:
    """The first step of Adam is learning rate * sign(g), but for epsilon."""
    return {n: LEARNING_RATE * g**2 / (g.abs() + 1e-8) for n, g in gradients(example).items()}


BY_HAND: dict[str, Callable[[Example], dict[str, Tensor]]] = {
    "fisher": fisher,
    "magnitude": magnitude,
    "gradient-norm": gradient_square,
    "taylor": taylor,
    "loss-reduction": adamw_loss_reduction,
}
EXAMPLES = [
    pytest.param(classification(nn.CrossEntropyLoss()), id="cnn-with-batch-norm"),
    pytest.param(
        classification(nn.CrossEntropyLoss(torch.tensor([0.5, 2.0, 1.0]))), id="class-weights"
    ),
    pytest.param(example_from(regression()), id="mlp-mse"),
    pytest.param(example_from(multi_label()), id="mlp-bce"),
]


@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.parametrize("criterion", BY_HAND)
def test_it_is_the_formula_for_each_tensor_and_each_slice(criterion: str, example: Example) -> None:
    importance = measure_importance(example, criterion, SAMPLES, seed=0)
    expected = BY_HAND[criterion](without_batch_norm(example))
    assert list(importance.tensors) == list(expected)
    root = 0.5 if criterion == "gradient-norm" else 1.0
    for name, elements in expected.items():
        assert importance.score(name) == close(float(elements.sum()) ** root)
        for axis in range(min(elements.dim(), 2)):
            slices = elements.transpose(0, axis).flatten(1) if elements.dim() > 1 else elements
            for index, values in enumerate(slices):
                found = importance.score(name, Share(axis, (index,)))
                assert found == close(float(values.sum()) ** root)


def close(expected: float) -> object:
    return pytest.approx(expected, rel=1e-3, abs=1e-9)


@pytest.mark.parametrize(
    "optimizer",
    [
        pytest.param(Optimizer("sgd"), id="sgd"),
        pytest.param(Optimizer("sgd-momentum"), id="momentum"),
        pytest.param(Optimizer("sgd-nesterov", momentum=0.5), id="nesterov"),
        pytest.param(Optimizer("adamw"), id="adamw"),
        pytest.param(Optimizer("adamw", weight_decay=0.5), id="weight-decay"),
    ],
)
def test_loss_reduction_is_the_gradient_times_the_step_of_the_optimizer(
    optimizer: Optimizer,
) -> None:
    example = classification(nn.CrossEntropyLoss())
    importance = measure_importance(
        example, "loss-reduction", SAMPLES, 0, optimizer=optimizer, learning_rate=0.01
    )
    model = copy.deepcopy(without_batch_norm(example).model).double()
    by_name = dict(model.named_parameters())
    before = {name: p.detach().clone() for name, p in by_name.items()}
    slopes = gradients(Example(model, example.inputs.double(), example.targets, example.loss))
    for name, parameter in by_name.items():
        parameter.grad = slopes[name].clone()
    torch_optimizer(optimizer, list(by_name.values()), 0.01).step()
    expected = {n: float((slopes[n] * (before[n] - p.detach())).sum()) for n, p in by_name.items()}
    assert importance.whole() == pytest.approx(expected, rel=1e-4)


def test_loss_reduction_of_plain_sgd_is_the_learning_rate_times_the_squared_gradient() -> None:
    example = classification(nn.CrossEntropyLoss())
    importance = measure_importance(
        example, "loss-reduction", SAMPLES, 0, optimizer=Optimizer("sgd"), learning_rate=1e-6
    )
    norms = measure_importance(example, "gradient-norm", SAMPLES, 0).whole()
    assert importance.whole() == pytest.approx({n: 1e-6 * g**2 for n, g in norms.items()})


def test_tinytrain_divides_fisher_by_normalised_parameters_and_macs() -> None:
    example = classification(nn.CrossEntropyLoss())
    macs = {"0.weight": 288.0, "0.bias": 16.0, "4.weight": 48.0, "4.bias": 3.0}
    importance = measure_importance(example, "tinytrain", SAMPLES, 0, macs=macs)
    found = measure_importance(example, "fisher", SAMPLES, 0)
    sizes = {"0.weight": 72, "0.bias": 4, "4.weight": 48, "4.bias": 3}
    for name, size in sizes.items():
        denominator = (size / 72) * (macs[name] / 288)
        assert importance.score(name) == pytest.approx(found.score(name) / denominator)
        first = Share(0, (0,))
        expected = found.score(name, first) / denominator
        assert importance.score(name, first) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_contribution_is_the_measured_drop_of_the_loss(kind: str) -> None:
    example = classification(nn.CrossEntropyLoss())
    importance = measure_importance(
        example, "contribution", SAMPLES, 0, optimizer=Optimizer(kind), learning_rate=0.02, steps=4
    )
    for name in importance.tensors:
        model = copy.deepcopy(without_batch_norm(example).model)
        trained = dict(model.named_parameters())[name]
        optimizer = torch_optimizer(Optimizer(kind), [trained], 0.02)
        losses = []
        for _ in range(5):
            loss = example.loss(model(example.inputs), example.targets)
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert importance.score(name) == pytest.approx(losses[0] - losses[4], rel=1e-3, abs=1e-6)


def test_the_slices_of_a_contribution_are_in_proportion_to_fisher() -> None:
    example = classification(nn.CrossEntropyLoss())
    found = measure_importance(example, "contribution", SAMPLES, 0)
    shares = measure_importance(example, "fisher", SAMPLES, 0)
    for axis, indices in ((0, (1,)), (0, (0, 3)), (1, (1,))):
        share = Share(axis, indices)
        proportion = shares.score("0.weight", share) / shares.score("0.weight")
        expected = found.score("0.weight") * proportion
        assert found.score("0.weight", share) == pytest.approx(expected)


def test_random_depends_on_the_name_and_the_seed_and_on_no_other_tensor() -> None:
    def importance(model: nn.Module, seed: int) -> Importance:
        example = Example(model, torch.randn(3, 6), torch.tensor([0, 1, 2]), nn.CrossEntropyLoss())
        return measure_importance(example, "random", 3, seed)

    torch.manual_seed(0)
    small = importance(nn.Sequential(nn.Linear(6, 3)), 5)
    large = importance(nn.Sequential(nn.Linear(6, 3), nn.ReLU(), nn.Linear(3, 3)), 5)
    assert small.tensors.items() <= large.tensors.items()
    assert importance(nn.Sequential(nn.Linear(6, 3)), 6).whole() != small.whole()
    assert all(0 <= score < 1 for score in large.whole().values())
    assert len(set(large.whole().values())) == len(large.tensors)


def test_the_samples_are_drawn_by_the_seed() -> None:
    example = classification(nn.CrossEntropyLoss())
    found = {seed: measure_importance(example, "fisher", 4, seed) for seed in range(4)}
    assert len({importance.score("0.weight") for importance in found.values()}) == 4
    assert measure_importance(example, "fisher", 4, 2) == found[2]


def test_more_samples_than_there_are_means_all_of_them() -> None:
    example = classification(nn.CrossEntropyLoss())
    expected = measure_importance(example, "fisher", SAMPLES, seed=0)
    assert measure_importance(example, "fisher", 100, seed=1) == expected


@pytest.mark.parametrize("criterion", ["fisher", "taylor"])
def test_an_ignored_sample_says_nothing(criterion: str) -> None:
    example = classification(nn.CrossEntropyLoss(), 3)
    targets = torch.tensor([0, -100, 2])
    ignoring = Example(example.model, example.inputs, targets, example.loss)
    kept = Example(example.model, example.inputs[[0, 2]], targets[[0, 2]], example.loss)
    found = measure_importance(ignoring, criterion, 3, 0).whole()
    per_kept = 2 / 3 if criterion == "fisher" else 1.0  # the batch's mean is over what counts
    expected = measure_importance(kept, criterion, 2, 0).whole()
    assert found == pytest.approx({n: s * per_kept for n, s in expected.items()}, rel=1e-4)


@pytest.mark.parametrize("criterion", ["fisher", "taylor", "contribution"])
def test_when_every_sample_is_ignored_all_scores_are_zero(criterion: str) -> None:
    example = classification(nn.CrossEntropyLoss(), 2)
    ignoring = Example(example.model, example.inputs, torch.tensor([-100, -100]), example.loss)
    assert set(measure_importance(ignoring, criterion, 2, 0).whole().values()) == {0.0}


@pytest.mark.parametrize(
    ("criterion", "runs"),
    [("fisher", 19), ("gradient-norm", 3), ("taylor", 3), ("loss-reduction", 3), ("magnitude", 1)],
)
def test_only_fisher_takes_single_samples(
    criterion: str, runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (SAMPLES, CHUNK) == (19, 8)
    seen: list[int] = []
    run = CapturedModel.run

    def counting(self: CapturedModel, tensors: Mapping[str, Tensor]) -> Any:
        if torch.is_grad_enabled():
            seen.append(1)
        return run(self, tensors)

    monkeypatch.setattr(CapturedModel, "run", counting)
    measure_importance(classification(nn.CrossEntropyLoss()), criterion, SAMPLES, 0)
    assert len(seen) == runs


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, data: Tensor) -> tuple[Tensor, Tensor]:
        return self.used(data), self.unused(data)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_what_the_loss_does_not_depend_on_has_no_score(criterion: str) -> None:
    torch.manual_seed(0)
    example = Example(TwoHeads(), torch.randn(2, 3), torch.tensor([0, 1]), nn.CrossEntropyLoss())
    macs = {"used.weight": 6.0, "used.bias": 2.0} if criterion == "tinytrain" else None
    found = measure_importance(example, criterion, 2, 0, macs=macs)
    assert set(found.tensors) == {"used.weight", "used.bias"}


@pytest.mark.parametrize("criterion", ["fisher", "contribution"])
def test_the_model_is_not_changed(criterion: str) -> None:
    example = classification(nn.CrossEntropyLoss())
    before = copy.deepcopy(example.model.state_dict())
    measure_importance(example, criterion, 3, 0)
    assert all(parameter.grad is None for parameter in example.model.parameters())
    assert all(torch.equal(before[n], v) for n, v in example.model.state_dict().items())
