"""Tiny perceptrons with random weights, for losses other than cross entropy.

Each factory returns (model, (inputs, targets), loss) for a batch of 4.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

Example = tuple[nn.Module, tuple[Tensor, Tensor], nn.Module]
"""A model, its sample batch (features [4, F], targets [4, outputs], both float32), its loss."""


class MLP(nn.Module):
    """Two hidden layers of 16 units."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(features, 16)
        self.fc2 = nn.Linear(16, 16)
        self.head = nn.Linear(16, outputs)

    def forward(self, features: Tensor) -> Tensor:
        """Features [N, F] to outputs [N, outputs]."""
        x = torch.relu(self.fc1(features))
        x = torch.tanh(self.fc2(x))
        outputs: Tensor = self.head(x)
        return outputs


def regression() -> Example:
    """Two targets from five features, mean squared error."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MLP(5, 2)
        return model.eval(), (torch.randn(4, 5), torch.randn(4, 2)), nn.MSELoss()


def multi_label() -> Example:
    """Six labels that do not exclude each other, from eight features."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MLP(8, 6)
        targets = (torch.rand(4, 6) < 0.3).float()
        return model.eval(), (torch.randn(4, 8), targets), nn.BCEWithLogitsLoss()
