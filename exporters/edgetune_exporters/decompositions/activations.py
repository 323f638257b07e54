"""Gradients of activations that let a value through or not.

PyTorch writes them with `where`. onnxruntime's Where holds two more results while it runs and takes
2.6 to 3 times as long as the product with a mask (1.32, measured on [8, 96, 112, 112]). Where a
gradient is finite both are the same; one that is not fails the step either way, for the product
then is not finite.
"""

from __future__ import annotations

from torch import Tensor


def threshold_backward(grad: Tensor, data: Tensor, threshold: float) -> Tensor:
    """The gradient where `data` is over the threshold: that of ReLU."""
    return grad * (data > threshold).to(grad.dtype)


def hardtanh_backward(grad: Tensor, data: Tensor, low: float, high: float) -> Tensor:
    """The gradient where `data` is between the bounds: that of ReLU6."""
    return grad * ((data > low) & (data < high)).to(grad.dtype)
