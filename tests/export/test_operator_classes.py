"""Which rate of a device each convolution of a step runs at, backward included."""

from __future__ import annotations

import pytest
import torch
from edgetune_exporters.dense_step import dense_step
from edgetune_exporters.factory import Example
from torch import nn


@pytest.mark.parametrize(
    ("layer", "found"),
    [
        pytest.param(nn.Conv2d(8, 8, 3, padding=1), {"convolution"}, id="dense"),
        pytest.param(
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
            {"convolution", "depthwise"},
            id="depthwise-and-the-gradient-of-its-weight",
        ),
        pytest.param(nn.Conv2d(8, 8, 3, padding=1, groups=2), {"convolution"}, id="grouped"),
        pytest.param(nn.Conv2d(8, 8, 1), {"convolution", "pointwise"}, id="pointwise"),
    ],
)
def test_convolutions_are_told_apart_by_what_they_cost(layer: nn.Module, found: set[str]) -> None:
    torch.manual_seed(0)
    head = (nn.Flatten(), nn.Linear(8 * 36, 2))
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), layer, *head).eval()
    example = Example(model, torch.randn(2, 3, 6, 6), torch.tensor([0, 1]), nn.CrossEntropyLoss())
    operations = dense_step(example, 2).graph.operations
    others = {"view", "elementwise", "matmul", "transpose"}
    assert {o.operator_class for o in operations} - others == found
    # Of one channel in or out per group there are the forward, and each of its gradients.
    depthwise = [o for o in operations if o.operator_class == "depthwise"]
    assert len(depthwise) == (3 if "depthwise" in found else 0)
    # Each has a group per channel of each of the two samples.
    assert {o.groups for o in depthwise} == ({2 * 8} if depthwise else set())
    assert {o.groups for o in operations if o not in depthwise} == {0}
