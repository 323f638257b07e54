"""The formulas: what each criterion sums over a tensor and over its slices.

Notation: w a parameter, g its gradient of the mean loss of the calibration samples, g_n that of
sample n's own loss, dw its change by one optimizer step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from math import inf

import torch
from torch import Tensor, nn

from edgetune.errors import UsageError, raise_all
from edgetune.nouns.optimizer import Optimizer
from edgetune_exporters.importance.calibration import Calibration
from edgetune_exporters.importance.scores import TensorScores
from edgetune_exporters.reference import torch_optimizer

Scores = dict[str, TensorScores]


def fisher(calibration: Calibration) -> Scores:
    """Trace of the empirical Fisher information: mean over n of g_n^2, summed.

    The Fisher information of Kwon et al., TinyTrain, ICML 2024 (arXiv 2307.09988, task-adaptive
    sparse update) is the same mean of squares taken of the gradient by a gate on each activation
    channel; taken of the weights it exists for every tensor, not only for those with an activation
    of their own, and is additive over the slices of either axis.
    """
    return {name: summed(value) for name, value in calibration.squared_gradients().items()}


def tinytrain(calibration: Calibration, macs: Mapping[str, float]) -> Scores:
    """F / ((P / max P) * (M / max M)) with F of `fisher`, P parameters and M multiply-accumulates.

    The multi-objective criterion of Kwon et al., TinyTrain, ICML 2024 (arXiv 2307.09988), per
    tensor instead of per layer. A share keeps the denominator of its tensor: the order of a layer's
    channels is that of F alone. macs: by parameter name, of every tensor that the loss depends on,
    greater than 0. Raises UsageError listing every other.
    """
    found = fisher(calibration)
    unknown = [name for name in macs if name not in calibration.model.parameters]
    wrong = [name for name in found if not 0 < macs.get(name, 0.0) < inf]
    problems = [f"the model has no parameter {name}" for name in unknown] + [
        f"{name} has {macs.get(name, 'none')}, expected a number greater than 0" for name in wrong
    ]
    raise_all(UsageError, "tinytrain cannot use the multiply-accumulates", problems)
    sizes = {name: calibration.model.parameters[name].numel() for name in found}
    largest, most = max(sizes.values()), max(macs[name] for name in found)
    return {
        name: scores.scaled_to(scores.whole / (sizes[name] / largest * (macs[name] / most)))
        for name, scores in found.items()
    }


def magnitude(calibration: Calibration) -> Scores:
    """Summed |w|: Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017.

    The L1 norm, because it is additive as the planner's objective is.
    """
    return _of_weight_and_gradient(calibration, lambda w, g: w.abs())


def squared_gradient_norm(calibration: Calibration) -> Scores:
    """Summed g^2: its root is the L2 norm of the gradient, of a tensor or of any slices."""
    return _of_weight_and_gradient(calibration, lambda w, g: g.square())


def taylor(calibration: Calibration) -> Scores:
    """Summed |w * g|, the first-order change of the loss if each scalar were removed.

    The first-order importance of Molchanov et al., Importance Estimation for Neural Network
    Pruning, CVPR 2019, without its square, which is monotone for one scalar, so that scalars add up
    in units of the loss.
    """
    return _of_weight_and_gradient(calibration, lambda w, g: (w * g).abs())


def loss_reduction(calibration: Calibration, optimizer: Optimizer, learning_rate: float) -> Scores:
    """Summed -g * dw: the first-order drop of the loss by the first step of `optimizer`.

    Huang et al., ElasticTrainer, MobiSys 2023 (arXiv 2312.14227), with g before the step: their
    code (github.com/pittisl/ElasticTrainer, `compute_dw` in train.py) takes it after a step of all
    tensors at once, so its scores depend on what else is trained. For plain SGD
    it is learning_rate * g^2, for AdamW learning_rate * |g| where epsilon does not matter; with
    weight decay it can be negative.
    """

    def drop(w: Tensor, g: Tensor) -> Tensor:
        moved = nn.Parameter(w.clone())
        moved.grad = g.clone()
        torch_optimizer(optimizer, [moved], learning_rate).step()
        return -g * (moved.detach() - w)

    return _of_weight_and_gradient(calibration, drop)


def contribution(
    calibration: Calibration, optimizer: Optimizer, learning_rate: float, steps: int
) -> dict[str, float]:
    """Drop of the mean loss when each tensor alone is trained for `steps` steps, by name."""
    initial = calibration.model.parameters
    before = calibration.mean_loss(initial)
    drops = {}
    for name, first in calibration.gradients(initial).items():  # alike for all tensors
        trained = nn.Parameter(initial[name].clone())
        update = torch_optimizer(optimizer, [trained], learning_rate)
        gradient = first
        for step in range(steps):
            values = {**initial, name: trained.detach()}
            if step > 0:
                gradient = calibration.gradients(values, [name])[name]
            trained.grad = gradient
            update.step()
        drops[name] = before - calibration.mean_loss({**initial, name: trained.detach()})
    return drops


def random_scores(calibration: Calibration, seed: int) -> Scores:
    """A uniform number in [0, 1) per tensor, spread over its slices at random.

    Seeded by `seed` and the name, so that it does not depend on what other tensors there are.
    """
    found = {}
    for name in calibration.gradients(calibration.model.parameters):
        digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        score = float(torch.rand((), generator=generator, dtype=torch.float64))
        shape = calibration.model.parameters[name].shape
        found[name] = summed(torch.rand(shape, generator=generator)).scaled_to(score)
    return found


def summed(elements: Tensor) -> TensorScores:
    """A statistic per scalar, summed over the tensor and over the slices of its first two axes."""
    elements = elements.double()
    by_axis = []
    for axis in range(min(elements.dim(), 2)):
        others = [other for other in range(elements.dim()) if other != axis]
        by_axis.append(tuple((elements.sum(others) if others else elements).tolist()))
    return TensorScores(float(elements.sum()), tuple(by_axis))


def _of_weight_and_gradient(
    calibration: Calibration, statistic: Callable[[Tensor, Tensor], Tensor]
) -> Scores:
    """`statistic` of (w, g) in float64, so that a small step is not lost in a large weight."""
    parameters = calibration.model.parameters
    return {
        name: summed(statistic(parameters[name].double(), gradient.double()))
        for name, gradient in calibration.gradients(parameters).items()
    }
