"""The frozen prefix in 8 bits: the graphs, their numbers, and when they are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from edgetune_exporters.dense_step import dense_step
from edgetune_exporters.export import export
from edgetune_exporters.factory import Example, example_from
from edgetune_exporters.int8.calibration import Int8Calibration
from edgetune_exporters.int8.ranges import observed_ranges
from edgetune_exporters.int8.rewrite import Int8Rewrite
from edgetune_exporters.lowering.emitter import model_of
from edgetune_exporters.make_plan import PlannedStep, make_plan
from onnx import helper, numpy_helper
from torch import nn

from edgetune.errors import ExportError, UsageError
from edgetune.files.bundle import read_manifest
from edgetune.files.device_profiles import load_profile
from edgetune.nouns.bundle_names import FEATURES, FROZEN, PREDICT
from edgetune.nouns.plan_request import PlanRequest
from edgetune.runtime.open_session import open_session
from edgetune.runtime.self_test import read_self_test, run_self_test
from edgetune.runtime.session import Array
from tests.zoo import text, vision

FLOAT = onnx.TensorProto.FLOAT
STANDARD = {"Conv", "Gemm", "MatMul", "QuantizeLinear", "DequantizeLinear", "Gather", "Cast", "Mul"}


def convolutions() -> Example:
    """Padded, strided and depthwise convolutions with a residual; a head behind them."""
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 16, 3, stride=2)
            self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
            self.point = nn.Conv2d(16, 16, 1)
            self.head = nn.Linear(16, 4)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.stem(nn.functional.pad(images, (0, 1, 0, 1))))
            x = x + self.point(nn.functional.relu6(self.depthwise(x)))
            found: torch.Tensor = self.head(x.mean(dim=(2, 3)))
            return found

    images, targets = torch.randn(16, 3, 16, 16), torch.arange(16) % 4
    return Example(Net(), images, targets, nn.CrossEntropyLoss())


def planned(example: Example, *patterns: str, int8: bool = True) -> PlannedStep:
    request = PlanRequest(
        load_profile("generic-x86"),
        patterns=patterns,
        batch=4,
        precisions=("int8",) if int8 else ("fp32",),
    )
    return make_plan(example, request)


@pytest.fixture(scope="module")
def rounded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("int8") / "bundle"
    export(convolutions(), planned(convolutions(), "head.*"), ("portable",), out)
    return out


def one_product(kind: str, weight: Array, bias: Array | None = None) -> onnx.ModelProto:
    """x -> kind(x, weight, bias) -> y."""
    inputs = ["x", "w"] + (["b"] if bias is not None else [])
    constants = {"w": weight, **({"b": bias} if bias is not None else {})}
    return model_of(
        helper.make_graph(
            [helper.make_node(kind, inputs, ["y"], name="product")],
            "one",
            [helper.make_tensor_value_info("x", FLOAT, None)],
            [helper.make_tensor_value_info("y", FLOAT, None)],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
    )


def run(model: onnx.ModelProto, **feeds: Array) -> Array:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found: Array = session.run(None, feeds)[0]
    return found


def both(model: onnx.ModelProto, x: Array) -> tuple[Array, Array]:
    """The results of a model in fp32 and in 8 bits."""
    rewrite = Int8Rewrite(model)
    narrow = rewrite.model(observed_ranges(model, rewrite.rounded, [{"x": x}]))
    assert {node.op_type for node in narrow.graph.node} <= STANDARD
    return run(model, x=x), run(narrow, x=x)


DRAW = np.random.default_rng(0)
PRODUCTS = {
    "Conv": (DRAW.standard_normal((8, 4, 3, 3), np.float32), (2, 4, 9, 9)),
    "Gemm": (DRAW.standard_normal((16, 8), np.float32), (5, 16)),
    "MatMul": (DRAW.standard_normal((16, 8), np.float32), (3, 5, 16)),
}


@pytest.mark.parametrize("kind", PRODUCTS)
def test_a_product_in_8_bits_is_within_two_percent_of_fp32(kind: str) -> None:
    weight, shape = PRODUCTS[kind]
    model = one_product(kind, weight, None if kind == "MatMul" else DRAW.random(8, np.float32))
    exact, narrow = both(model, DRAW.standard_normal(shape, np.float32))
    assert 0 < np.linalg.norm(exact - narrow) < 0.02 * np.linalg.norm(exact)


def test_a_channel_of_tiny_weights_keeps_its_bias() -> None:
    weight = DRAW.standard_normal((2, 1, 1, 1), np.float32)
    weight[1] = 1e-20
    model = one_product("Conv", weight, np.array([0.5, 3.0], np.float32))
    _, narrow = both(model, DRAW.standard_normal((1, 1, 4, 4), np.float32))
    assert narrow[0, 1] == pytest.approx(np.full((4, 4), 3.0), rel=0.02)


def test_every_row_of_a_table_has_a_scale_of_its_own() -> None:
    table = DRAW.standard_normal((512, 64), np.float32) * 10.0 ** DRAW.integers(-3, 3, (512, 1))
    graph = helper.make_graph(
        [helper.make_node("Gather", ["t", "x"], ["y"], name="lookup")],
        "lookup",
        [helper.make_tensor_value_info("x", onnx.TensorProto.INT64, [7])],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [numpy_helper.from_array(table.astype(np.float32), "t")],
    )
    exact, narrow = both(model_of(graph), np.arange(7))
    error = np.abs(exact - narrow).max(axis=1) / np.abs(exact).max(axis=1)
    assert error.max() <= 0.5 / 127 * 1.001


@pytest.mark.parametrize(
    ("case", "changes"),
    {
        "scaled": {"alpha": 2.0},
        "transposed data": {"transA": 1},
    }.items(),
)
def test_what_has_no_integer_kernel_stays_fp32(case: str, changes: dict[str, float]) -> None:
    model = one_product("Gemm", *(DRAW.random((4, 4), np.float32) for _ in range(1)))
    model.graph.node[0].attribute.extend(helper.make_attribute(n, v) for n, v in changes.items())
    exact, narrow = both(model, DRAW.random((4, 4), np.float32))
    assert (exact == narrow).all(), case


def test_weights_are_stored_in_a_byte_each(rounded: Path, tmp_path: Path) -> None:
    wide = tmp_path / "wide"
    export(convolutions(), planned(convolutions(), "head.*", int8=False), ("portable",), wide)
    frozen = [(folder / FROZEN).stat().st_size for folder in (rounded, wide)]
    assert frozen[0] < 0.5 * frozen[1]
    kinds = {
        node.op_type for node in onnx.load(rounded / FEATURES, load_external_data=False).graph.node
    }
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    assert "Pad" not in kinds, "zeros around the data are the convolution's own"


def test_the_bundle_says_what_rounding_costs(rounded: Path) -> None:
    manifest, _ = read_manifest(rounded)
    assert manifest.plan.precision == "int8"
    assert manifest.int8 is not None
    assert manifest.int8.samples == 16
    assert abs(manifest.int8.rise) < 0.02
    assert 0 < manifest.int8.feature_error < 0.05


def test_the_recorded_gradients_are_those_behind_the_rounded_features(rounded: Path) -> None:
    session, recorded = open_session(rounded), read_self_test(rounded)
    report = run_self_test(session, recorded)
    assert not report.problems
    assert report.gradients < 0.1, "the same processor rounds the same way"
    features = session.features(recorded.batch.inputs)  # type: ignore[attr-defined]  # portable
    (name,) = features
    pooled = torch.from_numpy(features[name]).reshape(4, 16, -1).mean(dim=2)
    model = convolutions().model
    loss = nn.functional.cross_entropy(
        model.get_submodule("head")(pooled), torch.from_numpy(recorded.batch.targets["targets"])
    )
    (gradient,) = torch.autograd.grad(loss, [model.get_parameter("head.bias")])
    np.testing.assert_allclose(recorded.gradients["head.bias"], gradient, rtol=1e-4, atol=1e-6)


def test_predictions_stand_behind_the_same_rounding_as_training(rounded: Path) -> None:
    session, recorded = open_session(rounded), read_self_test(rounded)
    logits = session.predict(recorded.batch.inputs)["output"]
    targets = torch.from_numpy(recorded.batch.targets["targets"])
    loss = float(nn.functional.cross_entropy(torch.from_numpy(logits), targets))
    assert loss == pytest.approx(recorded.loss, rel=1e-4)
    graph = onnx.load(rounded / PREDICT, load_external_data=False).graph
    assert any(node.op_type == "QuantizeLinear" for node in graph.node)


def test_equal_exports_are_equal_bytes(rounded: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    export(convolutions(), planned(convolutions(), "head.*"), ("portable",), again)
    assert read_manifest(again)[0].digests == read_manifest(rounded)[0].digests


@pytest.mark.parametrize(
    ("factory", "patterns"),
    [
        (vision.mobilenet_v3_small, ("classifier.*",)),
        (text.distilbert, ("*classifier*",)),
    ],
    ids=["MobileNetV3", "DistilBERT"],
)
def test_real_architectures_export_and_verify(
    factory: object, patterns: tuple[str, ...], tmp_path: Path
) -> None:
    example = example_from(factory())  # type: ignore[operator]  # a zoo factory
    plan = planned(example, *patterns)
    reports = export(example, plan, ("portable",), tmp_path / "out", Int8Calibration(tolerance=1))
    assert reports["portable"].gradients <= 1


def test_everything_trained_leaves_nothing_to_round(tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(convolutions(), planned(convolutions(), "*"), ("portable",), out)
    manifest, _ = read_manifest(out)
    assert manifest.int8 is not None and manifest.int8.rise == 0


def test_a_loss_that_rises_too_much_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    plan, out = planned(convolutions(), "head.*"), tmp_path / "out"
    with pytest.raises(ExportError) as raised:
        export(convolutions(), plan, ("portable",), out, Int8Calibration(tolerance=-1.0))
    message = str(raised.value)
    assert "with the frozen prefix in 8 bits the loss of 16 calibration samples rises" in message
    assert "use --precision fp32" in message
    assert not out.exists()


def test_ort_training_has_no_prefix_in_8_bits(tmp_path: Path) -> None:
    plan, out = planned(convolutions(), "head.*"), tmp_path / "out"
    with pytest.raises(UsageError, match="ort-training has no prefix in 8 bits"):
        export(convolutions(), plan, ("ort-training",), out)
    assert not out.exists()


def test_the_plan_takes_int8_where_it_buys_importance() -> None:
    """A budget in which fp32 can train less than 8 bits can, and one in which both can."""
    example = convolutions()
    request = PlanRequest(load_profile("generic-x86"), batch=4, shares=False)
    both_ways = replace(request, precisions=("int8", "fp32"))
    assert make_plan(example, both_ways).plan.precision == "int8", "ties go to less energy"
    assert make_plan(example, request).plan.precision == "fp32"


def test_the_planner_knows_what_the_rewriting_rounds() -> None:
    """Every weight that the planner counts in 8 bits is stored so."""
    example = convolutions()
    step = dense_step(example, 4)
    counted = {o.name for o in step.graph.operations if o.int8_weight}
    forward = [
        n for n in step.lowered.model.graph.node if n.op_type == "Conv" and n.name in counted
    ]
    assert len({node.input[1] for node in forward}) == 3
