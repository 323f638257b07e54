"""Normalisation in arithmetic."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def safe_softmax(data: Tensor, axis: int, dtype: torch.dtype | None = None) -> Tensor:
    """Softmax, and zeros in rows that attention masks wholly, with -inf.

    PyTorch's compares every element with -inf and chooses every one. Here only a row's largest is
    compared; the rest is a softmax of finite numbers, times 0 or 1.
    """
    data = data if dtype is None else data.to(dtype)
    kept = (data.amax(axis, keepdim=True) > -math.inf).to(data.dtype)
    finite = data.clamp(min=torch.finfo(data.dtype).min)
    return torch.softmax(finite, axis) * kept


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
