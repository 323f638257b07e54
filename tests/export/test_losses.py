"""Losses per sample: what the graphs and the host compute together is PyTorch's own mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from edgetune_exporters.dense_step import dense_step
from edgetune_exporters.factory import Example
from edgetune_exporters.losses import ResolvedLoss, prediction, resolve_loss
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from edgetune.errors import ExportError
from tests.export.lowered import run_step

BATCH, CLASSES = 4, 5


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2


def labels(*shape: int) -> Tensor:
    return torch.randint(CLASSES, shape, generator=torch.Generator().manual_seed(1))


def binary(*shape: int) -> Tensor:
    return (rand(*shape, seed=2) > 0).float()


def with_ignored(targets: Tensor, value: int) -> Tensor:
    ignored = targets.clone()
    ignored.view(-1)[::3] = value
    return ignored


def edgetune_loss(
    loss: ResolvedLoss, output: Tensor, targets: Tensor, weights: Tensor | None = None
) -> Tensor:
    """The batch loss as the graphs and the host compute it."""
    weights = torch.ones(len(targets)) if weights is None else weights
    normalizer = loss.spec.normalizer(targets.numpy(), weights.numpy())
    return (loss.per_sample(output, targets) * weights / normalizer).sum()


WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 0.1, 3.0])
PROBABILITIES = torch.softmax(rand(BATCH, CLASSES, seed=3), 1)
MAPS = torch.softmax(rand(BATCH, CLASSES, 3, seed=3), 1)
POSITIONS = (BATCH, CLASSES, 3, 2)
CASES = [
    pytest.param(nn.CrossEntropyLoss(), (BATCH, CLASSES), labels(BATCH), id="cross-entropy"),
    pytest.param(
        nn.CrossEntropyLoss(weight=WEIGHTS), (BATCH, CLASSES), labels(BATCH), id="class-weights"
    ),
    pytest.param(
        nn.CrossEntropyLoss(label_smoothing=0.1), (BATCH, CLASSES), labels(BATCH), id="smoothing"
    ),
    pytest.param(
        nn.CrossEntropyLoss(weight=WEIGHTS, label_smoothing=0.2),
        (BATCH, CLASSES),
        labels(BATCH),
        id="class-weights-smoothing",
    ),
    pytest.param(
        nn.CrossEntropyLoss(),
        (BATCH, CLASSES),
        with_ignored(labels(BATCH), -100),
        id="default-ignore-index",
    ),
    pytest.param(
        nn.CrossEntropyLoss(ignore_index=2, weight=WEIGHTS, label_smoothing=0.1),
        POSITIONS,
        with_ignored(labels(BATCH, 3, 2), 2),
        id="ignore-index-weights-smoothing-positions",
    ),
    pytest.param(nn.CrossEntropyLoss(), POSITIONS, labels(BATCH, 3, 2), id="positions"),
    pytest.param(nn.CrossEntropyLoss(), (BATCH, CLASSES), PROBABILITIES, id="probabilities"),
    pytest.param(
        nn.CrossEntropyLoss(weight=WEIGHTS, label_smoothing=0.1),
        (BATCH, CLASSES),
        PROBABILITIES,
        id="probabilities-weights-smoothing",
    ),
    pytest.param(nn.CrossEntropyLoss(), (BATCH, CLASSES, 3), MAPS, id="probabilities-positions"),
    pytest.param(nn.MSELoss(), (BATCH, 3), rand(BATCH, 3, seed=4), id="mse"),
    pytest.param(nn.MSELoss(), (BATCH,), rand(BATCH, seed=4), id="mse-one-value"),
    pytest.param(nn.MSELoss(), (BATCH, 3, 2), rand(BATCH, 3, 2, seed=4), id="mse-maps"),
    pytest.param(nn.L1Loss(), (BATCH, 3), rand(BATCH, 3, seed=4), id="l1"),
    pytest.param(nn.HuberLoss(), (BATCH, 3), rand(BATCH, 3, seed=4), id="huber"),
    pytest.param(nn.HuberLoss(delta=0.3), (BATCH, 3), rand(BATCH, 3, seed=4), id="huber-delta"),
    pytest.param(nn.SmoothL1Loss(), (BATCH, 3), rand(BATCH, 3, seed=4), id="smooth-l1"),
    pytest.param(
        nn.SmoothL1Loss(beta=0.5), (BATCH, 3), rand(BATCH, 3, seed=4), id="smooth-l1-beta"
    ),
    pytest.param(
        nn.SmoothL1Loss(beta=0.0), (BATCH, 3), rand(BATCH, 3, seed=4), id="smooth-l1-beta-zero"
    ),
    pytest.param(nn.BCEWithLogitsLoss(), (BATCH, 3), binary(BATCH, 3), id="bce"),
    pytest.param(nn.BCEWithLogitsLoss(), (BATCH,), binary(BATCH), id="bce-one-value"),
    pytest.param(
        nn.BCEWithLogitsLoss(weight=torch.tensor([0.5, 1.0, 2.0])),
        (BATCH, 3),
        binary(BATCH, 3),
        id="bce-weight",
    ),
    pytest.param(
        nn.BCEWithLogitsLoss(pos_weight=torch.tensor([0.5, 1.0, 4.0])),
        (BATCH, 3),
        binary(BATCH, 3),
        id="bce-pos-weight",
    ),
]


@pytest.mark.parametrize(("loss", "shape", "targets"), CASES)
def test_value_and_gradient_are_those_of_torch_mean(
    loss: nn.Module, shape: tuple[int, ...], targets: Tensor
) -> None:
    output = rand(*shape).requires_grad_()
    expected = loss(output, targets)
    found = edgetune_loss(resolve_loss(loss, output, targets), output, targets)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        torch.autograd.grad(found, output)[0],
        torch.autograd.grad(expected, output)[0],
        rtol=1e-5,
        atol=1e-7,
    )


@pytest.mark.parametrize(("loss", "shape", "targets"), CASES)
def test_exported_loss_and_gradient_are_those_of_torch_mean(
    loss: nn.Module, shape: tuple[int, ...], targets: Tensor
) -> None:
    model = Shift(rand(*shape))
    inputs = rand(*shape, seed=5)
    step = dense_step(Example(model, inputs, targets, loss), BATCH)
    expected = loss(model(inputs), targets)
    normalizer = step.loss.spec.normalizer(targets.numpy(), np.ones(BATCH, np.float32))
    found = run_step(step, np.full(BATCH, 1 / normalizer, np.float32))
    gradient = torch.autograd.grad(expected, model.shift)[0]
    assert found["loss"] == pytest.approx(expected.item(), rel=1e-5)
    np.testing.assert_allclose(found["gradient:shift"], gradient, rtol=1e-4, atol=1e-6)


class Shift(nn.Module):
    """Predicts its input plus one trainable value per element."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.shift = nn.Parameter(start.clone())

    def forward(self, data: Tensor) -> Tensor:
        return data + self.shift


@pytest.mark.parametrize(
    ("loss", "terms"),
    [
        pytest.param(
            nn.CrossEntropyLoss(weight=WEIGHTS),
            lambda o, t: F.cross_entropy(o, t, WEIGHTS, reduction="none"),
            id="cross-entropy",
        ),
        pytest.param(nn.MSELoss(), lambda o, t: ((o - t) ** 2).mean(1), id="mse"),
    ],
)
def test_sample_weights_scale_both_the_loss_and_what_divides_it(
    loss: nn.Module, terms: Callable[[Tensor, Tensor], Tensor]
) -> None:
    output = rand(BATCH, CLASSES)
    classes = isinstance(loss, nn.CrossEntropyLoss)
    targets = labels(BATCH) if classes else rand(BATCH, CLASSES, seed=4)
    weights = torch.tensor([1.0, 0.0, 2.0, 0.5])
    per_target = WEIGHTS[targets] if classes else torch.ones(BATCH)
    expected = (terms(output, targets) * weights).sum() / (per_target * weights).sum()
    found = edgetune_loss(resolve_loss(loss, output, targets), output, targets, weights)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("loss", "shape", "targets"), CASES)
def test_micro_batches_and_padded_rows_sum_to_the_whole_batch(
    loss: nn.Module, shape: tuple[int, ...], targets: Tensor
) -> None:
    output = rand(*shape)
    resolved = resolve_loss(loss, output, targets)
    normalizer = resolved.spec.normalizer(targets.numpy(), np.ones(BATCH))
    total = torch.zeros(())
    for rows, scale in (([0, 1, 2], [1.0, 1.0, 1.0]), ([3, 3, 3], [1.0, 0.0, 0.0])):
        terms = resolved.per_sample(output[rows], targets[rows])
        total = total + (terms * torch.tensor(scale) / normalizer).sum()
    torch.testing.assert_close(total, loss(output, targets), rtol=1e-5, atol=1e-6)


def test_correct_counts_right_predictions_and_leaves_out_ignored_ones() -> None:
    output = F.one_hot(torch.tensor([0, 1, 2, 3]), CLASSES).float()
    targets = torch.tensor([0, 1, 0, -100])
    resolved = resolve_loss(nn.CrossEntropyLoss(), output, targets)
    assert resolved.correct is not None
    assert resolved.correct(output, targets).tolist() == [1, 1, 0, 0]
    assert resolved.spec.counted(targets.numpy()) == 3


def test_correct_of_binary_cross_entropy_counts_elements() -> None:
    output, targets = torch.tensor([[1.0, -1.0], [2.0, 3.0]]), torch.tensor([[1.0, 0.0], [0, 1.0]])
    resolved = resolve_loss(nn.BCEWithLogitsLoss(), output, targets)
    assert resolved.correct is not None
    assert resolved.correct(output, targets).tolist() == [2, 1]


def test_losses_without_a_right_answer_count_nothing() -> None:
    assert resolve_loss(nn.MSELoss(), rand(BATCH, 2), rand(BATCH, 2)).correct is None


@pytest.mark.parametrize("scale", [0.0, 1.0, -1.0, 30.0, -30.0, 200.0, -200.0])
def test_exported_binary_cross_entropy_is_finite_and_exact(scale: float) -> None:
    inputs = torch.full((2, 2), scale)
    targets = torch.tensor([[0.0, 1.0], [1.0, 0.5]])
    model = Shift(torch.zeros(2, 2))
    step = dense_step(Example(model, inputs, targets, nn.BCEWithLogitsLoss()), 2)
    found = run_step(step, np.full(2, 0.25, np.float32))
    expected = nn.BCEWithLogitsLoss()(model(inputs), targets)
    gradient = torch.autograd.grad(expected, model.shift)[0].numpy()
    assert np.isfinite(found["loss"])
    assert found["loss"] == pytest.approx(expected.item(), rel=1e-6, abs=1e-30)
    np.testing.assert_allclose(found["gradient:shift"], gradient, rtol=1e-5, atol=1e-9)


def test_a_callable_may_return_one_loss_per_sample() -> None:
    output, targets = rand(BATCH, CLASSES), labels(BATCH)

    def focal(logits: Tensor, targets: Tensor) -> Tensor:
        nll = F.cross_entropy(logits, targets, reduction="none")
        return (1 - torch.exp(-nll)) ** 2 * nll

    found = edgetune_loss(resolve_loss(focal, output, targets), output, targets)
    torch.testing.assert_close(found, focal(output, targets).mean())


def test_an_exported_callable_may_hold_tensors() -> None:
    def weighted(output: Tensor, targets: Tensor) -> Tensor:
        return ((output - targets) ** 2 * WEIGHTS).sum(1)

    model, inputs, targets = Shift(rand(2, CLASSES)), rand(2, CLASSES, seed=5), rand(2, CLASSES)
    found = run_step(dense_step(Example(model, inputs, targets, weighted), 2))
    expected = weighted(model(inputs), targets).sum()
    assert found["loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_a_callable_may_return_the_mean_over_samples() -> None:
    output, targets = rand(BATCH, CLASSES), labels(BATCH)

    def mean(logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits, targets)

    resolved = resolve_loss(mean, output, targets)
    alone = torch.stack([mean(output[i : i + 1], targets[i : i + 1]) for i in range(BATCH)])
    torch.testing.assert_close(resolved.per_sample(output, targets), alone)
    torch.testing.assert_close(edgetune_loss(resolved, output, targets), mean(output, targets))


def summed(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits, targets, reduction="sum")


def spread(logits: Tensor, targets: Tensor) -> Tensor:
    return (logits - logits.mean(0)).square().mean()


def reads_a_value(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.mean() if bool(logits.sum() > -1e9) else logits.sum()


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        pytest.param(summed, "a scalar that is not the mean over samples", id="sum"),
        pytest.param(spread, "a scalar that is not the mean over samples", id="across-samples"),
        pytest.param(reads_a_value, "cannot be taken sample by sample", id="reads-a-value"),
        pytest.param(lambda o, t: o, r"returned \(4, 5\): expected one loss per", id="matrix"),
        pytest.param(lambda o, t: 1.0, "returned float: expected one loss per", id="number"),
        pytest.param(
            nn.CrossEntropyLoss(reduction="sum"),
            "CrossEntropyLoss has reduction='sum': edgetune trains on the mean",
            id="reduction-sum",
        ),
        pytest.param(nn.MSELoss(reduction="none"), "reduction='none'", id="reduction-none"),
        pytest.param(nn.MSELoss(), r"shape \(4, 5\), found \(4,\)", id="mse-shapes"),
        pytest.param(nn.BCEWithLogitsLoss(), r"shape \(4, 5\), found \(4,\)", id="bce-shapes"),
    ],
)
def test_a_loss_that_is_no_mean_over_samples_is_refused(loss: Any, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        resolve_loss(loss, rand(BATCH, CLASSES), labels(BATCH))


@pytest.mark.parametrize(
    ("output", "targets", "message"),
    [
        pytest.param(rand(BATCH), labels(BATCH), r"found \(4,\) and \(4,\)", id="no-classes"),
        pytest.param(
            rand(BATCH, CLASSES), labels(BATCH, 1), r"found \(4, 5\) and \(4, 1\)", id="column"
        ),
        pytest.param(
            rand(BATCH, CLASSES), rand(BATCH, 3), "class probabilities takes", id="probabilities"
        ),
        pytest.param(rand(BATCH, CLASSES), {"y": labels(BATCH)}, "one tensor of", id="mapping"),
    ],
)
def test_cross_entropy_refuses_targets_that_do_not_fit(
    output: Tensor, targets: Any, message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        resolve_loss(nn.CrossEntropyLoss(), output, targets)


@pytest.mark.parametrize(
    "outputs",
    [
        pytest.param(torch.ones(2), id="tensor"),
        pytest.param((torch.ones(2), torch.zeros(2)), id="tuple"),
        pytest.param({"hidden": torch.zeros(2), "logits": torch.ones(2)}, id="logits"),
        pytest.param({"first": torch.ones(2), "second": torch.zeros(2)}, id="mapping"),
        pytest.param(([torch.ones(2)], torch.zeros(2)), id="nested"),
    ],
)
def test_the_prediction_is_found_in_a_models_outputs(outputs: Any) -> None:
    assert prediction(outputs).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("outputs", [pytest.param((), id="empty"), pytest.param(3.0, id="number")])
def test_outputs_without_a_tensor_are_refused(outputs: Any) -> None:
    with pytest.raises(ExportError, match=r"the model returns a .*: expected a tensor"):
        prediction(outputs)
