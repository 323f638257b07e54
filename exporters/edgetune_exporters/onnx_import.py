"""An .onnx inference model as a PyTorch module, through onnx2torch."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from edgetune.errors import ExportError, RuntimeSetupError, UsageError
from edgetune_exporters.factory import TARGETS, Example

_LOSSES = {
    "cross-entropy": nn.CrossEntropyLoss,
    "mse": nn.MSELoss,
    "l1": nn.L1Loss,
    "bce": nn.BCEWithLogitsLoss,
}


def load_onnx_example(path: Path, sample: str | None, loss: str) -> Example:
    """The model at `path` with a sample batch from the .npz `sample` and the named loss.

    Parameters are named by the importer, after the graph's nodes. Raises
    UsageError for a missing sample or unknown loss, ExportError naming what cannot be imported.
    """
    if loss not in _LOSSES:
        raise UsageError(f"unknown --loss {loss!r}: expected one of {', '.join(_LOSSES)}")
    if sample is None:
        raise UsageError("an .onnx file needs --sample FILE.npz with its inputs and 'targets'")
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf and OS errors alike
        raise ExportError(f"cannot read the ONNX model {path}: {error}") from error
    inputs, targets = _sample(Path(sample), model)
    module = _convert(path, model)
    return Example(module, tuple(inputs.values()), targets, _LOSSES[loss]())


def _sample(path: Path, model: onnx.ModelProto) -> tuple[dict[str, Tensor], Tensor]:
    known = {tensor.name for tensor in model.graph.initializer}
    names = [i.name for i in model.graph.input if i.name not in known]
    try:
        with np.load(path) as archive:
            arrays = {name: torch.from_numpy(archive[name]) for name in archive.files}
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read --sample {path}: {error}") from error
    missing = [name for name in (*names, TARGETS) if name not in arrays]
    if missing:
        raise UsageError(
            f"--sample {path} lacks {', '.join(missing)}: expected {', '.join(names)} and {TARGETS}"
        )
    return {name: arrays[name] for name in names}, arrays[TARGETS]


def _convert(path: Path, model: onnx.ModelProto) -> nn.Module:
    convert = _import_onnx2torch()
    try:
        module: nn.Module = convert(model)
    except NotImplementedError as error:
        raise ExportError(
            f"onnx2torch cannot import {path}: {error}; export from the PyTorch model instead"
        ) from error
    return module


def _import_onnx2torch() -> Callable[[onnx.ModelProto], nn.Module]:
    """onnx2torch's converter.

    It imports torchvision for two detection operators alone, and torchvision has no build for a
    CPU-only torch on every registry; without it those two operators are refused.
    """
    stub = importlib.util.find_spec("torchvision") is None
    if stub:
        ops: Any = types.ModuleType("torchvision.ops")
        ops.roi_align = _refuse_detection
        torchvision: Any = types.ModuleType("torchvision")
        torchvision.ops = ops
        sys.modules.update({"torchvision": torchvision, "torchvision.ops": ops})
    try:
        return importlib.import_module("onnx2torch").convert  # type: ignore[no-any-return]  # untyped
    except ModuleNotFoundError as error:
        raise RuntimeSetupError(
            f"importing an .onnx file needs {error.name}: pip install 'edgetune[onnx-import]'"
        ) from error
    finally:
        if stub:
            sys.modules.pop("torchvision", None)
            sys.modules.pop("torchvision.ops", None)


def _refuse_detection(*arguments: Any) -> Tensor:
    raise NotImplementedError("RoiAlign needs torchvision")
