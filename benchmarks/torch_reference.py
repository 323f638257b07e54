"""The comparison side: a plain PyTorch trainer that knows nothing of edgetune.

The model stays in eval mode throughout (dropout off, BatchNorm statistics frozen). The order of
the samples is part of the contract, so that another trainer can walk the same path: epoch `e` of
a run with seed `s` visits `Generator(PCG64([s, e])).permutation(n)` in consecutive batches, and
the last batch is as small as it turns out, its loss a mean over its true size.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Arrays:
    """Samples in memory: every array has the sample as its first axis."""

    inputs: Mapping[str, NDArray[np.generic]]
    """By the name of the model's forward argument."""
    targets: NDArray[np.generic]

    def __len__(self) -> int:
        return len(self.targets)

    def batch(self, rows: NDArray[np.int64]) -> tuple[dict[str, Tensor], Tensor]:
        """The given rows as tensors."""
        inputs = {name: torch.from_numpy(array[rows]) for name, array in self.inputs.items()}
        return inputs, torch.from_numpy(self.targets[rows])


@dataclass(frozen=True)
class AdamW:
    """AdamW as in torch.optim, one group."""

    learning_rate: float
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8


@dataclass(frozen=True)
class SGD:
    """SGD as in torch.optim, one group; weight decay is added to the gradient."""

    learning_rate: float
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """Everything about a run that is neither model nor data."""

    optimizer: AdamW | SGD
    epochs: int
    batch_size: int
    seed: int = 0
    schedule: Literal["constant", "cosine"] = "constant"


@dataclass(frozen=True)
class Outcome:
    """What a run gave."""

    state: dict[str, Tensor]
    """The whole state dict after the last step."""
    losses: list[float]
    """One mean loss per step, before the step's update."""
    step_seconds: list[float]
    test_accuracy: float


def load(path: Path) -> Arrays:
    """Read an .npz whose keys are the model's input names and `targets`."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    targets = arrays.pop("targets")
    return Arrays(arrays, targets)


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """A copy in eval whose BatchNorms are folded into the convolutions before them.

    Names stay; folded convolutions get a bias. Training it is not the same as training the model
    with frozen BatchNorm: the values are equal, the gradients are scaled differently.
    """
    folded: nn.Module = fuse(model.eval())
    return folded


def sample_order(samples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order in which an epoch (counted from 0) visits the samples."""
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(samples)


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """The rate of step `step` of `steps` (counted from 0); cosine ends just above zero."""
    base = recipe.optimizer.learning_rate
    if recipe.schedule == "constant":
        return base
    return base * 0.5 * (1.0 + math.cos(math.pi * step / steps))


def train(
    model: nn.Module,
    loss: Loss,
    trainable: Collection[str],
    data: Arrays,
    test: Arrays,
    recipe: Recipe,
) -> Outcome:
    """Train the parameters named in `trainable` in place; all others stay as they are.

    Inputs go to the model by name; its outputs are [N, ...] and, for the accuracy, [N, classes].
    """
    optimizer = _optimizer(recipe.optimizer, _only(model, trainable))
    batches = math.ceil(len(data) / recipe.batch_size)
    steps = recipe.epochs * batches
    losses: list[float] = []
    seconds: list[float] = []
    model.eval()
    for epoch in range(recipe.epochs):
        order = sample_order(len(data), recipe.seed, epoch)
        for start in range(0, len(data), recipe.batch_size):
            began = time.perf_counter()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe, len(losses), steps)
            inputs, targets = data.batch(order[start : start + recipe.batch_size])
            value = loss(model(**inputs), targets)
            optimizer.zero_grad()
            torch.autograd.backward(value)
            optimizer.step()
            losses.append(value.item())
            seconds.append(time.perf_counter() - began)
    return Outcome(dict(model.state_dict()), losses, seconds, accuracy(model, test))


@torch.no_grad()
def accuracy(model: nn.Module, test: Arrays, batch_size: int = 64) -> float:
    """The share of samples whose largest logit [N, classes] is the target's."""
    model.eval()
    correct = 0
    for start in range(0, len(test), batch_size):
        rows = np.arange(start, min(start + batch_size, len(test)))
        inputs, targets = test.batch(rows)
        correct += int((model(**inputs).argmax(dim=1) == targets).sum())
    return correct / len(test)


def _only(model: nn.Module, trainable: Collection[str]) -> list[nn.Parameter]:
    """Freeze every parameter but the named ones, which are returned in the model's order."""
    parameters = dict(model.named_parameters())
    unknown = sorted(set(trainable) - set(parameters))
    if unknown or not trainable:
        raise ValueError(f"no parameters to train with these names: {unknown}")
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in trainable)
    return [parameters[name] for name in parameters if name in trainable]


def _optimizer(spec: AdamW | SGD, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    if isinstance(spec, AdamW):
        return torch.optim.AdamW(
            parameters,
            lr=spec.learning_rate,
            betas=spec.betas,
            eps=spec.eps,
            weight_decay=spec.weight_decay,
        )
    return torch.optim.SGD(
        parameters,
        lr=spec.learning_rate,
        momentum=spec.momentum,
        nesterov=spec.nesterov,
        weight_decay=spec.weight_decay,
    )
