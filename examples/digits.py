"""A small CNN on scikit-learn's digits: the model and the data of the demo.

`factory` is what `edgetune export examples/digits.py:factory` calls. It needs no download: the
digits come with scikit-learn, and the network is trained here, in a few seconds.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor, nn

WEIGHTS = Path(os.environ.get("EDGETUNE_DEMO", "build/demo")) / "digits.pt"
SIZE = 32  # the 8x8 digits are drawn four times as large
SAMPLE = 64
_EPOCHS = 4

Images = NDArray[np.float32]
Labels = NDArray[np.int64]


class DigitsNet(nn.Module):
    """Convolutions with BatchNorm from (batch, 1, 32, 32) to 10 classes; 258,058 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _block(1, 32, stride=1),
            _block(32, 64, stride=2),
            _block(64, 128, stride=2),
            _block(128, 128, stride=2),
        )
        self.hidden = nn.Linear(128, 128)
        self.head = nn.Linear(128, 10)

    def forward(self, images: Tensor) -> Tensor:
        pooled = self.features(images).mean((2, 3))
        logits: Tensor = self.head(torch.relu(self.hidden(pooled)))
        return logits


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def digits() -> tuple[Images, Labels]:
    """All 1,797 digits as (n, 1, 32, 32) in [0, 1], and their labels, shuffled by a fixed seed."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    small = images[order].reshape(-1, 1, 8, 8).astype(np.float32) / 16
    return small.repeat(4, axis=2).repeat(4, axis=3), labels[order].astype(np.int64)


def shifted(images: Images) -> Images:
    """What the device's camera sees: moved aside, grey instead of black and white, noisy."""
    noise = np.random.default_rng(1).normal(0, 0.1, images.shape)
    return (0.2 + 0.6 * np.roll(images, (4, -4), axis=(2, 3)) + noise).astype(np.float32)


def factory() -> tuple[nn.Module, tuple[Tensor, Tensor], nn.Module]:
    """(model, (inputs, targets), loss); trains the network when its weights are not there yet.

    The sample batch is of shifted digits: importance is measured on data like the device's.
    """
    torch.manual_seed(0)
    model = DigitsNet()
    images, labels = digits()
    if WEIGHTS.exists():
        model.load_state_dict(torch.load(WEIGHTS))
    else:
        _train(model, images[:1000], labels[:1000])
        WEIGHTS.parent.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), WEIGHTS)
    sample = torch.from_numpy(shifted(images[:SAMPLE]))
    return model, (sample, torch.from_numpy(labels[:SAMPLE])), nn.CrossEntropyLoss()


def _train(model: nn.Module, images: Images, labels: Labels) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for epoch in range(_EPOCHS):
        for rows in np.array_split(np.random.default_rng(epoch).permutation(len(labels)), 32):
            loss = nn.functional.cross_entropy(
                model(torch.from_numpy(images[rows])), torch.from_numpy(labels[rows])
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
