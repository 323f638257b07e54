"""Normalisation in arithmetic."""

from __future__ import annotations

import torch
from torch import Tensor


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
