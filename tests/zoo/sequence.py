"""Sequence, audio and motion networks with random weights.

Each factory returns (model, (inputs, targets), loss) for a batch of 4.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

Example = tuple[nn.Module, tuple[Tensor, Tensor], nn.Module]
"""A model, its sample batch (inputs float32, targets [4] int64) and its loss."""


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Random numbers from `seed` inside, the caller's generator untouched outside."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def settle(model: nn.Module, inputs: Tensor) -> nn.Module:
    """Give each BatchNorm a random affine and the statistics of `inputs`; return it in eval."""
    norms = [m for m in model.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.1)
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(inputs)
    for norm in norms:
        norm.momentum = 0.1
    return model.eval()


class RecurrentClassifier(nn.Module):
    """One recurrent layer of 32 units; the last state decides."""

    def __init__(self, cell: Literal["lstm", "gru"]) -> None:
        super().__init__()
        layer = nn.LSTM if cell == "lstm" else nn.GRU
        self.rnn = layer(input_size=8, hidden_size=32, batch_first=True)
        self.head = nn.Linear(32, 5)

    def forward(self, steps: Tensor) -> Tensor:
        """Steps [N, T, 8] to logits [N, 5]."""
        states, _ = self.rnn(steps)
        logits: Tensor = self.head(states[:, -1])
        return logits


class AudioCNN(nn.Module):
    """Three convolutions over a log-mel spectrogram."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
        )
        self.head = nn.Linear(64, 8)

    def forward(self, spectrograms: Tensor) -> Tensor:
        """Spectrograms [N, 1, mels, frames] to logits [N, 8]."""
        x = self.features(spectrograms)
        logits: Tensor = self.head(x.mean(dim=3).amax(dim=2))
        return logits


class CNN1d(nn.Module):
    """Three strided 1-D convolutions over windows of acceleration and rotation."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv1d(6, 32, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm1d(32),
            nn.ReLU(),
            nn.Conv1d(32, 32, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm1d(32),
            nn.ReLU(),
            nn.Conv1d(32, 64, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm1d(64),
            nn.ReLU(),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(64, 5)

    def forward(self, windows: Tensor) -> Tensor:
        """Windows [N, 6, 100] to logits [N, 5]."""
        logits: Tensor = self.head(self.features(windows))
        return logits


def _recurrent(cell: Literal["lstm", "gru"]) -> Example:
    with seeded():
        model = RecurrentClassifier(cell)
        return (
            model.eval(),
            (torch.randn(4, 16, 8), torch.randint(5, (4,))),
            nn.CrossEntropyLoss(),
        )


def lstm_classifier() -> Example:
    """LSTM over sequences [4, 16, 8], five classes."""
    return _recurrent("lstm")


def gru_classifier() -> Example:
    """GRU over sequences [4, 16, 8], five classes."""
    return _recurrent("gru")


def audio_cnn() -> Example:
    """CNN over log-mel-like spectrograms [4, 1, 40, 64], eight classes."""
    with seeded():
        model = settle(AudioCNN(), torch.randn(16, 1, 40, 64))
        spectrograms = torch.randn(4, 1, 40, 64).square().add(1e-3).log()
        return model, (spectrograms, torch.randint(8, (4,))), nn.CrossEntropyLoss()


def cnn1d() -> Example:
    """CNN over motion windows [4, 6, 100], five classes."""
    with seeded():
        model = settle(CNN1d(), torch.randn(16, 6, 100))
        return model, (torch.randn(4, 6, 100), torch.randint(5, (4,))), nn.CrossEntropyLoss()
