"""Windows by index, and gradients of reading by index."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (the name every PyTorch reader expects)


def unfold(data: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Windows of `dimension` on a new last axis."""
    dimension = dimension % data.dim()
    count = (data.shape[dimension] - size) // step + 1
    starts = torch.arange(count, device=data.device)[:, None] * step
    positions = (starts + torch.arange(size, device=data.device)).reshape(-1)
    shape = [*data.shape[:dimension], count, size, *data.shape[dimension + 1 :]]
    windows: Tensor = data.index_select(dimension, positions).reshape(shape)
    return windows.movedim(dimension + 1, -1)


def embedding_dense_backward(
    grad: Tensor, indices: Tensor, num_weights: int, padding_idx: int, scale_by_freq: bool
) -> Tensor:
    """Add each position's gradient to its row."""
    if scale_by_freq:
        raise NotImplementedError("the gradient of an embedding with scale_grad_by_freq")
    width = grad.shape[-1]
    rows = grad.reshape(-1, width)
    flat = indices.reshape(-1)
    if padding_idx >= 0:
        rows = torch.where((flat == padding_idx)[:, None], 0.0, rows)
    zeros = torch.zeros([num_weights, width], dtype=grad.dtype, device=grad.device)
    return zeros.index_put([flat], rows, accumulate=True)


def slice_backward(
    grad: Tensor, input_sizes: Sequence[int], dim: int, start: int, end: int, step: int
) -> Tensor:
    """Zeros around the gradient (between its rows too, when the step is not 1)."""
    rank = len(input_sizes)
    dim = dim % rank
    size = input_sizes[dim]
    if step > 1:
        spread = F.pad(grad.unsqueeze(dim + 1), [0, 0] * (rank - dim - 1) + [0, step - 1])
        grad = spread.flatten(dim, dim + 1)
    before = start + size if start < 0 else start
    after = size - before - grad.shape[dim]
    return F.pad(grad, [0, 0] * (rank - dim - 1) + [before, after])


def select_backward(grad: Tensor, input_sizes: Sequence[int], dim: int, index: int) -> Tensor:
    """Zeros around the gradient's one row."""
    rank = len(input_sizes)
    dim, size = dim % rank, input_sizes[dim % rank]
    index = index % size
    return F.pad(grad.unsqueeze(dim), [0, 0] * (rank - dim - 1) + [index, size - index - 1])
