"""Gradients of convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

aten = torch.ops.aten

MOST_TAPS = 32
"""Of a kernel: with more of them a convolution is as fast as the patches' product."""

POSITIONS_BY_COLUMN = 64
"""Of a result, per column of a depthwise kernel but one: with fewer, groups' overheads win."""

PATCHES_BYTES = 2**23
"""Patches that are smaller are made of the whole batch at once."""


def convolution(
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

    The weight gradient of a convolution without groups is a matrix product with the patches of the
    input that its kernel meets. That of any other, or of a large kernel, is a convolution of the
    input with the output gradient as its kernel, batch and channels swapped and stride and dilation
    exchanged; of a depthwise one each channel of each sample is a group, and nothing has to be
    swapped; where images are large, each column of the kernel is a convolution of its own. The
    input gradient is a convolution with the flipped kernel at stride 1 (with a frozen weight a
    constant), else a transposed convolution; that too where the kernel to be flipped would be
    larger than the gradient.
    """
    axes = [0, *range(2, grad.dim())]
    spatial = grad.dim() - 2
    stride, padding, dilation = (per_axis(v, spatial) for v in (stride, padding, dilation))
    of_input = of_weight = None
    if transposed:
        if output_mask[0]:
            of_input = convolution(grad, weight, stride, padding, dilation, groups)
        if output_mask[1]:  # a transposed convolution is the input gradient of a plain one
            of_weight = _weight_gradient(input, grad, weight, stride, padding, dilation, groups)
    else:
        if output_mask[0]:
            of_input = _input_gradient(grad, input, weight, stride, padding, dilation, groups)
        if output_mask[1]:
            of_weight = _weight_gradient(grad, input, weight, stride, padding, dilation, groups)
    of_bias = grad.sum(axes) if output_mask[2] else None
    return of_input, of_weight, of_bias


def per_axis(values: Sequence[int], count: int) -> list[int]:
    """One value per spatial axis: ATen gives a single one for all."""
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
    is_wide = groups == 1 and prod(kernel) > 1 and weight.numel() > grad.numel()
    if all(s == 1 for s in stride) and min(mirrored) >= 0 and not is_wide:
        flipped = _swap_channels(weight, groups)
        if any(k > 1 for k in kernel):
            flipped = flipped.flip(list(range(2, weight.dim())))
        return convolution(grad, flipped, stride, mirrored, dilation, groups)
    extra = [
        size - ((out - 1) * s - 2 * p + r + 1)
        for size, out, s, p, r in zip(
            data.shape[2:], grad.shape[2:], stride, padding, reach, strict=True
        )
    ]
    return convolution(grad, weight, stride, padding, dilation, groups, extra)


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
    taps = prod(weight.shape[2:])
    if groups == 1 and taps <= MOST_TAPS:
        met = _Met(list(weight.shape[2:]), list(grad.shape[2:]), stride, padding, dilation)
        if taps == 1:
            return _pointwise_weight_gradient(grad, met.by_tap(data)[0]).reshape(weight.shape)
        return _product_with_patches(grad, data, met).reshape(weight.shape)
    axes = range(2, data.dim())
    if weight.shape[1] == 1 and groups > 1:
        is_plain = {*stride, *dilation} == {1} and len(axes) == 2
        if is_plain and prod(grad.shape[2:]) >= POSITIONS_BY_COLUMN * (weight.shape[3] - 1):
            result = _by_kernel_column(grad, data, weight.shape[3], padding)
        else:
            signal = data.reshape(1, -1, *data.shape[2:])
            kernel = grad.reshape(-1, 1, *grad.shape[2:])
            result = convolution(signal, kernel, dilation, padding, stride, signal.shape[1])
        return _as_large(result, weight, axes).reshape(len(data), *weight.shape).sum(0)
    # (N, G*c, ...) -> (c, G*N, ...): what was summed over (the batch) becomes the channels.
    batch, shifted = data.shape[0], [axis + 1 for axis in axes]
    per_group = data.reshape(batch, groups, -1, *data.shape[2:])
    signal = per_group.permute(2, 1, 0, *shifted).reshape(
        per_group.shape[2], groups * batch, *data.shape[2:]
    )
    kernel = grad.transpose(0, 1)
    result = convolution(signal, kernel, dilation, padding, stride, groups)
    return _as_large(result, weight, axes).transpose(0, 1).reshape(weight.shape)


def _as_large(result: Tensor, weight: Tensor, axes: Sequence[int]) -> Tensor:
    """Without the positions beyond the kernel that a stride which did not divide leaves."""
    for axis in axes:
        result = result.narrow(axis, 0, weight.shape[axis])
    return result


def _padded(data: Tensor, padding: Sequence[int]) -> Tensor:
    """With so many zeros on both sides of each spatial axis."""
    both_sides = [count for count in reversed(padding) for _ in range(2)]
    padded: Tensor = aten.constant_pad_nd(data, both_sides, 0)
    return padded


def _by_kernel_column(grad: Tensor, data: Tensor, columns: int, padding: list[int]) -> Tensor:
    """(N, O, ...) and (N, C, ...) -> (1, N * O, kernel rows, kernel columns).

    For each column the gradient stands between zeros, as wide as the padded data. Such a
    convolution onnxruntime does without a copy of the data for every element of the kernel: in a
    third of the time (benchmarks/lowering_forms.py).
    """
    data = _padded(data, padding)
    signal = data.reshape(1, -1, *data.shape[2:])
    beside = data.shape[3] - grad.shape[3]
    found = []
    for column in range(columns):
        kernel = aten.constant_pad_nd(grad, [column, beside - column], 0)
        # Padded first, then reshaped: onnxruntime's PadFusion takes any Pad right before a Conv for
        # one of its data.
        kernel = kernel.reshape(-1, 1, *kernel.shape[2:])
        found.append(convolution(signal, kernel, [1, 1], [0, 0], [1, 1], signal.shape[1]))
    return torch.cat(found, 3)


@dataclass(frozen=True)
class _Met:
    """Which elements of the input, with zeros around it, a kernel meets: by spatial axis.

    kernel, positions: sizes of the kernel and of the output.
    """

    kernel: list[int]
    positions: list[int]
    stride: list[int]
    padding: list[int]
    dilation: list[int]

    def by_tap(self, data: Tensor) -> list[Tensor]:
        """(a, b, ...) -> for every element of the kernel, in order, (a, b, *positions).

        The last axis is cut first: of what is left, whole rows are copied.
        """
        found = [_padded(data, self.padding)]
        for axis in reversed(range(len(self.kernel))):
            reach = self.stride[axis] * (self.positions[axis] - 1) + 1
            found = [
                aten.slice(part, axis + 2, start, start + reach, self.stride[axis])
                for start in range(0, self.kernel[axis] * self.dilation[axis], self.dilation[axis])
                for part in found
            ]
        return found


def _product_with_patches(grad: Tensor, data: Tensor, met: _Met) -> Tensor:
    """(N, O, ...) and (N, I, ...) -> (O, I * taps).

    Patches are as many times larger than the data as the kernel has taps. So they are made of some
    samples at a time: of as many as take no more than the operands.
    """
    channels, size = data.shape[1], data.element_size()
    of_sample = channels * prod(met.kernel) * prod(met.positions) * size
    most = max(PATCHES_BYTES, (data.numel() + grad.numel()) * size)
    samples = max(1, most // of_sample)
    total: Tensor | None = None
    for first in range(0, len(data), samples):
        some_grad, some_data = (
            aten.slice(tensor, 0, first, first + samples).transpose(0, 1) for tensor in (grad, data)
        )
        rows = some_grad.flatten(1)
        patches = torch.cat(met.by_tap(some_data), 1).reshape(-1, rows.shape[1])
        columns = patches.t()
        total = rows @ columns if total is None else torch.addmm(total, rows, columns)
    assert total is not None
    return total


def _pointwise_weight_gradient(grad: Tensor, data: Tensor) -> Tensor:
    """(N, O, ...) and (N, I, ...) -> (O, I)."""
    flat_grad, flat_data = grad.flatten(2), data.flatten(2)
    batch, out, positions = flat_grad.shape
    channels = data.shape[1]
    if out * channels <= positions * (out + channels):
        # One product per sample, summed: its copies are smaller than those of both operands. Of
        # the two it takes the smaller one turned, which takes as long as the product itself.
        if channels <= out:
            return torch.bmm(flat_grad, flat_data.transpose(1, 2)).sum(0)
        return torch.bmm(flat_data, flat_grad.transpose(1, 2)).sum(0).t()
    rows = flat_grad.transpose(0, 1).reshape(out, batch * positions)
    columns = flat_data.transpose(0, 1).reshape(channels, batch * positions)
    return torch.mm(rows, columns.t())
