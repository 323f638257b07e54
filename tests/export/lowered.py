"""Runs a lowered dense step in onnxruntime, next to PyTorch's autograd on the module itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from edgetune_exporters.capture import quiet
from edgetune_exporters.dense_step import DenseStep, dense_step
from edgetune_exporters.factory import Example
from torch import Tensor, nn

Arrays = dict[str, np.ndarray[Any, Any]]


def run_onnx(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> Arrays:
    """Every output of `model`, by name, for the feeds that it reads."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    wanted = {argument.name for argument in session.get_inputs()}
    names = [result.name for result in session.get_outputs()]
    results = session.run(names, {n: np.asarray(v) for n, v in feeds.items() if n in wanted})
    return dict(zip(names, results, strict=True))


def run_step(step: DenseStep, scale: np.ndarray[Any, Any] | None = None) -> Arrays:
    """Loss, outputs and gradients of the sample batch; scale 1 for every sample by default."""
    ones = np.ones(step.graph.batch, np.float32)
    return run_onnx(
        step.lowered.model,
        {**step.model.inputs, **step.targets, "scale": ones if scale is None else scale},
    )


def weighted_sum(outputs: Any, targets: Tensor) -> Tensor:
    """One loss per sample, in which every element of every floating-point output counts.

    targets: (batch, n), of which as many columns are used as an output has elements per sample.
    """
    terms = torch.zeros(len(targets))
    for output in _leaves(outputs):
        if output.is_floating_point():
            flat = output.reshape(len(targets), -1)
            terms = terms + (flat * targets[:, : flat.shape[1]]).sum(1)
    return terms


class Operator(nn.Module):
    """`function(x, *others)` of x = data + a parameter, so that its gradient is seen."""

    def __init__(self, function: Callable[..., Any], shape: tuple[int, ...]) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(0.1 * torch.randn(shape))

    def forward(self, data: Tensor, *others: Tensor) -> Any:
        return self.function(data + self.weight, *others)


class Table(nn.Module):
    """Many operators on the same data, each with a parameter of its own: one export for all."""

    def __init__(self, functions: Mapping[str, Callable[..., Any]], shape: tuple[int, ...]) -> None:
        super().__init__()
        self.operators = nn.ModuleList([Operator(f, shape) for f in functions.values()])

    def forward(self, data: Tensor, *others: Tensor) -> tuple[Any, ...]:
        return tuple(operator(data, *others) for operator in self.operators)


Pairs = list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]


def compare(model: nn.Module, inputs: tuple[Tensor, ...]) -> dict[str, Pairs]:
    """(found, expected) of every output under "output N" and of every gradient by its name."""
    targets = torch.randn((len(inputs[0]), 256), generator=torch.Generator().manual_seed(1))
    step = dense_step(Example(model, inputs, targets, weighted_sum), len(targets))
    found = run_step(step)
    expected = model(*inputs)
    parameters = dict(model.named_parameters())
    with quiet():
        total = weighted_sum(expected, targets).sum()
        gradients = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    pairs: dict[str, Pairs] = {}
    for index, (name, output) in enumerate(zip(step.graph.outputs, _leaves(expected), strict=True)):
        pairs[f"output {index}"] = [(found[name], output.detach().numpy())]
    for name, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            pairs[name] = [(found[f"gradient:{name}"], gradient.numpy())]
    return pairs


def compare_table(
    functions: Mapping[str, Callable[..., Any]], data: Tensor, *others: Tensor
) -> dict[str, Pairs]:
    """For every function (found, expected) of its outputs and of its gradient."""
    torch.manual_seed(0)
    table = Table(functions, tuple(data.shape[1:]))
    pairs = compare(table, (data, *others))
    outputs = iter([pair for name, pair in pairs.items() if name.startswith("output ")])
    result: dict[str, Pairs] = {}
    for index, (name, operator) in enumerate(zip(functions, table.operators, strict=True)):
        count = len(_leaves(operator(data, *others)))
        result[name] = [pair for _ in range(count) for pair in next(outputs)]
        result[name] += pairs.get(f"operators.{index}.weight", [])
    return result


def assert_equal(pairs: Pairs, tolerance: float = 1e-5) -> None:
    """Assert type, shape and values of every pair."""
    for found, expected in pairs:
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def _leaves(outputs: Any) -> list[Tensor]:
    if isinstance(outputs, Tensor):
        return [outputs]
    return [leaf for output in outputs for leaf in _leaves(output)]
