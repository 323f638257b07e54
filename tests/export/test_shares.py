"""Which shares of a model's parameters are offered."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from edgetune_exporters.capture import capture
from edgetune_exporters.shares import DENOMINATORS, ShareAxis, share_axes, shares_of
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from edgetune.nouns.candidate import Share


class Function(nn.Module):
    """`function(data, weight)`."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], *shape: int) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.randn(shape))

    def forward(self, data: Tensor) -> Tensor:
        return self.function(data, self.weight)


class Tied(nn.Module):
    """An embedding whose rows are the head's, too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.embedding(tokens))


class LastState(nn.Module):
    """The last state of a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(6, 4, batch_first=True)

    def forward(self, steps: Tensor) -> Tensor:
        return self.rnn(steps)[0][:, -1]


IMAGES, FEATURES = torch.randn(2, 8, 6, 6), torch.randn(2, 8)
TOKENS = torch.zeros(2, 5, dtype=torch.long)
OFFERED: dict[str, tuple[nn.Module, Tensor, list[tuple[str, int, int]]]] = {
    "linear": (nn.Linear(8, 4), FEATURES, [("out", 0, 4), ("in", 1, 8)]),
    "linear on sequences": (nn.Linear(6, 4), IMAGES, [("out", 0, 4), ("in", 1, 6)]),
    "convolution": (nn.Conv2d(8, 16, 3), IMAGES, [("out", 0, 16), ("in", 1, 8)]),
    "padding by name": (nn.Conv2d(8, 4, 3, padding="same"), IMAGES, [("out", 0, 4), ("in", 1, 8)]),
    "1-d convolution": (nn.Conv1d(8, 4, 3), IMAGES[..., 0], [("out", 0, 4), ("in", 1, 8)]),
    "3-d convolution": (nn.Conv3d(8, 4, 1), IMAGES[..., None], [("out", 0, 4), ("in", 1, 8)]),
    "grouped convolution": (nn.Conv2d(8, 16, 3, groups=4), IMAGES, [("out", 0, 16)]),
    "depthwise convolution": (nn.Conv2d(8, 8, 3, groups=8), IMAGES, [("out", 0, 8)]),
    "transposed": (nn.ConvTranspose2d(8, 6, 2), IMAGES, [("in", 0, 8), ("out", 1, 6)]),
    "grouped transposed": (nn.ConvTranspose2d(8, 6, 2, groups=2), IMAGES, [("in", 0, 8)]),
    "embedding": (nn.Embedding(20, 8), TOKENS, [("rows", 0, 20)]),
    "product": (Function(torch.matmul, 8, 4), FEATURES, [("in", 0, 8), ("out", 1, 4)]),
    "product with the transposed": (
        Function(lambda x, w: torch.mm(x, w.t()), 4, 8),
        FEATURES,
        [("out", 0, 4), ("in", 1, 8)],
    ),
}
NONE: dict[str, tuple[nn.Module, Tensor]] = {
    "normalisation": (nn.LayerNorm(8), FEATURES),
    "weight as the first factor": (Function(lambda x, w: (w @ x.t()).t(), 4, 8), FEATURES),
    "weight that is computed": (weight_norm(nn.Linear(8, 4)), FEATURES),
    "tied weight": (Tied(), TOKENS),
    "weight used twice": (Function(lambda x, w: x @ w @ w, 8, 8), FEATURES),
    "elementwise": (Function(torch.mul, 2, 8), FEATURES),
}


@pytest.mark.parametrize("name", OFFERED)
def test_axes_of_a_weight(name: str) -> None:
    model, inputs, expected = OFFERED[name]
    assert share_axes(capture(model, inputs)) == tuple(ShareAxis("weight", *e) for e in expected)


@pytest.mark.parametrize("name", NONE)
def test_no_axes_of(name: str) -> None:
    assert share_axes(capture(*NONE[name])) == ()


def test_a_recurrent_weight_has_none_and_that_of_the_input_has() -> None:
    axes = share_axes(capture(LastState(), torch.randn(2, 3, 6)))
    assert axes == (
        ShareAxis("rnn.weight_ih_l0", "out", 0, 16),
        ShareAxis("rnn.weight_ih_l0", "in", 1, 6),
    )


def first(parameter: str, axis: int, count: int) -> Sequence[int]:
    return range(count)


def test_shares_are_named_by_kind_and_part_and_rounded_down() -> None:
    shares = shares_of([ShareAxis("fc.weight", "in", 1, 19)], DENOMINATORS, first)
    assert shares == {
        "fc.weight:in/8": ("fc.weight", Share(1, (0, 1))),
        "fc.weight:in/4": ("fc.weight", Share(1, (0, 1, 2, 3))),
        "fc.weight:in/2": ("fc.weight", Share(1, tuple(range(9)))),
    }


@pytest.mark.parametrize(
    ("size", "kept"), [(1, []), (2, [2]), (3, [2]), (4, [4, 2]), (7, [4, 2]), (8, [8, 4, 2])]
)
def test_an_axis_has_at_least_as_many_slices_as_parts(size: int, kept: list[int]) -> None:
    shares = shares_of([ShareAxis("w", "out", 0, size)], DENOMINATORS, first)
    assert list(shares) == [f"w:out/{parts}" for parts in kept]


def test_the_slices_are_those_chosen() -> None:
    asked = []

    def choose(parameter: str, axis: int, count: int) -> list[int]:
        asked.append((parameter, axis, count))
        return [1, 5]

    shares = shares_of([ShareAxis("w", "rows", 0, 8)], (4,), choose)
    assert shares == {"w:rows/4": ("w", Share(0, (1, 5)))}
    assert asked == [("w", 0, 2)]
