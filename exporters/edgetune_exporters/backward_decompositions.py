"""Backward operators in terms of forward ones, so that an inference runtime can execute them.

PyTorch differentiates; its own decompositions reduce most backward operators to arithmetic. What
remains is written here on tensors, where it can be checked against autograd without any ONNX.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions, get_decompositions
from torch.nn import functional as F  # noqa: N812  (the name every PyTorch reader expects)

aten = torch.ops.aten
Decomposition = Callable[..., Any]


def _convolution(
    data: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    transposed_with: Sequence[int] | None = None,
) -> Tensor:
    """A convolution without a bias; transposed when its output padding is given."""
    transposed, extra = transposed_with is not None, transposed_with or [0] * len(stride)
    result: Tensor = aten.convolution(
        data, weight, None, stride, padding, dilation, transposed, extra, groups
    )
    return result


# Operators that PyTorch counts as core and can still write in simpler ones.
_NOT_CORE = (
    aten.native_batch_norm,
    aten._native_batch_norm_legit,
    aten._native_batch_norm_legit_no_training,
    aten.linalg_vector_norm,
)


def decompositions() -> dict[Any, Decomposition]:
    """PyTorch's core ATen decompositions, and ours over them."""
    table: dict[Any, Decomposition] = dict(core_aten_decompositions())
    kept_whole = (aten.upsample_bilinear2d.vec, aten.upsample_nearest2d.vec)
    for operator in kept_whole:
        table.pop(operator, None)
    return {
        **table,
        **get_decompositions(_NOT_CORE),
        aten.convolution_backward.default: convolution_backward,
        aten.max_pool2d_with_indices_backward.default: max_pool2d_backward,
        aten.avg_pool2d_backward.default: avg_pool2d_backward,
        aten._adaptive_avg_pool2d.default: adaptive_avg_pool2d,
        aten._adaptive_avg_pool2d_backward.default: adaptive_avg_pool2d_backward,
        aten.native_group_norm.default: native_group_norm,
        aten.unfold.default: unfold,
        aten.embedding_dense_backward.default: embedding_dense_backward,
        aten.slice_backward.default: slice_backward,
        aten.select_backward.default: select_backward,
        aten.upsample_nearest2d.default: upsample_nearest2d,
        aten.upsample_nearest2d_backward.default: upsample_nearest2d_backward,
        aten.upsample_bilinear2d.default: upsample_bilinear2d,
        aten.upsample_bilinear2d_backward.default: upsample_bilinear2d_backward,
    }


def convolution_backward(
    grad: Tensor,
    input: Tensor,  # noqa: A002  (ATen's own name)
    weight: Tensor,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of a convolution: of its input, its weight and its bias.

    The weight gradient of a pointwise convolution is a matrix product; any other is a convolution
    of the input with the output gradient as its kernel, batch and channels swapped and stride and
    dilation exchanged. The input gradient is a convolution with the flipped kernel at stride 1
    (with a frozen weight a constant), else a transposed convolution.
    """
    axes = [0, *range(2, grad.dim())]
    spatial = grad.dim() - 2
    stride, padding, dilation = (_per_axis(v, spatial) for v in (stride, padding, dilation))
    of_input = of_weight = None
    if transposed:
        if output_mask[0]:
            of_input = _convolution(grad, weight, stride, padding, dilation, groups)
        if output_mask[1]:  # a transposed convolution is the input gradient of a plain one
            of_weight = _weight_gradient(input, grad, weight, stride, padding, dilation, groups)
    else:
        if output_mask[0]:
            of_input = _input_gradient(grad, input, weight, stride, padding, dilation, groups)
        if output_mask[1]:
            of_weight = _weight_gradient(grad, input, weight, stride, padding, dilation, groups)
    of_bias = grad.sum(axes) if output_mask[2] else None
    return of_input, of_weight, of_bias


def _per_axis(values: Sequence[int], count: int) -> list[int]:
    return list(values) * count if len(values) == 1 else list(values)


def _input_gradient(
    grad: Tensor,
    data: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    kernel = list(weight.shape[2:])
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    mirrored = [r - p for r, p in zip(reach, padding, strict=True)]
    if all(s == 1 for s in stride) and min(mirrored) >= 0:
        flipped = _swap_channels(weight, groups)
        if any(k > 1 for k in kernel):
            flipped = flipped.flip(list(range(2, weight.dim())))
        return _convolution(grad, flipped, stride, mirrored, dilation, groups)
    extra = [
        size - ((out - 1) * s - 2 * p + r + 1)
        for size, out, s, p, r in zip(
            data.shape[2:], grad.shape[2:], stride, padding, reach, strict=True
        )
    ]
    return _convolution(grad, weight, stride, padding, dilation, groups, extra)


def _swap_channels(weight: Tensor, groups: int) -> Tensor:
    """(groups * out, in, ...) -> (groups * in, out, ...)."""
    if groups == 1:
        return weight.transpose(0, 1)
    if weight.shape[1] == 1 and weight.shape[0] == groups:
        return weight
    grouped = weight.reshape(groups, -1, *weight.shape[1:]).transpose(1, 2)
    return grouped.reshape(-1, grouped.shape[2], *weight.shape[2:])


def _weight_gradient(
    grad: Tensor,
    data: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    pointwise = all(k == 1 for k in weight.shape[2:])
    if pointwise and groups == 1 and set(stride) == {1} and set(padding) == {0}:
        return _pointwise_weight_gradient(grad, data).reshape(weight.shape)
    # (N, G*c, ...) -> (c, G*N, ...): what was summed over (the batch) becomes the channels.
    batch, spatial = data.shape[0], list(range(2, data.dim()))
    shifted = [axis + 1 for axis in spatial]
    per_group = data.reshape(batch, groups, -1, *data.shape[2:])
    signal = per_group.permute(2, 1, 0, *shifted).reshape(
        per_group.shape[2], groups * batch, *data.shape[2:]
    )
    kernel = grad.transpose(0, 1)
    result = _convolution(signal, kernel, dilation, padding, stride, groups)
    for axis in spatial:  # a stride that did not divide leaves positions beyond the kernel
        result = result.narrow(axis, 0, weight.shape[axis])
    return result.transpose(0, 1).reshape(weight.shape)


def _pointwise_weight_gradient(grad: Tensor, data: Tensor) -> Tensor:
    """(N, O, ...) and (N, I, ...) -> (O, I)."""
    flat_grad, flat_data = grad.flatten(2), data.flatten(2)
    batch, out, positions = flat_grad.shape
    if out * data.shape[1] <= positions * (out + data.shape[1]):
        # One product per sample, summed: its copies are smaller than transposing both operands.
        return torch.bmm(flat_grad, flat_data.transpose(1, 2)).sum(0)
    columns = flat_grad.transpose(0, 1).reshape(out, batch * positions)
    rows = flat_data.transpose(1, 2).reshape(batch * positions, -1)
    return torch.mm(columns, rows)


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
    kernel = _per_axis(kernel, 2)
    stride = _per_axis(stride, 2) if stride else kernel
    padding = _per_axis(padding, 2)
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
    spread = _convolution(planes, window, stride, padding, [1, 1], 1, extra)
    return spread.reshape(data.shape)


def adaptive_avg_pool2d(data: Tensor, output_size: Sequence[int]) -> Tensor:
    """(N, C, H, W) -> (N, C, *output_size) as two products with averaging matrices."""
    rows = _averaging(data.shape[-2], output_size[0], data)
    columns = _averaging(data.shape[-1], output_size[1], data)
    return _separable(data, rows, columns)


def adaptive_avg_pool2d_backward(grad: Tensor, data: Tensor) -> Tensor:
    """The transposed products of `adaptive_avg_pool2d`."""
    rows = _averaging(data.shape[-2], grad.shape[-2], data)
    columns = _averaging(data.shape[-1], grad.shape[-1], data)
    return _separable(grad, rows.t(), columns.t())


def _averaging(size: int, out: int, like: Tensor) -> Tensor:
    """(out, size): row i averages the i-th window of adaptive pooling."""
    i = torch.arange(out, device=like.device)[:, None]
    j = torch.arange(size, device=like.device)[None, :]
    start, end = (i * size) // out, -((-(i + 1) * size) // out)
    inside = ((j >= start) & (j < end)).to(like.dtype)
    return inside / (end - start).to(like.dtype)


def _separable(data: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """rows @ plane @ columns.T for every plane of (N, C, H, W)."""
    planes = data.reshape(-1, *data.shape[-2:])
    count = planes.shape[0]
    left = torch.bmm(rows.expand(count, *rows.shape), planes)
    flat = torch.mm(left.reshape(-1, left.shape[-1]), columns.t())
    return flat.reshape(*data.shape[:-2], rows.shape[0], columns.shape[0])


def native_group_norm(
    data: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    batch: int,
    channels: int,
    area: int,
    groups: int,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised values, and mean and inverse deviation of every group (PyTorch's has strides)."""
    grouped = data.reshape(batch, groups, -1)
    variance, mean = torch.var_mean(grouped, 2, correction=0, keepdim=True)
    inverse = torch.rsqrt(variance + epsilon)
    result = ((grouped - mean) * inverse).reshape(data.shape)
    shape = [1, channels] + [1] * (data.dim() - 2)
    if weight is not None:
        result = result * weight.reshape(shape)
    if bias is not None:
        result = result + bias.reshape(shape)
    return result, mean.squeeze(2), inverse.squeeze(2)


def unfold(data: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Windows of `dimension` on a new last axis."""
    dimension = dimension % data.dim()
    count = (data.shape[dimension] - size) // step + 1
    starts = torch.arange(count, device=data.device)[:, None] * step
    positions = (starts + torch.arange(size, device=data.device)).reshape(-1)
    shape = [*data.shape[:dimension], count, size, *data.shape[dimension + 1 :]]
    windows: Tensor = data.index_select(dimension, positions).reshape(shape)
    return windows.movedim(dimension + 1, -1)


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
    return _separable(data, rows, columns)


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
    return _separable(grad, rows.t(), columns.t())


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
