"""Loads what a user names as `file.py:factory` or `package.module:factory`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from edgetune.errors import UsageError
from edgetune.user_code import call_factory
from edgetune_exporters.losses import Loss

TARGETS = "targets"


@dataclass(frozen=True)
class Example:
    """What a factory gives: a model, a sample batch and a loss.

    inputs: a tensor, a tuple (positional) or a dict (keywords) of tensors, batch first.
    targets: a tensor, batch first.
    """

    model: nn.Module
    inputs: Any
    targets: Tensor
    loss: Loss

    def leaves(self) -> list[Tensor]:
        """The input tensors, in the order of the model's named inputs."""
        leaves: list[Tensor] = pytree.tree_leaves(self.inputs)
        return leaves


def load_example(name: str) -> Example:
    """Call the factory called `name`. Raises UsageError saying what it should have returned."""
    return example_from(call_factory(name), name)


def example_from(result: Any, name: str = "the factory") -> Example:
    """An Example from `(model, (inputs, targets), loss)`."""
    expected = f"{name} must return (model, (inputs, targets), loss)"
    if not isinstance(result, tuple) or len(result) != 3:
        raise UsageError(f"{expected}: it returned {_kind(result)}")
    model, sample, loss = result
    if not isinstance(model, nn.Module):
        raise UsageError(f"{expected}: the model is {_kind(model)}, not a torch.nn.Module")
    if not isinstance(sample, tuple) or len(sample) != 2:
        raise UsageError(f"{expected}: the sample batch is {_kind(sample)}, not a pair")
    inputs, targets = sample
    if not isinstance(targets, Tensor) or targets.dim() == 0:
        raise UsageError(f"{expected}: the targets are {_kind(targets)}, not a batch tensor")
    if not callable(loss):
        raise UsageError(f"{expected}: the loss is {_kind(loss)}, not callable")
    return Example(model, inputs, targets, loss)


def first_samples(example: Example, count: int) -> Example:
    """The example with exactly `count` samples: its first ones, repeated when it has fewer."""
    return take_rows(example, [index % len(example.targets) for index in range(count)])


def take_rows(example: Example, rows: list[int]) -> Example:
    """The example with the samples at `rows`."""
    inputs = pytree.tree_map_only(Tensor, lambda tensor: tensor[rows], example.inputs)
    return Example(example.model, inputs, example.targets[rows], example.loss)


def draw_rows(available: int, samples: int, seed: int) -> list[int]:
    """Row numbers of `samples` of the `available` samples, or of all, ascending."""
    if samples >= available:
        return list(range(available))
    generator = torch.Generator().manual_seed(seed)
    return sorted(torch.randperm(available, generator=generator)[:samples].tolist())


def _kind(value: Any) -> str:
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return f"a {type(value).__name__}"
