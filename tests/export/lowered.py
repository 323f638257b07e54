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
    """One loss per sample whose gradient with respect to the output is `targets`."""
    output = outputs[0] if isinstance(outputs, tuple) else outputs
    return (output * targets).reshape(len(targets), -1).sum(1)


class Operator(nn.Module):
    """`function(x, *others)` of x = data + a parameter, so that its gradient is seen."""

    def __init__(self, function: Callable[..., Any], shape: tuple[int, ...]) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(0.1 * torch.randn(shape))

    def forward(self, data: Tensor, *others: Tensor) -> Any:
        return self.function(data + self.weight, *others)


def check_step(model: nn.Module, inputs: tuple[Tensor, ...], tolerance: float = 1e-5) -> DenseStep:
    """Assert that outputs and every gradient of the lowered step are those of PyTorch."""
    with torch.no_grad():
        expected = model(*inputs)
    first = expected[0] if isinstance(expected, tuple) else expected
    targets = torch.randn(first.shape, generator=torch.Generator().manual_seed(1))
    step = dense_step(Example(model, inputs, targets, weighted_sum), len(targets))
    found = run_step(step)
    for name, output in zip(step.graph.outputs, _leaves(expected), strict=True):
        assert found[name].dtype == output.numpy().dtype
        assert found[name].shape == tuple(output.shape)
        np.testing.assert_allclose(found[name], output.numpy(), rtol=tolerance, atol=tolerance)
    assert step.graph.gradients, "the loss depends on no parameter"
    parameters = dict(model.named_parameters())
    with quiet():
        total = weighted_sum(model(*inputs), targets).sum()
        gradients = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    for name, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            np.testing.assert_allclose(
                found[f"gradient:{name}"], gradient.numpy(), rtol=tolerance, atol=tolerance
            )
    return step


def _leaves(outputs: Any) -> tuple[Tensor, ...]:
    return tuple(outputs) if isinstance(outputs, tuple) else (outputs,)
