"""Gradients of shares: PyTorch's values, at the share's cost."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import onnx
import pytest
import torch
from edgetune_exporters.decompositions import convolutions
from edgetune_exporters.dense_step import DenseStep, dense_step
from edgetune_exporters.factory import Example, example_from
from edgetune_exporters.slicing.share_gradients import with_share_gradients
from edgetune_exporters.step_graph import step_graph
from torch import Tensor, nn

from edgetune.nouns.candidate import Candidate, Share
from tests.export.lowered import weighted_sum
from tests.export.share_cases import (
    Shared,
    assert_slices_of_autograd,
    with_shares,
)
from tests.zoo import mlp, sequence, text, vision

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)

ZOO = (
    vision.resnet18,
    vision.mobilenet_v3_small,
    vision.efficientnet_b0_like,
    vision.unet,
    vision.unet_bilinear,
    vision.vit_tiny,
    text.distilbert,
    text.gpt2_tiny,
    text.peft_lora,
    sequence.lstm_classifier,
    sequence.gru_classifier,
    sequence.audio_cnn,
    sequence.cnn1d,
    mlp.regression,
)
IMAGES = torch.randn(3, 8, 9, 9, generator=torch.Generator().manual_seed(0))
SIGNAL, VOLUME = IMAGES[..., 0], IMAGES[:, :, :6, :6, None].expand(-1, -1, -1, -1, 6).contiguous()
TOKENS = torch.tensor([[1, 4, 4, 0], [9, 1, 1, 1], [15, 2, 8, 4]])


class Residual(nn.Module):
    """Two layers on the same data, summed: their weights have one and the same gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(9, 8, bias=False), nn.Linear(9, 8, bias=False)

    def forward(self, data: Tensor) -> Tensor:
        return torch.tanh(self.one(data) + self.other(data))


class Attention(nn.Module):
    """Self-attention whose projections have no bias."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, bias=False, batch_first=True)

    def forward(self, data: Tensor) -> Tensor:
        return self.attention(data, data, data, need_weights=False)[0]


LAYERS: dict[str, tuple[nn.Module, Tensor]] = {
    "convolution": (nn.Conv2d(8, 16, 3), IMAGES),
    "strided": (nn.Conv2d(8, 12, 3, stride=2, padding=1), IMAGES),
    "dilated": (nn.Conv2d(8, 8, 3, dilation=2), IMAGES),
    "strided pointwise": (nn.Conv2d(8, 16, 1, stride=2), IMAGES),
    "pointwise, one product per sample": (nn.Conv2d(8, 4, 1), IMAGES),
    "pointwise, one product": (nn.Conv2d(8, 32, 1), IMAGES[:, :, :2, :2]),
    "uneven kernel": (nn.Conv2d(8, 8, (1, 5), padding=(0, 2)), IMAGES),
    "grouped": (nn.Conv2d(8, 24, 3, groups=4), IMAGES),
    "grouped and strided": (nn.Conv2d(8, 32, 3, stride=2, groups=2), IMAGES),
    "grouped pointwise": (nn.Conv2d(8, 16, 1, groups=2), IMAGES),
    "depthwise": (nn.Conv2d(8, 8, 3, padding=1, groups=8), IMAGES),
    "depthwise, several per channel": (nn.Conv2d(8, 24, 3, stride=2, groups=8), IMAGES),
    "transposed": (nn.ConvTranspose2d(8, 6, 3, stride=2), IMAGES),
    "grouped transposed": (nn.ConvTranspose2d(8, 6, 2, groups=2), IMAGES),
    "1-d": (nn.Conv1d(8, 9, 3, stride=2), SIGNAL),
    "1-d transposed": (nn.ConvTranspose1d(8, 9, 3, stride=2), SIGNAL),
    "3-d": (nn.Conv3d(8, 4, 3, padding=1), VOLUME),
    "linear": (nn.Linear(9, 10), SIGNAL[:, 0]),
    "linear on images": (nn.Linear(9, 10), IMAGES),
    "layers without biases": (
        nn.Sequential(nn.Conv2d(8, 8, 3, bias=False), nn.Tanh(), nn.Conv2d(8, 4, 3, bias=False)),
        IMAGES,
    ),
    "strided layers without biases": (
        nn.Sequential(
            nn.Conv2d(8, 8, 3, 2, bias=False), nn.Sigmoid(), nn.Conv2d(8, 4, 3, 2, bias=False)
        ),
        IMAGES,
    ),
    "perceptron without biases": (
        nn.Sequential(nn.Linear(9, 12, bias=False), nn.ReLU(), nn.Linear(12, 8, bias=False)),
        SIGNAL,
    ),
    "two alike": (Residual(), SIGNAL),
    "attention without biases": (Attention(), SIGNAL[..., :8]),
    "embedding": (nn.Embedding(16, 6), TOKENS),
    "embedding with padding": (nn.Embedding(16, 6, padding_idx=1), TOKENS),
    "large embedding": (nn.Embedding(3000, 6), TOKENS),
    "mean of embeddings": (
        nn.Sequential(nn.Embedding(16, 6), nn.Flatten(), nn.Linear(24, 4)),
        TOKENS,
    ),
}


@cache
def shared_layer(name: str) -> Shared:
    model, inputs = LAYERS[name]
    targets = torch.randn((3, 4096), generator=torch.Generator().manual_seed(1))
    return with_shares(dense_step(Example(model, inputs, targets, weighted_sum), 3))


@cache
def shared_model(factory: Callable[[], Any]) -> Shared:
    return with_shares(dense_step(example_from(factory()), 2))


@pytest.mark.parametrize("name", LAYERS)
def test_every_share_of_a_layer_has_its_part_of_the_gradient(name: str) -> None:
    shared = shared_layer(name)
    assert [share.name for share in shared.shares] == list(shared.offered) != []
    assert_slices_of_autograd(shared, tolerance=1e-5)


@pytest.mark.parametrize("name", ["convolution", "strided", "transposed", "3-d"])
def test_so_it_has_where_a_product_takes_one_sample_at_a_time(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolutions, "PATCHES_BYTES", 0)
    shared = shared_layer.__wrapped__(name)
    assert sum(node.op_type == "Gemm" for node in shared.step.lowered.model.graph.node) == 3
    assert [share.name for share in shared.shares] == list(shared.offered) != []
    assert_slices_of_autograd(shared, tolerance=1e-5)


@pytest.mark.parametrize("factory", ZOO, ids=lambda factory: factory.__name__)
def test_every_share_of_a_model_has_its_part_of_the_gradient(factory: Callable[[], Any]) -> None:
    shared = shared_model(factory)
    assert [share.name for share in shared.shares] == list(shared.offered) != []
    assert_slices_of_autograd(shared, tolerance=2e-3)
    onnx.checker.check_model(shared.lowered.model)


class Affine(nn.Module):
    """A linear layer, a normalisation, and a table that no operator reads by index."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(9, 8)
        self.norm = nn.LayerNorm(8)
        self.table = nn.Parameter(torch.randn(8, 8))
        self.unused = nn.Linear(9, 8)

    def forward(self, data: Tensor) -> Tensor:
        return self.norm(self.fc(data)) * self.table


@cache
def affine() -> DenseStep:
    targets = torch.randn((3, 64), generator=torch.Generator().manual_seed(1))
    return dense_step(Example(Affine(), (SIGNAL,), targets, weighted_sum), 3)


@pytest.mark.parametrize(
    ("parameter", "axis"),
    [("fc.bias", 0), ("norm.weight", 0), ("norm.bias", 0), ("table", 0), ("unused.weight", 0)],
)
def test_a_share_that_would_be_cut_out_of_the_whole_is_left_out(parameter: str, axis: int) -> None:
    lowered, shares = with_share_gradients(
        affine().lowered,
        {"a": (parameter, Share(axis, (0, 3))), "b": ("fc.weight", Share(0, (0, 3)))},
    )
    assert shares == (Candidate("b", "fc.weight", "gradient:b", Share(0, (0, 3))),)
    assert "gradient:a" not in lowered.types
    only, _ = with_share_gradients(affine().lowered, {"b": ("fc.weight", Share(0, (0, 3)))})
    assert len(lowered.model.graph.node) == len(only.model.graph.node)


def test_the_step_itself_stays_as_it_is() -> None:
    step, shared = affine(), with_shares(affine())
    names = {node.name for node in step.lowered.model.graph.node}
    kept = [node for node in shared.lowered.model.graph.node if node.name in names]
    assert kept == list(step.lowered.model.graph.node)
    assert shared.lowered.model.graph.output == step.lowered.model.graph.output
    assert shared.lowered.parameters == step.lowered.parameters
    assert with_share_gradients(step.lowered, {}) == (step.lowered, ())


def test_equal_steps_are_extended_equally() -> None:
    assert with_shares(affine()).lowered == with_shares(affine()).lowered


@pytest.mark.parametrize("name", LAYERS)
def test_the_extended_step_is_in_order_and_fully_typed(name: str) -> None:
    lowered = shared_layer(name).lowered
    graph = lowered.model.graph
    there = {tensor.name for tensor in (*graph.input, *graph.initializer)}
    for node in graph.node:
        assert there.issuperset(filter(None, node.input)), node.name
        assert there.isdisjoint(node.output), node.name
        there.update(node.output)
    assert there == set(lowered.types)
    assert len({node.name for node in graph.node}) == len(graph.node)
    inferred = onnx.shape_inference.infer_shapes(lowered.model, strict_mode=True, data_prop=True)
    for info in inferred.graph.value_info:
        shape = tuple(dimension.dim_value for dimension in info.type.tensor_type.shape.dim)
        assert lowered.types[info.name] == (info.type.tensor_type.elem_type, shape), info.name


def test_new_nodes_come_from_the_module_of_what_they_slice() -> None:
    shared = shared_model(mlp.regression)
    old = {node.name for node in shared.step.lowered.model.graph.node}
    new = [node for node in shared.lowered.model.graph.node if node.name not in old]
    by_result = {node.output[0]: node for node in new}
    found = {share.name: by_result[share.gradient] for share in shared.shares}
    product = by_result[found["fc2.weight:out/2"].input[0]]
    while product.op_type != "Gemm":
        product = by_result[product.input[0]]
    assert product.doc_string == "fc2 (Linear)"


def test_the_planner_sees_whole_tensors_before_their_shares() -> None:
    shared = shared_model(mlp.regression)
    names = [candidate.name for candidate in shared.graph.candidates]
    assert names[:7] == [
        "fc1.weight",
        "fc1.weight:out/8",
        "fc1.weight:out/4",
        "fc1.weight:out/2",
        "fc1.weight:in/4",
        "fc1.weight:in/2",
        "fc1.bias",
    ]
    whole = [candidate for candidate in shared.graph.candidates if candidate.share is None]
    assert tuple(whole) == step_graph(shared.lowered, ("targets",)).candidates
