"""Axes are reordered as seldom as can be, and of a product's operands the smaller ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from edgetune_exporters.dense_step import dense_step
from edgetune_exporters.factory import Example
from torch import Tensor, nn

from tests.export.lowered import run_step, weighted_sum


class Function(nn.Module):
    """`function` of the data times a parameter."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.factor = nn.Parameter(torch.tensor(1.5))

    def forward(self, data: Tensor) -> Tensor:
        return self.function(data * self.factor)


def twice_read(data: Tensor) -> Tensor:
    turned = data.transpose(1, 2)
    return turned.permute(0, 2, 3, 1) + turned.exp().permute(0, 2, 3, 1)


@pytest.mark.parametrize(
    ("function", "shape", "expected"),
    [
        pytest.param(
            lambda x: x.transpose(1, 2).transpose(2, 1), (3, 2, 4), 0, id="there-and-back"
        ),
        pytest.param(
            lambda x: x.permute(0, 3, 1, 2).permute(0, -2, -1, 1), (3, 2, 4, 5), 0, id="round"
        ),
        # One forward, one backward.
        pytest.param(
            lambda x: x.transpose(1, 2).transpose(2, 3), (3, 2, 4, 5), 2, id="two-at-once"
        ),
        # The result in between is needed too: it is one of two in the forward.
        pytest.param(twice_read, (3, 2, 4, 5), 5, id="read-in-between"),
    ],
)
def test_axes_are_reordered_at_once_or_not_at_all(
    function: Callable[[Tensor], Tensor], shape: tuple[int, ...], expected: int
) -> None:
    assert len(turned(function, shape)) == expected


@pytest.mark.parametrize(
    ("rows", "columns", "expected"),
    [
        pytest.param(2, 6, [(3, 6, 2)], id="the-left"),
        pytest.param(6, 1, [(3, 6, 1), (3, 1, 6)], id="the-right-and-the-result"),
    ],
)
def test_of_a_product_the_smaller_operands_are_turned(
    rows: int, columns: int, expected: list[tuple[int, ...]]
) -> None:
    """expected: shapes of what is turned in the forward."""
    other = torch.randn(3, 6, columns, generator=torch.Generator().manual_seed(2))

    def product(data: Tensor) -> Tensor:
        return torch.bmm(data.reshape(3, 6, rows).transpose(1, 2), other)

    shapes = turned(product, (3, 6 * rows))
    assert shapes[: len(expected)] == expected


def turned(function: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Shapes of what a step transposes, in order; its gradient is compared with autograd's."""
    data = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    targets = torch.randn(3, 64, generator=torch.Generator().manual_seed(1))
    model = Function(function)
    step = dense_step(Example(model, data, targets, weighted_sum), 3)
    weighted_sum(model(data), targets).sum().backward()
    assert model.factor.grad is not None
    found = run_step(step)["gradient:factor"]
    np.testing.assert_allclose(found, model.factor.grad, rtol=1e-4)
    nodes = [node for node in step.lowered.model.graph.node if node.op_type == "Transpose"]
    return [step.lowered.types[node.input[0]][1] for node in nodes]
