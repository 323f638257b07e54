"""A small CNN whose step takes several times what its process holds at rest: for guard_truth.py."""

from __future__ import annotations

import torch
from torch import Tensor, nn

BATCH, SIDE, CLASSES = 32, 48, 4


class Guarded(nn.Module):
    """(batch, 3, 48, 48) to 4 classes; all of its activations are kept for the backward."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1, stride=2),
            nn.ReLU(),
        )
        self.head = nn.Linear(16, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        features: Tensor = self.body(images)
        logits: Tensor = self.head(features.mean(dim=(2, 3)))
        return logits


def factory() -> tuple[nn.Module, tuple[Tensor, Tensor], nn.Module]:
    """The model with random weights, one batch, and its loss."""
    torch.manual_seed(0)
    images, targets = torch.rand(BATCH, 3, SIDE, SIDE), torch.arange(BATCH) % CLASSES
    return Guarded(), (images, targets), nn.CrossEntropyLoss()
