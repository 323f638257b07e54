"""Real architectures: exported in both formats, verified, and trained for three steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgetune_exporters import make_plan as planning
from edgetune_exporters.dense_step import DenseStep, dense_step, lowered_forward
from edgetune_exporters.export import export
from edgetune_exporters.factory import Example, example_from
from edgetune_exporters.lowering.lower import LoweredStep
from edgetune_exporters.make_plan import PlannedStep, make_plan
from edgetune_exporters.portable import predict_graph

from edgetune.errors import ExportError
from edgetune.files.device_profiles import load_profile
from edgetune.nouns.optimizer import Optimizer
from edgetune.nouns.plan_request import PlanRequest
from edgetune.runtime.open_session import open_session
from edgetune.runtime.session import MicroBatch, TrainingSession
from tests.zoo import mlp, sequence, text, vision

# transformers deprecates what peft still asks it for.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)

MICRO_BATCH = 2
LAST_LAYERS: dict[Callable[[], Any], str] = {
    vision.resnet18: "layer4.1.*",
    vision.mobilenet_v3_small: "classifier.*",
    vision.efficientnet_b0_like: "features.12.*",
    vision.unet: "join1.*",
    vision.unet_bilinear: "up1.*",
    vision.vit_tiny: "model.classifier.*",
    text.distilbert: "model.distilbert.transformer.layer.1.*",
    text.distilbert_as_published: "classifier.*",
    text.gpt2_tiny: "model.transformer.h.1.*",
    text.peft_lora: "*lora_*",
    sequence.lstm_classifier: "head.*",
    sequence.gru_classifier: "rnn.bias*",
    sequence.audio_cnn: "head.*",
    sequence.cnn1d: "features.7.*",
    mlp.regression: "fc2.*",
    mlp.multi_label: "head.bias",
}
"""What stands for the end of each model; below it everything is a frozen prefix."""

REFUSED_BY_ORT_TRAINING = {vision.unet: "ConvTranspose", sequence.audio_cnn: "ReduceMax"}


@cache
def example_of(factory: Callable[[], Any]) -> Example:
    return example_from(factory())


@cache
def dense_step_of(factory: Callable[[], Any]) -> DenseStep:
    return dense_step(example_of(factory), MICRO_BATCH)


@cache
def forward_of(factory: Callable[[], Any], batch: int) -> LoweredStep:
    return lowered_forward(example_of(factory), batch)


def plan_of(
    factory: Callable[[], Any],
    pattern: str,
    optimizer: Optimizer,
    monkeypatch: pytest.MonkeyPatch,
) -> PlannedStep:
    """The plan of a selection; what does not depend on it is lowered once."""
    monkeypatch.setattr(planning, "dense_step", lambda *arguments: dense_step_of(factory))
    monkeypatch.setattr(
        predict_graph, "lowered_forward", lambda example, batch: forward_of(factory, batch)
    )
    request = PlanRequest(
        load_profile("generic-x86"), optimizer=optimizer, patterns=(pattern,), batch=MICRO_BATCH
    )
    return make_plan(example_of(factory), request)


def batch_of(step: DenseStep, number: int) -> MicroBatch:
    """The sample micro-batch with weights of its own for each step."""
    weights = np.random.default_rng(number).uniform(0.2, 1.0, MICRO_BATCH).astype(np.float32)
    return MicroBatch(
        {name: value.numpy() for name, value in step.model.inputs.items()},
        {name: value.numpy() for name, value in step.targets.items()},
        weights,
    )


def autograd(
    step: DenseStep, values: Mapping[str, np.ndarray[Any, Any]], batch: MicroBatch
) -> tuple[float, dict[str, np.ndarray[Any, Any]]]:
    """Loss and gradients by PyTorch, at `values`."""
    trained = {name: torch.tensor(value, requires_grad=True) for name, value in values.items()}
    tensors = {**step.model.parameters, **step.model.constants, **step.model.inputs, **trained}
    terms = step.loss.per_sample(step.model.run(tensors), step.targets["targets"])
    total = (terms * torch.from_numpy(batch.scale)).sum()
    gradients = torch.autograd.grad(total, list(trained.values()))
    return total.item(), {n: g.numpy() for n, g in zip(trained, gradients, strict=True)}


def train_three_steps(session: TrainingSession, step: DenseStep, rate: float) -> None:
    """Assert at each step that loss and gradients are PyTorch's, and that values move."""
    for number in range(3):
        values, batch = session.values(), batch_of(step, number)
        result = session.accumulate(batch)
        loss, expected = autograd(step, values, batch)
        assert result.loss == pytest.approx(loss, rel=1e-4, abs=1e-5)
        largest = max(float(np.abs(g).max()) for g in expected.values())
        for name, found in session.gradients().items():
            allowed = 2e-3 * float(np.abs(expected[name]).max()) + 2e-5 * largest
            np.testing.assert_allclose(found, expected[name], rtol=0, atol=allowed, err_msg=name)
        norm = session.update(rate, 1.0)
        squares = sum(float((g.astype(np.float64) ** 2).sum()) for g in expected.values())
        assert norm == pytest.approx(squares**0.5, rel=1e-3)
        moved = [n for n, value in session.values().items() if not np.array_equal(value, values[n])]
        large = [n for n, g in expected.items() if float(np.abs(g).max()) > 1e-2 * largest]
        assert set(large) <= set(moved)


@pytest.mark.parametrize("factory", LAST_LAYERS, ids=lambda factory: factory.__name__)
def test_everything_is_exported_and_trained(
    factory: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan_of(factory, "*", Optimizer("adamw", weight_decay=0.01), monkeypatch)
    both = factory not in REFUSED_BY_ORT_TRAINING
    formats = ("portable", "ort-training") if both else ("portable",)
    reports = export(example_of(factory), planned, formats, tmp_path / "bundle")
    assert reports.keys() == set(formats)
    assert not any(report.problems for report in reports.values())
    names = {name for name, _ in example_of(factory).model.named_parameters()}
    assert set(planned.plan.selection.trainable) <= names
    folder = tmp_path / "bundle" / "portable" if both else tmp_path / "bundle"
    assert not (folder / "features.onnx").exists()
    train_three_steps(open_session(folder), planned.step, 1e-3)


@pytest.mark.parametrize("factory", LAST_LAYERS, ids=lambda factory: factory.__name__)
def test_the_last_layers_are_exported_and_trained(
    factory: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan_of(factory, LAST_LAYERS[factory], Optimizer("sgd-nesterov"), monkeypatch)
    assert 0 < planned.plan.trainable_share < 1
    export(example_of(factory), planned, ("portable",), tmp_path / "bundle")
    session = open_session(tmp_path / "bundle")
    assert (tmp_path / "bundle" / "features.onnx").exists() == bool(session.manifest.features)
    assert session.manifest.features, "the frozen prefix is missing"
    train_three_steps(session, planned.step, 1e-2)


@pytest.mark.parametrize(
    ("factory", "operator"),
    [
        pytest.param(factory, operator, id=factory.__name__)
        for factory, operator in REFUSED_BY_ORT_TRAINING.items()
    ],
)
def test_ort_training_refuses_by_name_what_it_cannot_differentiate(
    factory: Callable[[], Any], operator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan_of(factory, "*", Optimizer("adamw"), monkeypatch)
    with pytest.raises(ExportError, match=operator):
        export(example_of(factory), planned, ("ort-training",), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []
