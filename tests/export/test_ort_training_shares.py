"""Forward graphs rewritten so that ONNX Runtime trains slices."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from edgetune_exporters.ort_training import write_ort_training
from edgetune_exporters.ort_training_rewrites import prepare_for_ort
from edgetune_exporters.ort_training_shares import with_shares
from onnxruntime import InferenceSession

from edgetune.errors import ExportError
from edgetune.nouns.candidate import Share
from edgetune.nouns.optimizer import Optimizer
from edgetune.nouns.slices import NO_SHARES, Shares, take_slices
from edgetune.runtime.ort_training_session import OrtTrainingSession
from tests.export.onnx_loss import attach_loss
from tests.export.ort_examples import (
    CROSS_ENTROPY,
    EXAMPLES,
    Example,
    batch_of,
    manifest_of,
    node,
    torch_parameters,
)


@dataclass(frozen=True)
class Case:
    """joined: tensors whose whole gradient is computed nevertheless. trainable: all without."""

    example: str
    shares: Shares
    joined: tuple[str, ...] = ()
    trainable: tuple[str, ...] = ()


CASES = {
    "linear, inputs": Case(
        "mlp", {"fc1.weight": Share(1, (0, 3, 4)), "fc2.weight": Share(1, (15,))}
    ),
    "linear, outputs": Case("mlp", {"fc1.weight": Share(0, (0, 3)), "fc2.weight": Share(0, (1,))}),
    "first slices": Case("mlp", {"fc1.weight": Share(0, (0, 1)), "fc2.weight": Share(1, (0,))}),
    "below everything frozen": Case("mlp", {"fc2.weight": Share(1, (3, 5))}, (), ("fc2.weight",)),
    "outputs, bias frozen": Case("mlp", {"fc1.weight": Share(0, (2,))}, (), ("fc1.weight",)),
    "bias": Case("mlp", {"fc1.bias": Share(0, (1, 2))}, ("fc1.bias",)),
    "convolution, inputs": Case("conv", {"stem.weight": Share(1, (1,))}),
    "convolution, outputs": Case("conv", {"stem.weight": Share(0, (1, 2, 5))}),
    "kernel rows": Case("conv", {"stem.weight": Share(2, (1,))}, ("stem.weight",)),
    "depthwise": Case("conv", {"depthwise.weight": Share(0, (0, 2, 7))}, ("depthwise.weight",)),
    "product, inputs and outputs": Case(
        "attention", {"q": Share(0, (1,)), "k": Share(1, (0, 5, 6)), "v": Share(0, (1, 5))}
    ),
    "transposed first": Case("attention", {"head.weight": Share(1, (0, 2))}, ("head.weight",)),
    "rows": Case("embedding", {"table": Share(0, (0, 2, 3, 10)), "head.weight": Share(1, (5,))}),
    "rows alone": Case("embedding", {"table": Share(0, (1, 4))}, (), ("table",)),
    "columns of an embedding": Case("embedding", {"table": Share(1, (0, 2))}, ("table",)),
}


def opened(case: Case, folder: Path) -> OrtTrainingSession:
    example = EXAMPLES[case.example]()
    trainable = case.trainable or tuple(example.parameters)
    forward = attach_loss(example.model(), CROSS_ENTROPY)
    write_ort_training(forward, trainable, Optimizer(), folder, case.shares)
    return OrtTrainingSession(folder, manifest_of(example, trainable, Optimizer()), "digest")


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradients_of_the_slices_are_torchs(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    session, example = opened(case, tmp_path), EXAMPLES[case.example]()
    batch, parameters = batch_of(example), torch_parameters(example, case.trainable)
    loss = example.loss(parameters, batch)
    loss.backward()
    assert session.accumulate(batch).loss == pytest.approx(float(loss.detach()), rel=1e-5)
    gradients = session.gradients()
    assert set(gradients) == {n for n, p in parameters.items() if p.requires_grad}
    for parameter, gradient in gradients.items():
        of_whole = parameters[parameter].grad
        assert of_whole is not None
        expected = take_slices(of_whole.numpy(), case.shares.get(parameter))
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_only_the_slices_have_a_weight_gradient(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    opened(case, tmp_path)
    model = onnx.load(tmp_path / "training_model.onnx")
    made = {output for node in model.graph.node for output in node.output}
    for parameter in case.shares:
        assert f"{parameter}_grad" in made
        assert f"{parameter}:frozen_grad" not in made
        assert (f"{parameter}:whole_grad" in made) == (parameter in case.joined)


def rewritten(example: Example, shares: Shares) -> onnx.ModelProto:
    return with_shares(prepare_for_ort(example.model()), shares)


def test_without_shares_nothing_changes() -> None:
    prepared = prepare_for_ort(EXAMPLES["mlp"]().model())
    assert with_shares(prepared, NO_SHARES) == prepared


def test_all_slices_are_the_tensor() -> None:
    example = EXAMPLES["mlp"]()
    everything = {"fc1.weight": Share(1, tuple(range(8)))}
    assert rewritten(example, everything) == prepare_for_ort(example.model())


def test_what_nothing_reads_is_left_out() -> None:
    """A tensor would be joined, and its whole gradient computed, for nobody."""
    mlp = EXAMPLES["mlp"]()
    unread = node("Transpose", "fc1.weight", "turned", perm=[1, 0])
    model = rewritten(replace(mlp, nodes=[*mlp.nodes, unread]), {"fc1.weight": Share(1, (0, 3))})
    made = {name for n in model.graph.node for name in n.output}
    assert made.isdisjoint({"turned", "fc1.weight:whole"})


def test_the_model_that_is_rewritten_stays_as_it_was() -> None:
    prepared = prepare_for_ort(EXAMPLES["mlp"]().model())
    before = prepared.SerializeToString(deterministic=True)
    with_shares(prepared, {"fc1.weight": Share(1, (0, 3))})
    assert prepared.SerializeToString(deterministic=True) == before


def test_a_tensor_with_two_readers_is_split_for_each() -> None:
    """Tied: rows of an embedding are the outputs of a product, too."""
    embedding = EXAMPLES["embedding"]()
    tied = replace(
        embedding,
        nodes=[
            *embedding.nodes[:3],
            node("Gemm", "t table", "all", transB=1),
            node("Slice", "all zero three one", "y"),
        ],
        parameters={"table": embedding.parameters["table"]},
        constants={**embedding.constants, "zero": np.array([0]), "three": np.array([3])},
    )
    model = rewritten(tied, {"table": Share(0, (1, 4))})
    readers = sorted(n.op_type for n in model.graph.node if "table" in n.input)
    assert readers == ["Gather", "Gemm"]
    found, expected = (
        InferenceSession(m.SerializeToString()).run(None, tied.inputs)[0]
        for m in (model, tied.model())
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("share", "message"),
    [
        (Share(1, (0, 8)), "fc1.weight: there is no slice 8 along axis 1, expected 0 to 7"),
        (Share(2, (0,)), "fc1.weight: has slices along axis 2"),
        (Share(0, ()), "fc1.weight: the indices of its slices are none"),
    ],
)
def test_slices_that_are_not_there_are_refused(share: Share, message: str) -> None:
    with pytest.raises(ExportError, match=f"cannot train these slices: {message}"):
        rewritten(EXAMPLES["mlp"](), {"fc1.weight": share})
