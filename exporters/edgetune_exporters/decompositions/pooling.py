"""Pooling that inference runtimes lack, and gradients of pooling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgetune_exporters.decompositions.convolutions import convolution, per_axis
from edgetune_exporters.decompositions.resampling import separable


def max_pool2d_backward(
    grad: Tensor,
    data: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    indices: Tensor,
) -> Tensor:
    """Every gradient goes to the position its window's maximum came from."""
    planes = data.shape[0] * data.shape[1]
    area = data.shape[2] * data.shape[3]
    zeros = torch.zeros([planes, area], dtype=grad.dtype, device=grad.device)
    scattered = zeros.scatter_add(1, indices.reshape(planes, -1), grad.reshape(planes, -1))
    return scattered.reshape(data.shape)


def avg_pool2d_backward(
    grad: Tensor,
    data: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    """Spread every gradient over its window: a transposed convolution with a constant kernel."""
    kernel = per_axis(kernel, 2)
    stride = per_axis(stride, 2) if stride else kernel
    padding = per_axis(padding, 2)
    if ceil_mode or (any(padding) and not count_include_pad):
        raise NotImplementedError(
            "the gradient of avg_pool2d with ceil_mode or without counting its padding"
        )
    extra = [
        size - ((out - 1) * s - 2 * p + k)
        for size, out, s, p, k in zip(
            data.shape[2:], grad.shape[2:], stride, padding, kernel, strict=True
        )
    ]
    share = 1.0 / (divisor_override or kernel[0] * kernel[1])
    window = torch.full([1, 1, *kernel], share, dtype=grad.dtype, device=grad.device)
    planes = grad.reshape(-1, 1, *grad.shape[2:])
    spread = convolution(planes, window, stride, padding, [1, 1], 1, extra)
    return spread.reshape(data.shape)


def adaptive_avg_pool2d(data: Tensor, output_size: Sequence[int]) -> Tensor:
    """(N, C, H, W) -> (N, C, *output_size) as two products with averaging matrices."""
    rows = _averaging(data.shape[-2], output_size[0], data)
    columns = _averaging(data.shape[-1], output_size[1], data)
    return separable(data, rows, columns)


def adaptive_avg_pool2d_backward(grad: Tensor, data: Tensor) -> Tensor:
    """The transposed products of `adaptive_avg_pool2d`."""
    rows = _averaging(data.shape[-2], grad.shape[-2], data)
    columns = _averaging(data.shape[-1], grad.shape[-1], data)
    return separable(grad, rows.t(), columns.t())


def _averaging(size: int, out: int, like: Tensor) -> Tensor:
    """(out, size): row i averages the i-th window of adaptive pooling."""
    i = torch.arange(out, device=like.device)[:, None]
    j = torch.arange(size, device=like.device)[None, :]
    start, end = (i * size) // out, -((-(i + 1) * size) // out)
    inside = ((j >= start) & (j < end)).to(like.dtype)
    return inside / (end - start).to(like.dtype)
