"""Which BatchNorms became part of a convolution at capture, so that it can be undone."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FoldedBatchNorm:
    """One BatchNorm folded into the convolution before it; everything by PyTorch name.

    With g, beta, mean, var and eps those of the BatchNorm and s = sqrt(var + eps), per output
    channel: W' = W * g / s and b' = (b - mean) * g / s + beta, b = 0 without a bias.

    weight: the convolution's weight, which holds W' in a bundle.
    bias: the tensor that holds b': the convolution's bias, or the BatchNorm's where the
        convolution has none.
    batch_norm: name of the BatchNorm module.
    """

    weight: str
    bias: str
    batch_norm: str
    has_convolution_bias: bool
