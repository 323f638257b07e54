"""The tuned inference model: one ONNX file for any stock ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgetune.files.onnx_weights import write_with_initializers
from edgetune.nouns.loss import Array


def merge(predict_onnx: Path, values: Mapping[str, Array], out: Path) -> None:
    """Write the inference graph `predict_onnx` with `values` inside of it to `out`, atomically.

    predict_onnx: a bundle's predict.onnx, whose trainable tensors are graph inputs and whose frozen
    weights are external data beside it. values: the trainable values by PyTorch name. The result is
    self-contained and takes the model's own inputs only.
    Raises BundleError when the values do not fit the graph or a file is damaged, ExportError when
    the result would exceed ONNX's 2 GiB, StorageError when it cannot be written.
    """
    write_with_initializers(predict_onnx, values, out)
