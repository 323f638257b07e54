"""Artifacts of onnxruntime-training as its documentation has one generate them.

The frozen weights are in neither of the generator's lists, which embeds them as constants: the fast
way. The one thing that the documentation does not tell is the IR version, without which the files
of today's onnx are not loaded.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from edgetune_exporters.factory import Example
from edgetune_exporters.ort_training import quiet_native_log
from edgetune_exporters.ort_training_checks import MAX_IR_VERSION


def write_artifacts(
    example: Example, input_names: Sequence[str], trainable: list[str], folder: Path
) -> None:
    """Write them into the existing `folder`. Raises whatever the exporter or generator raises."""
    # Here, because importing it takes long and needs the training package.
    from onnxruntime.training import artifacts  # noqa: PLC0415

    model = _forward_graph(example, input_names, folder / "forward.onnx")
    with quiet_native_log():
        artifacts.generate_artifacts(
            model,
            requires_grad=trainable,
            loss=artifacts.LossType.CrossEntropyLoss,
            optimizer=artifacts.OptimType.AdamW,
            artifact_directory=str(folder),
        )
    for name in ("training_model", "eval_model", "optimizer_model"):
        path = folder / f"{name}.onnx"
        generated = onnx.load(path)
        generated.ir_version = min(generated.ir_version, MAX_IR_VERSION)
        onnx.save(generated, path)


def _forward_graph(example: Example, input_names: Sequence[str], path: Path) -> Any:
    """The model's graph by the exporter that the documentation uses, names as in PyTorch."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            example.model,
            tuple(example.leaves()),
            str(path),
            input_names=list(input_names),
            output_names=["logits"],
            opset_version=18,
            do_constant_folding=False,
            dynamo=False,
        )
    model = onnx.load(path)
    path.unlink()
    model.ir_version = min(model.ir_version, MAX_IR_VERSION)
    return model
