"""ONNX Runtime training artifacts against torch autograd and torch.optim."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from edgetune_exporters.ort_training import ORT_TRAINING_FILES, write_ort_training

from edgetune.nouns.optimizer import Optimizer
from tests.export.ort_examples import (
    EXAMPLES,
    attention,
    batch_of,
    convolutional,
    mlp,
    session_of,
    torch_parameters,
    with_loss,
)

pytest.importorskip("onnxruntime.training.api", exc_type=ImportError)


@pytest.mark.parametrize("name", EXAMPLES)
def test_loss_correct_and_outputs_equal_torch(name: str, tmp_path: Path) -> None:
    example = EXAMPLES[name]()
    session, batch = session_of(example, tmp_path), batch_of(example)
    parameters = torch_parameters(example)
    loss = example.loss(parameters, batch).item()
    output = example.reference(
        parameters, {n: torch.from_numpy(a) for n, a in batch.inputs.items()}
    )
    correct = int((output.argmax(1).numpy() == batch.targets["targets"]).sum())
    for result in (session.evaluate(batch), session.accumulate(batch)):
        assert result.loss == pytest.approx(loss, rel=1e-5)
        assert result.correct == correct
    np.testing.assert_allclose(
        session.predict(batch.inputs)["y"], output.detach().numpy(), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_gradient_equals_autograd(name: str, tmp_path: Path) -> None:
    example = EXAMPLES[name]()
    session, batch = session_of(example, tmp_path, optimizer=Optimizer("sgd")), batch_of(example)
    parameters = torch_parameters(example)
    example.loss(parameters, batch).backward()
    session.accumulate(batch)
    before = session.values()
    norm = session.update(1.0, None)  # SGD with rate 1 moves by the gradient
    gradients = {n: p.grad.numpy() for n, p in parameters.items() if p.grad is not None}
    assert gradients.keys() == before.keys()
    for key, after in session.values().items():
        np.testing.assert_allclose(before[key] - after, gradients[key], rtol=1e-4, atol=2e-6)
    squares = sum(float((g.astype(np.float64) ** 2).sum()) for g in gradients.values())
    assert norm == pytest.approx(squares**0.5, rel=1e-5)


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize(
    "optimizer",
    [
        Optimizer("adamw"),
        Optimizer("adamw", weight_decay=0.1, beta1=0.8, beta2=0.95, epsilon=1e-3),
        Optimizer("sgd"),
    ],
    ids=["adamw", "adamw-decay", "sgd"],
)
def test_three_updates_equal_torch_optim(name: str, optimizer: Optimizer, tmp_path: Path) -> None:
    example = EXAMPLES[name]()
    session = session_of(example, tmp_path, optimizer=optimizer)
    parameters = torch_parameters(example)
    reference: torch.optim.Optimizer
    if optimizer.kind == "sgd":
        reference = torch.optim.SGD(parameters.values(), lr=1.0)
    else:
        reference = torch.optim.AdamW(
            parameters.values(),
            lr=1.0,
            betas=(optimizer.beta1, optimizer.beta2),
            eps=optimizer.epsilon,
            weight_decay=optimizer.weight_decay,
        )
    for step, rate in enumerate((0.01, 0.005, 0.02)):
        reference.param_groups[0]["lr"] = rate
        reference.zero_grad()
        for part in range(2):  # accumulation over two micro-batches
            batch = batch_of(example, seed=10 * step + part)
            example.loss(parameters, batch).backward()
            session.accumulate(batch)
        reference.step()
        session.update(rate, None)
        for key, value in session.values().items():
            expected = parameters[key].detach().numpy()
            # A bias under softmax has gradients of rounding size, which Adam blows up to the rate.
            atol = 2e-5 if optimizer.kind == "adamw" else 1e-6
            np.testing.assert_allclose(value, expected, rtol=1e-4, atol=atol, err_msg=key)


@pytest.mark.parametrize("clip", [0.01, 1e9])
def test_clipping_equals_torch(clip: float, tmp_path: Path) -> None:
    example = mlp()
    session, batch = session_of(example, tmp_path, optimizer=Optimizer("sgd")), batch_of(example)
    parameters = torch_parameters(example)
    example.loss(parameters, batch).backward()
    expected = torch.nn.utils.clip_grad_norm_(list(parameters.values()), clip).item()
    torch.optim.SGD(parameters.values(), lr=0.5).step()
    session.accumulate(batch)
    assert session.update(0.5, clip) == pytest.approx(expected, rel=1e-5)
    for key, value in session.values().items():
        np.testing.assert_allclose(value, parameters[key].detach().numpy(), rtol=1e-5, atol=1e-7)


def test_zero_bias_is_trained(tmp_path: Path) -> None:
    example = mlp()
    session = session_of(example, tmp_path, ("fc1.bias",))
    assert not session.values()["fc1.bias"].any()
    session.accumulate(batch_of(example))
    session.update(0.01, None)
    assert session.values()["fc1.bias"].any()


def test_frozen_weights_are_embedded_and_checkpoint_holds_only_the_trainable(
    tmp_path: Path,
) -> None:
    example = convolutional()
    session_of(example, tmp_path / "all")
    session = session_of(example, tmp_path / "head", ("head.weight", "head.bias"))
    assert set(session.values()) == {"head.weight", "head.bias"}
    sizes = [(tmp_path / kind / "checkpoint").stat().st_size for kind in ("all", "head")]
    assert sizes[1] < sizes[0] / 2
    training = onnx.load(tmp_path / "head" / "training_model.onnx").graph
    inputs = {value.name for value in training.input}
    assert "head.weight" in inputs and "stem.weight" not in inputs
    assert "stem.weight" in {tensor.name for tensor in training.initializer}


def test_files_have_a_loadable_ir_version(tmp_path: Path) -> None:
    session_of(mlp(), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(ORT_TRAINING_FILES)
    for name in ORT_TRAINING_FILES[:3]:
        assert onnx.load(tmp_path / name).ir_version <= 10


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_bytes_are_deterministic(kind: str, tmp_path: Path) -> None:
    digests = []
    for run in ("one", "two"):
        session_of(attention(), tmp_path / run, optimizer=Optimizer(kind))
        files = [(tmp_path / run / name).read_bytes() for name in ORT_TRAINING_FILES]
        digests.append([hashlib.sha256(data).hexdigest() for data in files])
    assert digests[0] == digests[1]


def test_native_log_is_silenced_and_restored(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    forward = with_loss(mlp())
    write_ort_training(forward, ["fc1.weight"], Optimizer(), tmp_path)
    assert capfd.readouterr().err == ""
