"""Bundles that train slices of tensors, from export to merge, in both formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from edgetune_exporters.factory import TARGETS, Example
from edgetune_exporters.reference import torch_optimizer
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F  # noqa: N812

from edgetune.files.onnx_weights import read_initializers
from edgetune.nouns.optimizer import Optimizer
from edgetune.nouns.slices import take_slices
from edgetune.runtime.open_session import open_session
from edgetune.runtime.session import Array, Arrays, MicroBatch, TrainingSession
from tests.export.share_examples import CASES, FORMATS, Case, batch_of, exported

Bundles = dict[str, Path]


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = CASES[request.param]
    return found


@pytest.fixture(scope="module")
def bundles(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    return exported(case, tmp_path_factory.mktemp("bundles") / "out")


@pytest.fixture(params=FORMATS)
def folder(bundles: Bundles, request: pytest.FixtureRequest) -> Path:
    return bundles[request.param]


@pytest.fixture
def session(folder: Path) -> TrainingSession:
    return open_session(folder)


class SlicesOnly:
    """The example's model in PyTorch; slices are parameters of their own, all else constants."""

    def __init__(self, case: Case, optimizer: Optimizer, learning_rate: float) -> None:
        self._example, self._selection = case.example(), case.selection()
        self._frozen = {n: p.detach().clone() for n, p in self._example.model.named_parameters()}
        self.values = {
            name: nn.Parameter(torch.from_numpy(take_slices(self._frozen[name].numpy(), share)))
            for name, share in (
                (name, self._selection.shares.get(name)) for name in self._selection.trainable
            )
        }
        self._optimizer = torch_optimizer(optimizer, list(self.values.values()), learning_rate)

    def whole(self, name: str) -> Tensor:
        share = self._selection.shares.get(name)
        if share is None:
            return self.values[name]
        indices = torch.tensor(share.indices)
        return self._frozen[name].index_copy(share.axis, indices, self.values[name])

    def loss(self, batch: MicroBatch) -> Tensor:
        tensors = {**self._frozen, **{name: self.whole(name) for name in self.values}}
        (data,) = batch.inputs.values()
        outputs = functional_call(self._example.model, tensors, (torch.from_numpy(data),))
        targets = torch.from_numpy(batch.targets[TARGETS])
        terms = F.cross_entropy(outputs, targets, reduction="none")
        return (terms * torch.from_numpy(batch.scale)).sum()

    def train(self, batch: MicroBatch, clip_norm: float | None) -> float:
        self._optimizer.zero_grad()
        loss = self.loss(batch)
        loss.backward()
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(list(self.values.values()), clip_norm)
        self._optimizer.step()
        return float(loss.detach())


def train(session: TrainingSession, example: Example, steps: range) -> None:
    for step in steps:
        session.accumulate(batch_of(example, step))
        session.update(0.01, 1.0)


def assert_same_bits(found: Arrays, expected: Arrays) -> None:
    assert list(found) == list(expected)
    assert {n: v.tobytes() for n, v in found.items()} == {
        n: v.tobytes() for n, v in expected.items()
    }


def test_loss_and_gradients_of_the_slices_are_pytorchs(
    session: TrainingSession, case: Case
) -> None:
    reference, batch = SlicesOnly(case, Optimizer(), 0.01), batch_of(case.example(), 0)
    loss = reference.loss(batch)
    loss.backward()
    assert session.accumulate(batch).loss == pytest.approx(float(loss.detach()), rel=1e-5)
    gradients = session.gradients()
    assert set(gradients) == set(case.selection().trainable)
    for name, value in reference.values.items():
        assert value.grad is not None
        np.testing.assert_allclose(gradients[name], value.grad.numpy(), rtol=1e-4, atol=1e-6)
    assert any(np.abs(gradient).max() > 1e-3 for gradient in gradients.values())


def test_values_outside_of_the_slices_never_change(
    session: TrainingSession, case: Case, tmp_path: Path
) -> None:
    train(session, case.example(), range(4))
    session.write_inference_model(tmp_path / "model.onnx")
    names = [name for name, _ in case.example().model.named_parameters()]
    tuned = read_initializers((tmp_path / "model.onnx").read_bytes(), tmp_path, names)
    initial = {n: p.detach().numpy() for n, p in case.example().model.named_parameters()}
    selection, values = case.selection(), session.values()
    for name in selection.trainable:
        share = selection.shares.get(name)
        assert take_slices(tuned[name], share).tobytes() == values[name].tobytes()
        assert not np.array_equal(take_slices(initial[name], share), values[name])
        if share is not None:
            outside = np.delete(tuned[name], share.indices, share.axis)
            kept = np.delete(initial[name], share.indices, share.axis)
            assert outside.tobytes() == kept.tobytes()
    assert all(tuned[n].tobytes() == initial[n].tobytes() for n in set(tuned) - set(values))


def test_resuming_continues_bit_for_bit(session: TrainingSession, case: Case) -> None:
    example = case.example()
    train(session, example, range(2))
    state = session.state()
    train(session, example, range(2, 5))
    expected = session.values()
    session.load_state(state)
    train(session, example, range(2, 5))
    assert_same_bits(session.values(), expected)


def test_values_go_round(session: TrainingSession, case: Case) -> None:
    initial = session.values()
    train(session, case.example(), range(2))
    tuned = session.values()
    session.load_values(initial)
    assert_same_bits(session.values(), initial)
    session.load_values(tuned)
    assert_same_bits(session.values(), tuned)


def test_the_merged_model_predicts_what_the_session_does(
    folder: Path, case: Case, tmp_path: Path
) -> None:
    session, example = open_session(folder), case.example()
    train(session, example, range(3))
    inputs = batch_of(example, 9).inputs
    session.write_inference_model(tmp_path / "model.onnx")
    merged = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    found: Array = merged.run(None, dict(inputs))[0]
    (expected,) = session.predict(inputs).values()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    (untrained,) = open_session(folder).predict(inputs).values()
    assert np.abs(found - untrained).max() > 1e-3


def test_both_formats_make_the_same_model(case: Case, bundles: Bundles, tmp_path: Path) -> None:
    models = []
    for name, folder in bundles.items():
        session = open_session(folder)
        session.write_inference_model(tmp_path / name)
        models.append(read_initializers((tmp_path / name).read_bytes(), tmp_path))
    wholes = {n: tuple(p.shape) for n, p in case.example().model.named_parameters()}
    for model in models:
        assert {n: model[n].shape for n in wholes} == wholes
    for name in wholes:
        assert models[0][name].tobytes() == models[1][name].tobytes()


def test_the_manifest_says_which_slices(bundles: Bundles, case: Case) -> None:
    for folder in bundles.values():
        assert open_session(folder).manifest.plan.selection == case.selection()


OPTIMIZERS = {
    "adamw": (Optimizer(weight_decay=0.1), FORMATS),
    "momentum": (Optimizer("sgd-momentum", weight_decay=0.01), ("portable",)),
    "nesterov": (Optimizer("sgd-nesterov"), ("portable",)),
    "sgd": (Optimizer("sgd"), FORMATS),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_is_torch_optims_of_the_slices(name: str, tmp_path: Path) -> None:
    optimizer, formats = OPTIMIZERS[name]
    case = CASES["mlp, outputs and wholes"]
    for folder in exported(case, tmp_path / "out", optimizer, formats).values():
        session, reference = open_session(folder), SlicesOnly(case, optimizer, 0.05)
        for step, clip_norm in enumerate((None, 0.1, None)):
            batch = batch_of(case.example(), step)
            loss = session.accumulate(batch).loss
            session.update(0.05, clip_norm)
            assert loss == pytest.approx(reference.train(batch, clip_norm), rel=1e-4)
        found = session.values()
        for parameter, value in reference.values.items():
            np.testing.assert_allclose(found[parameter], value.detach(), rtol=1e-3, atol=1e-5)
