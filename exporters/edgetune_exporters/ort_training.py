"""Official ONNX Runtime training artifacts from a forward graph with its loss.

The files are what `onnxruntime.training.api` 1.19.2 and the C, C++, C#, Java and Swift training
APIs load: training_model.onnx, eval_model.onnx, optimizer_model.onnx, checkpoint.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx

from edgetune.errors import ExportError, RuntimeSetupError
from edgetune.nouns.optimizer import Optimizer
from edgetune.nouns.slices import NO_SHARES, Shares
from edgetune_exporters.ort_training_checks import MAX_IR_VERSION, check_trainable_by_ort
from edgetune_exporters.ort_training_rewrites import prepare_for_ort
from edgetune_exporters.ort_training_shares import with_shares

TRAINING_MODEL, EVAL_MODEL = "training_model.onnx", "eval_model.onnx"
OPTIMIZER_MODEL, CHECKPOINT = "optimizer_model.onnx", "checkpoint"
ORT_TRAINING_FILES = (TRAINING_MODEL, EVAL_MODEL, OPTIMIZER_MODEL, CHECKPOINT)

_PROTOBUF_LIMIT = 2**31 - 1
_TORCH_ADAMW = 0
"""The `adam_mode` that computes torch.optim.AdamW; 1, what ORT generates, is the transformers one,
which decays after the step and puts epsilon elsewhere."""


def write_ort_training(
    model: onnx.ModelProto,
    trainable: Sequence[str],
    optimizer: Optimizer,
    folder: Path,
    shares: Shares = NO_SHARES,
) -> None:
    """Write the four ORT_TRAINING_FILES into the existing `folder`.

    model: a forward graph, opset 18 to 21, first output the scalar float32 loss; what can be
    repaired is (`prepare_for_ort`). trainable: names of initializers; all others are embedded in
    the graphs. shares: of which of them only some slices are trained; the artifacts' tensor of that
    name is then the slices. The learning rate is set at run time. The same model gives the same
    bytes.
    Raises ExportError naming all that cannot be trained, RuntimeSetupError without the package.
    """
    _check_optimizer(optimizer)
    prepared = with_shares(prepare_for_ort(model), shares)
    check_trainable_by_ort(prepared, trainable)
    if prepared.ByteSize() > _PROTOBUF_LIMIT:
        raise ExportError(
            f"the model takes {prepared.ByteSize()} bytes: ORT training artifacts are limited to "
            f"{_PROTOBUF_LIMIT}; use --format portable"
        )
    _generate(prepared, trainable, optimizer, folder)
    for name in (TRAINING_MODEL, EVAL_MODEL):
        _lower_ir_version(folder / name)
    _finish_optimizer(folder / OPTIMIZER_MODEL, optimizer)


def _check_optimizer(optimizer: Optimizer) -> None:
    if optimizer.kind not in ("adamw", "sgd"):
        raise ExportError(
            f"ONNX Runtime training has no optimizer {optimizer.kind!r}: expected adamw or sgd; "
            "use one of them, or --format portable"
        )
    if optimizer.kind == "sgd" and optimizer.weight_decay:
        raise ExportError(
            f"ONNX Runtime training's sgd has no weight decay (found {optimizer.weight_decay}): "
            "use 0, adamw, or --format portable"
        )


def _generate(
    model: onnx.ModelProto, trainable: Sequence[str], optimizer: Optimizer, folder: Path
) -> None:
    artifacts, blocks = _generator()
    if optimizer.kind == "sgd":
        block = blocks.SGD()
    else:
        block = blocks.AdamW(
            bias_correction=True,
            betas=(optimizer.beta1, optimizer.beta2),
            eps=optimizer.epsilon,
            weight_decay=optimizer.weight_decay,
        )
    try:
        with quiet_native_log():
            # Frozen tensors are in neither list: they stay constants, which ORT prepares once.
            artifacts.generate_artifacts(
                model,
                requires_grad=list(trainable),
                optimizer=block,
                artifact_directory=folder,
            )
    except OSError:
        raise  # a full disk is for whoever owns the folder
    except Exception as error:
        raise ExportError(
            f"ONNX Runtime training cannot build the gradients of this model: {error}; use "
            "--format portable"
        ) from error


def _generator() -> tuple[Any, Any]:
    """onnxruntime's artifact generator and its optimizer blocks."""
    try:
        # Here, so that the portable format exports where the package does not exist.
        from onnxruntime.training import artifacts  # noqa: PLC0415
        from onnxruntime.training.onnxblock import optim  # noqa: PLC0415
    except ImportError as error:
        raise RuntimeSetupError(
            f"cannot generate ORT training artifacts ({error}): they need the package "
            "onnxruntime-training-cpu 1.19.2 (CPython up to 3.12, x86-64) in place of onnxruntime; "
            "pip install 'edgetune[export]', or use --format portable"
        ) from error
    return artifacts, optim


@contextmanager
def quiet_native_log() -> Iterator[None]:
    """Send file descriptor 2 away: the generator logs every pass at level INFO, fixed in C++.

    What goes wrong arrives as an exception, so nothing is lost.
    """
    saved = os.dup(2)
    try:
        with tempfile.TemporaryFile() as sink:
            os.dup2(sink.fileno(), 2)
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _lower_ir_version(path: Path) -> None:
    model = onnx.load(path)
    if model.ir_version > MAX_IR_VERSION:
        model.ir_version = MAX_IR_VERSION
        onnx.save(model, path)


def _finish_optimizer(path: Path, optimizer: Optimizer) -> None:
    """A loadable IR version, PyTorch's AdamW, and names without the generator's global counter."""
    model = onnx.load(path)
    model.ir_version = MAX_IR_VERSION
    for node in model.graph.node:
        for entry in node.attribute:
            if entry.name == "adam_mode":
                entry.i = _TORCH_ADAMW
        node.name = _without_counter(node.name)
        node.input[:] = [_without_counter(name) for name in node.input]
        node.output[:] = [_without_counter(name) for name in node.output]
    for value in (*model.graph.value_info, *model.graph.output):
        value.name = _without_counter(value.name)
    onnx.save(model, path)


def _without_counter(name: str) -> str:
    """The generator's `onnx::AdamWOptimizer::12` as `AdamWOptimizer`; other names unchanged."""
    match = re.fullmatch(r"onnx::(.+)::\d+", name)
    return match.group(1) if match else name
