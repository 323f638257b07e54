"""An .onnx file as the model to train."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from edgetune_exporters.export import export
from edgetune_exporters.make_plan import make_plan
from edgetune_exporters.onnx_import import load_onnx_example
from onnx import TensorProto, helper, numpy_helper

from edgetune.errors import ExportError, UsageError
from edgetune.files.device_profiles import load_profile
from edgetune.nouns.plan_request import PlanRequest
from edgetune.runtime.open_session import open_session

BATCH = 4


def normal(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng([*shape]).standard_normal(shape).astype(np.float32)


def network(*extra: str) -> onnx.ModelProto:
    """Convolution, ReLU and a linear layer; `extra` operators stand behind the ReLU."""
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["h"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["h"], ["r0"], "relu"),
    ]
    nodes += [
        helper.make_node(kind, [f"r{i}"], [f"r{i + 1}"], kind) for i, kind in enumerate(extra)
    ]
    nodes += [
        helper.make_node("Flatten", [f"r{len(extra)}"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w2", "b2"], ["y"], "fc", transB=1),
    ]
    values = {"w1": normal(4, 1, 3, 3), "b1": normal(4), "w2": normal(3, 64), "b2": normal(3)}
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    onnx.save(network(), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    path = tmp_path / "sample.npz"
    np.savez(path, x=normal(BATCH, 1, 4, 4), targets=np.array([0, 1, 2, 0]))
    return path


def test_an_onnx_file_is_trained_as_a_portable_bundle(
    model: Path, sample: Path, tmp_path: Path
) -> None:
    example = load_onnx_example(model, str(sample), "cross-entropy")
    profile = load_profile("generic-x86")
    planned = make_plan(example, PlanRequest(profile, patterns=("fc.*",), batch=BATCH))
    assert planned.plan.selection.trainable == ("fc.weight", "fc.bias")
    export(example, planned, ("portable",), tmp_path / "bundle")
    session = open_session(tmp_path / "bundle")
    data = np.load(sample)["x"]
    (name,) = [spec.name for spec in session.manifest.signature.inputs]
    (expected,) = onnxruntime.InferenceSession(str(model)).run(None, {"x": data})
    np.testing.assert_allclose(
        session.predict({name: data})["output"], expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("loss", "targets"),
    [("mse", normal(BATCH, 3)), ("l1", normal(BATCH, 3)), ("bce", np.ones((BATCH, 3), np.float32))],
)
def test_every_named_loss_is_known(
    loss: str, targets: np.ndarray[tuple[int, ...], np.dtype[np.float32]], model: Path
) -> None:
    path = model.parent / "regression.npz"
    np.savez(path, x=normal(BATCH, 1, 4, 4), targets=targets)
    example = load_onnx_example(model, str(path), loss)
    assert example.loss(example.model(example.inputs[0]), example.targets).dim() == 0


def test_an_unknown_loss_is_refused(model: Path, sample: Path) -> None:
    with pytest.raises(UsageError, match="unknown --loss 'nll': expected one of cross-entropy"):
        load_onnx_example(model, str(sample), "nll")


def test_a_sample_is_needed(model: Path) -> None:
    with pytest.raises(UsageError, match=r"needs --sample FILE.npz with its inputs and 'targets'"):
        load_onnx_example(model, None, "cross-entropy")


def test_a_sample_that_lacks_an_input_is_refused(model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", y=normal(BATCH, 1))
    with pytest.raises(UsageError, match=r"lacks x, targets: expected x and targets"):
        load_onnx_example(model, str(tmp_path / "other.npz"), "cross-entropy")


@pytest.mark.parametrize("content", [None, b"no archive"], ids=["missing", "damaged"])
def test_a_sample_that_cannot_be_read_is_refused(
    content: bytes | None, model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "broken.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match="cannot read --sample"):
        load_onnx_example(model, str(path), "cross-entropy")


@pytest.mark.parametrize("content", [None, b"no model"], ids=["missing", "damaged"])
def test_a_model_that_cannot_be_read_is_refused(
    content: bytes | None, sample: Path, tmp_path: Path
) -> None:
    path = tmp_path / "broken.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ExportError, match="cannot read the ONNX model"):
        load_onnx_example(path, str(sample), "cross-entropy")


def test_an_operator_that_cannot_be_imported_is_refused_by_name(
    sample: Path, tmp_path: Path
) -> None:
    onnx.save(network("Hardmax"), tmp_path / "odd.onnx")
    with pytest.raises(ExportError, match=r"onnx2torch cannot import .*Hardmax"):
        load_onnx_example(tmp_path / "odd.onnx", str(sample), "cross-entropy")
