"""Bundles: what is in them, when they are refused, and that nothing half-written remains."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from edgetune_exporters import export as export_module
from edgetune_exporters.export import export
from edgetune_exporters.factory import Example
from edgetune_exporters.lowering import lower
from edgetune_exporters.lowering.call import Call
from edgetune_exporters.make_plan import PlannedStep, make_plan
from edgetune_exporters.portable.update_graph import _Update
from torch import nn

from edgetune.errors import ExportError, UsageError
from edgetune.files.bundle import digests_of, read_manifest
from edgetune.files.device_profiles import load_profile
from edgetune.nouns.bundle_names import FEATURES, FROZEN, GRADIENTS, PREDICT
from edgetune.nouns.optimizer import Optimizer
from edgetune.nouns.plan_request import PlanRequest
from edgetune.runtime.open_session import open_session
from edgetune.runtime.self_test import SelfTest, SelfTestReport, read_self_test

ROOT = Path(__file__).resolve().parents[2]
PORTABLE_FILES = {
    "manifest.json", "gradients.onnx", "update.onnx", "evaluate.onnx", "predict.onnx", "frozen.bin",
    "state.safetensors", "selftest.npz", "costs.json",
}  # fmt: skip
ORT_FILES = {
    "manifest.json", "training_model.onnx", "eval_model.onnx", "optimizer_model.onnx", "checkpoint",
    "selftest.npz",
}  # fmt: skip


def example() -> Example:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, 8),
        nn.ReLU(),
        nn.Linear(8, 3),
    )
    return Example(
        model, torch.randn(4, 1, 6, 6), torch.tensor([0, 1, 2, 0]), nn.CrossEntropyLoss()
    )


def planned(*patterns: str, optimizer: Optimizer = Optimizer()) -> PlannedStep:  # noqa: B008
    request = PlanRequest(
        load_profile("raspberry-pi-4b-4gb"), optimizer=optimizer, patterns=patterns, batch=4
    )
    return make_plan(example(), request)


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that trains the last two layers above a frozen prefix."""
    out = tmp_path_factory.mktemp("head") / "bundle"
    export(example(), planned("5.*", "7.*"), ("portable",), out)
    return out


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both formats, everything trainable."""
    out = tmp_path_factory.mktemp("everything") / "bundle"
    reports = export(example(), planned("*"), ("portable", "ort-training"), out)
    assert list(reports) == ["portable", "ort-training"]
    return out


def test_a_portable_bundle_has_the_files_of_the_design(head: Path) -> None:
    assert files_of(head) == PORTABLE_FILES | {"features.onnx"}


def test_without_a_frozen_prefix_there_are_no_features(everything: Path) -> None:
    assert files_of(everything / "portable") == PORTABLE_FILES
    assert read_manifest(everything / "portable")[0].features == ()


def test_two_formats_lie_in_folders_of_their_names(everything: Path) -> None:
    assert {path.name for path in everything.iterdir()} == {"portable", "ort-training"}
    assert files_of(everything / "ort-training") == ORT_FILES
    plans = [read_manifest(everything / name)[0].plan for name in ("portable", "ort-training")]
    assert plans[0] == plans[1]


def test_the_manifest_says_what_was_planned_and_predicted(head: Path) -> None:
    manifest, _ = read_manifest(head)
    plan = planned("5.*", "7.*").plan
    assert manifest.plan == plan
    assert manifest.format == "portable"
    assert manifest.plan.selection.trainable == ("5.weight", "5.bias", "7.weight", "7.bias")
    assert manifest.plan.trainable_count == 16 * 8 + 8 + 8 * 3 + 3
    cost = manifest.plan.cost
    assert cost.peak_bytes > cost.weight_bytes > 0
    assert cost.seconds is not None and cost.joules is not None
    assert str(manifest.signature.inputs[0]) == "input: float32[batch, 1, 6, 6]"
    assert str(manifest.signature.outputs[0]) == "output: float32[batch, 3]"
    assert manifest.digests == digests_of(head)
    assert set(manifest.digests) == files_of(head) - {"manifest.json"}


def external(model: onnx.ModelProto) -> dict[str, dict[str, str]]:
    return {
        i.name: {entry.key: entry.value for entry in i.external_data}
        for i in model.graph.initializer
        if i.external_data
    }


def test_frozen_weights_are_stored_once_and_shared(head: Path) -> None:
    graphs = {
        name: onnx.load(head / name, load_external_data=False)
        for name in (FEATURES, GRADIENTS, PREDICT)
    }
    features, predict = external(graphs[FEATURES]), external(graphs[PREDICT])
    assert features["2.weight"] == predict["2.weight"]
    place = features["2.weight"]
    assert place["location"] == FROZEN
    start, length = int(place["offset"]), int(place["length"])
    stored = (head / FROZEN).read_bytes()
    weight = example().model.state_dict()["2.weight"].numpy()
    assert stored[start : start + length] == weight.tobytes()
    assert stored.count(weight.tobytes()) == 1
    assert len(stored) < 1.1 * weight.nbytes
    assert start % 64 == 0


def test_trainable_values_are_inputs_and_not_stored_in_any_graph(head: Path) -> None:
    for name in (GRADIENTS, PREDICT):
        model = onnx.load(head / name, load_external_data=False)
        assert "7.weight" in {value.name for value in model.graph.input}
        assert "7.weight" not in {tensor.name for tensor in model.graph.initializer}


def test_the_notes_on_modules_stay_on_the_workstation(head: Path) -> None:
    for path in head.glob("*.onnx"):
        model = onnx.load(path, load_external_data=False)
        assert not any(node.doc_string for node in model.graph.node)
        assert (model.opset_import[0].version, model.ir_version) == (18, 9)


def test_predictions_are_those_of_the_module(head: Path, everything: Path) -> None:
    model = example()
    expected = model.model(model.inputs).detach().numpy()
    for folder in (head, everything / "portable", everything / "ort-training"):
        found = open_session(folder).predict({"input": model.inputs.numpy()})["output"]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def one_percent_more(kind: str) -> Callable[[Call], Any]:
    original = lower.LOWERINGS[kind]

    def wrong(call: Call) -> str:
        return call.op("Mul", [original(call), call.scalar(1.01, torch.float32)])

    return wrong


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        pytest.param("aten.mm.default", r"the gradient of 5.weight is off by .*, largest", id="mm"),
        pytest.param("aten.addmm.default", "the gradient of 7.weight is off", id="addmm"),
        pytest.param("aten.convolution.default", "the gradient of 0.weight is off", id="conv"),
        pytest.param("aten._log_softmax.default", r"the loss is .*, PyTorch's is", id="softmax"),
    ],
)
def test_an_operator_that_is_wrong_by_one_percent_is_found(
    kind: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(lower.LOWERINGS, kind, one_percent_more(kind))
    plan = planned("*")
    with pytest.raises(ExportError, match=message) as caught:
        export(example(), plan, ("portable",), tmp_path / "bundle")
    assert "does not compute what PyTorch computes, so nothing was written" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["adamw", "sgd-momentum"])
def test_an_update_that_is_wrong_is_found(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    single = _Update.single

    def wrong(self: _Update, *arguments: str) -> str:
        found = single(self, *arguments)
        return self.op("Mul", [found, self.constant(np.float32(1.01))])

    monkeypatch.setattr(_Update, "single", wrong)
    plan = planned("7.*", optimizer=Optimizer(kind))
    with pytest.raises(ExportError, match=r"update 1 of 7.weight differs from torch.optim's"):
        export(example(), plan, ("portable",), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_leaves_the_bundle_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "bundle"
    export(example(), planned("7.*"), ("portable",), out)
    before = digests_of(out)
    monkeypatch.setitem(lower.LOWERINGS, "aten.mm.default", one_percent_more("aten.mm.default"))
    wrong = planned("*")
    with pytest.raises(ExportError):
        export(example(), wrong, ("portable",), out)
    assert digests_of(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_an_existing_bundle_is_replaced_as_a_whole(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    export(example(), planned("*"), ("portable",), out)
    export(example(), planned("7.*"), ("ort-training",), out)
    assert files_of(out) == ORT_FILES
    assert read_manifest(out)[0].plan.selection.trainable == ("7.weight", "7.bias")


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    out.mkdir()
    export(example(), planned("7.*"), ("portable",), out)
    assert read_manifest(out)[0].format == "portable"


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="exists and is not a bundle: choose a new folder"):
        export(example(), planned("7.*"), ("portable",), tmp_path)
    assert files_of(tmp_path) == {"thesis.txt"}


def test_a_file_in_the_way_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    out.write_text("a file")
    with pytest.raises(UsageError, match="is a file: expected a folder"):
        export(example(), planned("7.*"), ("portable",), out)
    assert out.read_text() == "a file"


@pytest.mark.parametrize("formats", [("tflite",), ()])
def test_an_unknown_format_is_refused(formats: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected portable or ort-training"):
        export(example(), planned("7.*"), formats, tmp_path / "bundle")


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.factor = nn.Linear(4, 3), 1.0

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(data) * self.factor
        return out


def test_a_model_that_changed_since_it_was_planned_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, data = Scaled(), torch.ones(4, 4)
    scaled = Example(model, data, torch.zeros(4).long(), nn.CrossEntropyLoss())
    plan = make_plan(scaled, PlanRequest(load_profile("generic-x86"), patterns=("*",), batch=4))
    model.factor = 2.0
    with pytest.raises(ExportError, match="predicts something else than the module"):
        export(scaled, plan, ("portable",), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


PROGRAM = """
import sys
from pathlib import Path
from tests.export.test_export import example, export, planned
export(example(), planned("5.*", "7.bias"), ("portable", "ort-training"), Path(sys.argv[1]))
"""


def test_another_process_writes_the_same_bytes(tmp_path: Path) -> None:
    export(example(), planned("5.*", "7.bias"), ("portable", "ort-training"), tmp_path / "here")
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, str(tmp_path / "there")],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'exporters'}", "PYTHONHASHSEED": "7"},
        check=True,
        capture_output=True,
    )
    digests = [
        {
            name: hashlib.sha256((tmp_path / where / name).read_bytes()).hexdigest()
            for name in files_of(tmp_path / where)
        }
        for where in ("here", "there")
    ]
    assert digests[0] == digests[1]


def test_the_manifest_is_sorted_json(head: Path) -> None:
    text = (head / "manifest.json").read_text()
    assert text == json.dumps(json.loads(text), indent=1, sort_keys=True) + "\n"


def test_a_coincidence_is_looked_at_again_on_larger_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []

    def differing_once(session: Any, recorded: SelfTest) -> SelfTestReport:
        seen.append(float(recorded.batch.inputs["input"].flat[0]))
        problems = ("the gradient of 5.bias is off by 0.1",) if len(seen) == 1 else ()
        return SelfTestReport(0.0, 0.0, 0.0, problems)

    monkeypatch.setattr(export_module, "run_every_self_test", differing_once)
    export(example(), planned("5.*"), ("portable",), tmp_path / "out")
    assert seen[1] == pytest.approx(1.003 * seen[0])
    recorded = read_self_test(tmp_path / "out").batch.inputs["input"]
    assert float(recorded.flat[0]) == seen[1], "the device checks itself on what agreed"
