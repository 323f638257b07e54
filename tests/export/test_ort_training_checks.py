"""The traps of ONNX Runtime training: each named where it is refused, exact where repaired."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from edgetune_exporters.ort_training import write_ort_training
from edgetune_exporters.ort_training_checks import check_trainable_by_ort
from edgetune_exporters.ort_training_rewrites import prepare_for_ort
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from edgetune.errors import (
    ExportError,
)
from edgetune.nouns.optimizer import Optimizer
from tests.export.ort_examples import (
    Example,
    Values,
    attention,
    batch_of,
    convolutional,
    mlp,
    node,
    normal,
    session_of,
    torch_parameters,
    with_loss,
)

pytest.importorskip("onnxruntime.training.api", exc_type=ImportError)


def norm_layer(**attributes: Any) -> tuple[Example, Values]:
    """A convolution under BatchNormalization with running statistics that matter."""
    example = convolutional()
    statistics = {"mean": normal(8, seed=2), "var": np.abs(normal(8, seed=3)) + 0.5}
    batch_norm = node("BatchNormalization", "a gamma beta mean var", "a2", **attributes)
    nodes = [example.nodes[0], batch_norm, node("Clip", "a2 zero six", "b"), *example.nodes[2:]]
    affine = {"gamma": np.ones(8, np.float32), "beta": np.zeros(8, np.float32)}

    def reference(p: Mapping[str, Tensor], i: Mapping[str, Tensor]) -> Tensor:
        x = F.conv2d(i["x"], p["stem.weight"], p["stem.bias"], padding=1)
        mean, var = (torch.from_numpy(statistics[n]) for n in ("mean", "var"))
        x = F.batch_norm(x, mean, var, p["gamma"], p["beta"]).clamp(0, 6)
        x = F.conv2d(x, p["depthwise.weight"], p["depthwise.bias"], 2, 1, groups=8)
        return F.linear(F.hardswish(x).mean((2, 3)), p["head.weight"], p["head.bias"])

    parameters = {**example.parameters, **affine}
    constants = {**example.constants, **statistics}
    return Example(nodes, parameters, constants, example.inputs, reference), statistics


def test_batch_normalization_left_in_is_refused() -> None:
    example, _ = norm_layer()
    with pytest.raises(ExportError, match=r"the_BatchNormalization.*batch statistics.*eval mode"):
        check_trainable_by_ort(with_loss(example), ["head.weight"])


def test_batch_normalization_in_training_mode_cannot_be_repaired(tmp_path: Path) -> None:
    example, _ = norm_layer(training_mode=1)
    with pytest.raises(ExportError, match="batch statistics"):
        write_ort_training(with_loss(example), ["head.weight"], Optimizer(), tmp_path)


def test_batch_normalization_is_rewritten_with_frozen_statistics(tmp_path: Path) -> None:
    example, _ = norm_layer()
    session, batch = session_of(example, tmp_path, optimizer=Optimizer("sgd")), batch_of(example)
    parameters = torch_parameters(example)
    loss = example.loss(parameters, batch)
    loss.backward()
    assert session.accumulate(batch).loss == pytest.approx(loss.item(), rel=1e-5)
    before = session.values()
    session.update(1.0, None)
    after = session.values()
    for key in ("gamma", "beta", "stem.weight"):
        gradient = parameters[key].grad
        assert gradient is not None
        np.testing.assert_allclose(before[key] - after[key], gradient, rtol=1e-3, atol=3e-6)


def test_layer_normalization_without_its_outputs_is_named_and_repaired() -> None:
    forward = with_loss(attention())
    with pytest.raises(ExportError, match=r"the_LayerNormalization.*Mean and InvStdDev"):
        check_trainable_by_ort(forward, ["norm.weight"])
    check_trainable_by_ort(prepare_for_ort(forward), ["norm.weight"])
    check_trainable_by_ort(forward, ["head.weight"])  # off the path it does no harm


def test_layer_normalization_without_bias_gets_one(tmp_path: Path) -> None:
    example = attention()
    norm = node("LayerNormalization", "x norm.weight", "n", axis=-1)
    bare = {key: value for key, value in example.parameters.items() if key != "norm.bias"}
    plain = replace(example, nodes=[norm, *example.nodes[1:]], parameters=bare)
    session = session_of(plain, tmp_path)
    with_bias = {**torch_parameters(plain), "norm.bias": torch.zeros(8)}
    batch = batch_of(plain)
    expected = example.loss(with_bias, batch).item()
    assert session.accumulate(batch).loss == pytest.approx(expected, rel=1e-5)


def activation(kind: str, **attributes: Any) -> Example:
    """The MLP with another activation between its layers."""
    example = mlp()
    extra = {"slope": np.full(16, 0.3, np.float32), "int_two": np.array(2)}
    second = {"CastLike": " slope", "Pow": " int_two", "Sum": " h"}.get(kind, "")
    nodes = [example.nodes[0], node(kind, "h" + second, "r", **attributes), example.nodes[2]]
    return replace(example, nodes=nodes, constants=extra)


REPAIRED: dict[str, tuple[Example, Callable[[Tensor], Tensor]]] = {
    "HardSwish": (activation("HardSwish"), F.hardswish),
    "HardSigmoid": (activation("HardSigmoid", alpha=1 / 6), F.hardsigmoid),
    "Softplus": (activation("Softplus"), F.softplus),
    "CastLike": (activation("CastLike"), lambda h: h),
    "Sum": (activation("Sum"), lambda h: h + h),
    "Dropout": (activation("Dropout"), lambda h: h),
    "Pow": (activation("Pow"), lambda h: h**2),
}


@pytest.mark.parametrize("kind", REPAIRED)
def test_operators_that_are_repaired(kind: str, tmp_path: Path) -> None:
    example, function = REPAIRED[kind]
    if kind != "Dropout":
        with pytest.raises(ExportError, match=f"{kind} .node the_{kind}"):
            check_trainable_by_ort(with_loss(example), ["fc1.weight"])
    check_trainable_by_ort(with_loss(example), ["fc2.weight"])  # above it, no gradient is needed
    session, batch = session_of(example, tmp_path, optimizer=Optimizer("sgd")), batch_of(example)
    parameters = torch_parameters(example)
    x = torch.from_numpy(batch.inputs["x"])
    h = function(F.linear(x, parameters["fc1.weight"], parameters["fc1.bias"]))
    output = F.linear(h, parameters["fc2.weight"], parameters["fc2.bias"])
    terms = F.cross_entropy(output, torch.from_numpy(batch.targets["targets"]), reduction="none")
    loss = (terms * torch.from_numpy(batch.scale)).sum()
    loss.backward()
    assert session.accumulate(batch).loss == pytest.approx(loss.item(), rel=1e-5)
    before = session.values()
    session.update(1.0, None)
    for key, value in session.values().items():
        gradient = parameters[key].grad
        assert gradient is not None
        np.testing.assert_allclose(before[key] - value, gradient, rtol=1e-3, atol=2e-6)


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
def test_automatic_padding_is_made_explicit(mode: str, tmp_path: Path) -> None:
    example = convolutional()
    strided = {"group": 8, "strides": [2, 2], "auto_pad": mode}
    conv = node("Conv", "b depthwise.weight depthwise.bias", "c", **strided)
    automatic = replace(example, nodes=[*example.nodes[:2], conv, *example.nodes[3:]])
    with pytest.raises(ExportError, match=f"auto_pad={mode}.*silently wrong"):
        check_trainable_by_ort(with_loss(automatic), ["stem.weight"])
    session, batch = session_of(automatic, tmp_path), batch_of(example)
    pads = (0, 1, 0, 1) if mode == "SAME_UPPER" else (1, 0, 1, 0)
    p = torch_parameters(example)
    x = F.conv2d(torch.from_numpy(batch.inputs["x"]), p["stem.weight"], p["stem.bias"], padding=1)
    x = F.conv2d(
        F.pad(x.clamp(0, 6), pads), p["depthwise.weight"], p["depthwise.bias"], 2, groups=8
    )
    expected = F.linear(F.hardswish(x).mean((2, 3)), p["head.weight"], p["head.bias"])
    found = session.predict(batch.inputs)["y"]
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-4, atol=1e-5)


REFUSED = ["HardSwish", "Elu", "Mish", "Sign", "Floor", "Selu", "Atan", "Softsign"]


@pytest.mark.parametrize("kind", REFUSED)
def test_operator_without_gradient_is_named_and_really_has_none(kind: str, tmp_path: Path) -> None:
    example = activation(kind)
    forward = with_loss(example)
    pattern = f"{kind} .node the_{kind}. has no gradient.*--format portable"
    with pytest.raises(ExportError, match=pattern):
        check_trainable_by_ort(forward, ["fc1.weight"])
    for index, each in enumerate(forward.graph.node):
        each.name = f"{each.name}_{index}"  # ORT wants them unique
    from onnxruntime.training import artifacts  # noqa: PLC0415  (skipped above without it)

    with pytest.raises(RuntimeError, match=f"not been registered: {kind}"):
        artifacts.generate_artifacts(
            forward, requires_grad=["fc1.weight"], artifact_directory=tmp_path
        )


def test_gradient_that_is_cut_silently_is_refused() -> None:
    example = mlp()
    nodes = [
        example.nodes[0],
        node("Abs", "h", "size"),
        node("Exp", "h", "base"),
        node("Pow", "base size", "r"),
        example.nodes[2],
    ]
    with pytest.raises(ExportError, match="exponent 'size' depends on a trainable"):
        check_trainable_by_ort(with_loss(replace(example, nodes=nodes)), ["fc1.weight"])


def test_split_with_an_output_off_the_path_is_refused() -> None:
    example = mlp()
    nodes = [
        example.nodes[0],
        node("Split", "h", "left right", axis=1, num_outputs=2),
        node("Concat", "left left", "r", axis=1),
        example.nodes[2],
    ]
    with pytest.raises(ExportError, match=r"the_Split.*off the way to the loss \(right\)"):
        check_trainable_by_ort(with_loss(replace(example, nodes=nodes)), ["fc1.weight"])


def changed(change: Callable[[onnx.ModelProto], None]) -> onnx.ModelProto:
    forward = with_loss(mlp())
    change(forward)
    return forward


def set_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 22


def set_ir_version(model: onnx.ModelProto) -> None:
    model.ir_version = 11


def reverse_outputs(model: onnx.ModelProto) -> None:
    outputs = list(model.graph.output)[::-1]
    del model.graph.output[:]
    model.graph.output.extend(outputs)


@pytest.mark.parametrize(
    ("change", "trainable", "message"),
    [
        (set_opset, ["fc1.weight"], "opset 22: expected 18 to 21"),
        (set_ir_version, ["fc1.weight"], "IR version 11: expected at most 10"),
        (reverse_outputs, ["fc1.weight"], "first output 'y' is no scalar"),
        (lambda m: None, ["fc1.wieght"], "no initializer 'fc1.wieght'.*names are fc1.weight"),
        (lambda m: None, ["loss/class_axis"], "int64: only float32"),
        (lambda m: None, ["loss/nothing"], "'loss/nothing' does not influence the loss"),
        (lambda m: None, [], "nothing is trainable"),
    ],
    ids=["opset", "ir", "loss", "name", "dtype", "unreached", "empty"],
)
def test_refusals(
    change: Callable[[onnx.ModelProto], None], trainable: list[str], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        check_trainable_by_ort(changed(change), trainable)


def test_all_problems_are_reported_at_once() -> None:
    forward = with_loss(activation("Elu"))
    set_opset(forward)
    with pytest.raises(ExportError, match="3 problems") as caught:
        check_trainable_by_ort(forward, ["fc1.weight", "fc9.weight"])
    assert all(word in str(caught.value) for word in ("opset 22", "the_Elu", "fc9.weight"))


@pytest.mark.parametrize(
    "optimizer",
    [Optimizer("sgd-momentum"), Optimizer("sgd-nesterov"), Optimizer("sgd", weight_decay=0.1)],
)
def test_other_optimizers_are_refused(optimizer: Optimizer, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="--format portable"):
        write_ort_training(with_loss(mlp()), ["fc1.weight"], optimizer, tmp_path)
    assert not list(tmp_path.iterdir())


def test_prepare_leaves_its_argument_alone() -> None:
    forward = with_loss(convolutional())
    before = forward.SerializeToString(deterministic=True)
    prepare_for_ort(forward)
    assert forward.SerializeToString(deterministic=True) == before
