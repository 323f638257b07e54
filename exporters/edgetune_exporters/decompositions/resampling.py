"""Nearest and bilinear resampling, and their gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (the name every PyTorch reader expects)


def upsample_nearest2d(
    data: Tensor,
    output_size: Sequence[int],
    scale_h: float | None = None,
    scale_w: float | None = None,
) -> Tensor:
    """Nearest-neighbour upsampling by whole factors, as repetition of rows and columns."""
    by_h, by_w = _whole_factors(data, output_size)
    n, c, h, w = data.shape
    spread = data.reshape(n, c, h, 1, w, 1).expand(n, c, h, by_h, w, by_w)
    return spread.reshape(n, c, h * by_h, w * by_w)


def upsample_nearest2d_backward(
    grad: Tensor,
    output_size: Sequence[int],
    input_size: Sequence[int],
    scale_h: float | None = None,
    scale_w: float | None = None,
) -> Tensor:
    """Sum the gradients of each repeated row and column."""
    n, c, h, w = input_size
    return grad.reshape(n, c, h, output_size[0] // h, w, output_size[1] // w).sum([3, 5])


def _whole_factors(data: Tensor, output_size: Sequence[int]) -> tuple[int, int]:
    h, w = data.shape[-2:]
    if output_size[0] % h or output_size[1] % w:
        raise NotImplementedError(
            f"nearest upsampling from {(h, w)} to {tuple(output_size)}: only by whole factors"
        )
    return output_size[0] // h, output_size[1] // w


def upsample_bilinear2d(
    data: Tensor,
    output_size: Sequence[int],
    align_corners: bool,
    scale_h: float | None = None,
    scale_w: float | None = None,
) -> Tensor:
    """Bilinear resampling as two products with interpolation matrices."""
    rows = _interpolation(data.shape[-2], output_size[0], align_corners, scale_h, data)
    columns = _interpolation(data.shape[-1], output_size[1], align_corners, scale_w, data)
    return separable(data, rows, columns)


def upsample_bilinear2d_backward(
    grad: Tensor,
    output_size: Sequence[int],
    input_size: Sequence[int],
    align_corners: bool,
    scale_h: float | None = None,
    scale_w: float | None = None,
) -> Tensor:
    """The transposed products of `upsample_bilinear2d`."""
    rows = _interpolation(input_size[-2], output_size[0], align_corners, scale_h, grad)
    columns = _interpolation(input_size[-1], output_size[1], align_corners, scale_w, grad)
    return separable(grad, rows.t(), columns.t())


def _interpolation(
    size: int, out: int, align_corners: bool, scale: float | None, like: Tensor
) -> Tensor:
    """(out, size) linear interpolation weights, with PyTorch's rule for where samples lie."""
    position = torch.arange(out, device=like.device).to(like.dtype)
    if align_corners:
        position = position * ((size - 1) / (out - 1) if out > 1 else 0.0)
    else:
        step = 1.0 / scale if scale else size / out
        position = ((position + 0.5) * step - 0.5).clamp(min=0)
    j = torch.arange(size, device=like.device).to(like.dtype)
    position = position.clamp(max=float(size - 1))
    return F.relu(1 - (position[:, None] - j[None, :]).abs())


def separable(data: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """rows @ plane @ columns.T for every plane of (N, C, H, W)."""
    planes = data.reshape(-1, *data.shape[-2:])
    count = planes.shape[0]
    left = torch.bmm(rows.expand(count, *rows.shape), planes)
    flat = torch.mm(left.reshape(-1, left.shape[-1]), columns.t())
    return flat.reshape(*data.shape[:-2], rows.shape[0], columns.shape[0])
