"""Which operator is decomposed by what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._decomp import core_aten_decompositions, get_decompositions

from edgetune_exporters.decompositions.activations import (
    hardtanh_backward,
    threshold_backward,
)
from edgetune_exporters.decompositions.convolutions import convolution_backward
from edgetune_exporters.decompositions.indexing import (
    embedding_dense_backward,
    select_backward,
    slice_backward,
    unfold,
)
from edgetune_exporters.decompositions.normalization import native_group_norm, safe_softmax
from edgetune_exporters.decompositions.pooling import (
    adaptive_avg_pool2d,
    adaptive_avg_pool2d_backward,
    avg_pool2d_backward,
    max_pool2d_backward,
)
from edgetune_exporters.decompositions.resampling import (
    upsample_bilinear2d,
    upsample_bilinear2d_backward,
    upsample_nearest2d,
    upsample_nearest2d_backward,
)

aten = torch.ops.aten
Decomposition = Callable[..., Any]

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
        aten.threshold_backward.default: threshold_backward,
        aten.hardtanh_backward.default: hardtanh_backward,
        aten.convolution_backward.default: convolution_backward,
        aten.max_pool2d_with_indices_backward.default: max_pool2d_backward,
        aten.avg_pool2d_backward.default: avg_pool2d_backward,
        aten._adaptive_avg_pool2d.default: adaptive_avg_pool2d,
        aten._adaptive_avg_pool2d_backward.default: adaptive_avg_pool2d_backward,
        aten.native_group_norm.default: native_group_norm,
        aten._safe_softmax.default: safe_softmax,
        aten.unfold.default: unfold,
        aten.embedding_dense_backward.default: embedding_dense_backward,
        aten.slice_backward.default: slice_backward,
        aten.select_backward.default: select_backward,
        aten.upsample_nearest2d.default: upsample_nearest2d,
        aten.upsample_nearest2d_backward.default: upsample_nearest2d_backward,
        aten.upsample_bilinear2d.default: upsample_bilinear2d,
        aten.upsample_bilinear2d_backward.default: upsample_bilinear2d_backward,
    }
