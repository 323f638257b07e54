"""User .onnx files as forward graphs, and the losses attached to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from edgetune_exporters.onnx_forward import onnx_forward
from edgetune_exporters.onnx_loss import attach_loss
from edgetune_exporters.ort_training import write_ort_training
from onnx import TensorProto, helper
from torch.nn import functional as F  # noqa: N812

from edgetune.errors import (
    ExportError,
)
from edgetune.nouns.loss import LossSpec
from edgetune.nouns.optimizer import Optimizer
from edgetune.runtime import ort_training_session
from tests.export.ort_examples import (
    CROSS_ENTROPY,
    Example,
    batch_of,
    convolutional,
    manifest_of,
    mlp,
    node,
    normal,
    torch_parameters,
)

pytest.importorskip("onnxruntime.training.api", exc_type=ImportError)


def save(model: onnx.ModelProto, path: Path) -> Path:
    onnx.save(model, path)
    return path


def dynamic(model: onnx.ModelProto) -> onnx.ModelProto:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return model


@pytest.mark.parametrize("opset", [13, 17, 18, 21, 22])
@pytest.mark.parametrize("make", [mlp, convolutional], ids=["mlp", "conv"])
def test_onnx_file_of_any_opset_is_trained(
    make: Callable[[], Example], opset: int, tmp_path: Path
) -> None:
    example = make()
    if opset < 14:  # HardSwish came with 14
        nodes = [n if n.op_type != "HardSwish" else node("Relu", "c", "d") for n in example.nodes]
        example = replace(example, nodes=nodes)
    path = save(dynamic(example.model(opset)), tmp_path / "model.onnx")
    forward = onnx_forward(path, CROSS_ENTROPY, example.inputs)
    assert [value.name for value in forward.graph.output] == ["loss", "correct", "y"]
    write_ort_training(forward, tuple(example.parameters), Optimizer(), tmp_path)
    manifest = manifest_of(example, tuple(example.parameters), Optimizer())
    session = ort_training_session.OrtTrainingSession(tmp_path, manifest, "digest")
    batch = batch_of(example)
    assert np.isfinite(session.accumulate(batch).loss)
    if opset >= 14:
        loss = example.loss(torch_parameters(example), batch).item()
        assert session.evaluate(batch).loss == pytest.approx(loss, rel=1e-5)


def test_onnx_file_that_cannot_be_taken(tmp_path: Path) -> None:
    example = mlp()
    path = save(example.model(), tmp_path / "model.onnx")
    with pytest.raises(ExportError, match=r"no input 'inputs'.*\n.*lacks the input 'x'"):
        onnx_forward(path, CROSS_ENTROPY, {"inputs": example.inputs["x"]})
    with pytest.raises(ExportError, match=r"float32\[2, 8\].*takes float32\[4, 8\]"):
        onnx_forward(path, CROSS_ENTROPY, {"x": example.inputs["x"][:2]})
    with pytest.raises(ExportError, match="no output 'z'"):
        onnx_forward(path, CROSS_ENTROPY, example.inputs, output="z")
    with pytest.raises(ExportError, match="predicts 3 classes, and the loss has 7"):
        onnx_forward(path, LossSpec("cross_entropy", classes=7), example.inputs)
    with pytest.raises(ExportError, match="huber loss cannot be attached"):
        onnx_forward(path, LossSpec("huber"), example.inputs)
    with pytest.raises(ExportError, match="cannot read"):
        onnx_forward(tmp_path / "missing.onnx", CROSS_ENTROPY, example.inputs)
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(ExportError, match="cannot read"):
        onnx_forward(tmp_path / "broken.onnx", CROSS_ENTROPY, example.inputs)


def evaluate_loss(loss: LossSpec, outputs: Any, targets: Any, scale: Any) -> dict[str, Any]:
    """What `attach_loss` computes for given predictions, in the reference evaluator."""
    from onnx.reference import ReferenceEvaluator  # noqa: PLC0415

    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, outputs.shape) for n in "xy"]
    graph = helper.make_graph([node("Identity", "x", "y")], "g", info[:1], info[1:])
    model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 18)])
    attached = attach_loss(model, loss)
    onnx.checker.check_model(attached, full_check=True)
    feeds = {"x": outputs, "targets": targets, "scale": scale}
    names = [value.name for value in attached.graph.output]
    return dict(zip(names, ReferenceEvaluator(attached).run(None, feeds), strict=True))


SCALE = np.array([0.5, 0.25, 0.0, 1.0], np.float32)


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (4, 3, 2, 2)])
@pytest.mark.parametrize("ignore", [None, -100, 1])
def test_cross_entropy_equals_torch(shape: tuple[int, ...], ignore: int | None) -> None:
    outputs = normal(*shape) * 20
    targets = np.random.default_rng(0).integers(0, 3, shape[:1] + shape[2:])
    if ignore == -100:
        targets.flat[0] = ignore
    weights = (0.5, 1.0, 2.0)
    spec = LossSpec("cross_entropy", 3, class_weights=weights, ignore_index=ignore)
    found = evaluate_loss(spec, outputs, targets, SCALE)
    terms = F.cross_entropy(
        torch.from_numpy(outputs), torch.from_numpy(targets), torch.tensor(weights),
        reduction="none", ignore_index=-7 if ignore is None else ignore,
    )  # fmt: skip
    per_sample = terms.reshape(4, -1).sum(1).numpy()
    np.testing.assert_allclose(found["loss"], (per_sample * SCALE).sum(), rtol=1e-5)
    right = (outputs.argmax(1) == targets).reshape(4, -1).sum(1)
    assert found["correct"] == right[SCALE != 0].sum()


def test_element_wise_losses_equal_torch_and_do_not_overflow() -> None:
    outputs = np.array([[200.0, -200.0], [0.5, -1], [3, 2], [0, 0]], np.float32)
    targets = np.array([[0.0, 1.0], [1, 0], [1, 1], [0, 1]], np.float32)
    references = {
        "mean_squared_error": F.mse_loss,
        "mean_absolute_error": F.l1_loss,
        "binary_cross_entropy": F.binary_cross_entropy_with_logits,
    }
    for kind, function in references.items():
        found = evaluate_loss(LossSpec(kind, elements=2), outputs, targets, SCALE)
        terms = function(torch.from_numpy(outputs), torch.from_numpy(targets), reduction="none")
        np.testing.assert_allclose(found["loss"], (terms.sum(1).numpy() * SCALE).sum(), rtol=1e-6)
        assert ("correct" in found) == (kind == "binary_cross_entropy")


def test_loss_needs_free_names() -> None:
    example = mlp()
    model = replace(example, constants={"scale": np.zeros(1, np.float32)}).model()
    with pytest.raises(ExportError, match="'scale', which the loss needs"):
        attach_loss(model, CROSS_ENTROPY)
