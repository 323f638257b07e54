"""A share costs its part of the whole gradient: in FLOPs, and in bytes kept for the backward."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from edgetune_exporters.dense_step import dense_step
from edgetune_exporters.factory import Example, example_from
from edgetune_exporters.slicing.share_gradients import with_share_gradients
from edgetune_exporters.step_graph import step_graph
from torch import Tensor, nn

from edgetune.nouns.candidate import Share
from edgetune.nouns.selection import Selection
from edgetune.planning.split import split_step
from tests.export.lowered import weighted_sum
from tests.export.share_cases import Shared, kept_for_backward, part, with_shares, work_of
from tests.zoo import text, vision


def mobilenet_v2() -> vision.Example:
    """MobileNetV2's 17 blocks (ReLU6, depthwise 3x3) on images [4, 3, 64, 64]."""

    def build() -> nn.Module:
        rows, width = [], 32
        for expansion, outer, blocks, stride in (
            (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
            (6, 160, 3, 2), (6, 320, 1, 1),
        ):  # fmt: skip
            for block in range(blocks):
                step = stride if block == 0 else 1
                expanded = width * expansion
                rows.append(vision.Inverted(3, expanded, outer, 0, step, nn.ReLU6, nn.Identity))
                width = outer
        return vision.MobileNet(32, rows, 1280, [], nn.ReLU6)

    return vision.classification(build, 64)


@cache
def shared_model(factory: Callable[[], Any]) -> Shared:
    return with_shares(dense_step(example_from(factory()), 2))


# The other operand of a product is gathered, or transposed, whatever the share: the smaller the
# product, the more that weighs.
PROPORTIONAL = {vision.resnet18: 1.15, vision.vit_tiny: 1.06, mobilenet_v2: 1.39}


@pytest.mark.parametrize(
    "factory", [*PROPORTIONAL, vision.unet, vision.mobilenet_v3_small], ids=lambda f: f.__name__
)
def test_products_are_in_proportion_to_the_share(factory: Callable[[], Any]) -> None:
    shared = shared_model(factory)
    work = work_of(shared)
    for share in shared.shares:
        mine, whole = work[share.name], work[share.parameter]
        assert mine.products == pytest.approx(part(shared, share) * whole.products), share.name
        assert mine.others <= whole.others, share.name
        if factory in PROPORTIONAL:
            most = PROPORTIONAL[factory] * part(shared, share) * (whole.products + whole.others)
            assert mine.products + mine.others + mine.gathers <= most, share.name


def test_a_gather_counts_what_it_picks() -> None:
    step = dense_step(example_from(text.distilbert()), 2)
    (lookup,) = [o for o in step.graph.operations if o.inputs[0].endswith("word_embeddings.weight")]
    assert lookup.operator_class == "elementwise"
    assert lookup.flops == 2 * text.LENGTH * 64
    assert step.graph.tensor_bytes[lookup.inputs[0]] == 4 * text.VOCABULARY * 64


# Layers whose data are an input of the step, which stays anyway.
FIRST = {
    vision.resnet18: "conv1.weight",
    vision.mobilenet_v3_small: "features.0.0.weight",
    vision.vit_tiny: "model.vit.embeddings.patch_embeddings.projection.weight",
    text.distilbert: "",
}


@pytest.mark.parametrize("factory", FIRST, ids=lambda f: f.__name__)
def test_of_an_activation_only_the_share_is_kept(factory: Callable[[], Any]) -> None:
    """By a share of the inputs, and of the channels of a depthwise convolution."""
    shared = shared_model(factory)
    whole = {c.name: kept_for_backward(shared, c) for c in shared.graph.candidates if not c.share}
    for share in shared.shares:
        before, after = whole[share.parameter], kept_for_backward(shared, share)
        shape = shared.lowered.types[share.parameter][1]
        depthwise = len(shape) == 4 and shape[1] == 1
        if depthwise or (":in/" in share.name and share.parameter != FIRST[factory]):
            (old,), (new,) = before.keys() - after.keys(), after.keys() - before.keys()
            assert after[new] == pytest.approx(part(shared, share) * before[old]), share.name
        else:
            assert before == after, share.name


class Chain(nn.Module):
    """Two convolutions; the second one is trained."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, bias=False)
        self.second = nn.Conv2d(16, 16, 3, groups=groups)

    def forward(self, images: Tensor) -> Tensor:
        return torch.relu(self.second(torch.relu(self.first(images)))).mean((2, 3))


@pytest.mark.parametrize(
    ("groups", "axis", "indices", "kept"),
    [
        (1, 1, (0, 5), 2),
        (16, 0, (0, 5), 2),
        (4, 0, (0, 1, 2, 3), 4),  # one group
        (4, 0, (0, 5), 8),  # one channel each of two groups
        (4, 0, (0, 1, 5), 8),  # unequally many
    ],
)
def test_the_activation_is_freed_in_the_forward(
    groups: int, axis: int, indices: tuple[int, ...], kept: int
) -> None:
    """kept: how many of the 16 channels."""
    targets, images = torch.randn(2, 16), torch.randn(2, 3, 8, 8)
    step = dense_step(Example(Chain(groups), images, targets, weighted_sum), 2)
    share = {"share": ("second.weight", Share(axis, indices))}
    lowered, shares = with_share_gradients(step.lowered, share)
    result = next(node.name for node in lowered.model.graph.node if node.op_type == "Relu")
    names = [node.name for node in lowered.model.graph.node]
    follower = lowered.model.graph.node[names.index(result) + 1]
    assert (follower.op_type, follower.input[0]) == ("Gather", result)
    assert lowered.types[follower.output[0]][1] == (2, kept, 6, 6)
    graph = step_graph(lowered, ("targets",), shares)
    work = work_of(Shared(step, lowered, shares, graph, ("share",)))
    expected = len(indices) / 16 * work["second.weight"].products
    assert work["share"].products == pytest.approx(expected)


def test_what_is_frozen_below_the_share_is_handed_over_whole() -> None:
    """The trained layer's forward reads all of it: the share is picked in the tail."""
    targets, images = torch.randn(2, 16), torch.randn(2, 3, 8, 8)
    step = dense_step(Example(Chain(1), images, targets, weighted_sum), 2)
    shared = with_shares(step)
    (share,) = [s for s in shared.shares if s.name == "second.weight:in/8"]
    split = split_step(shared.graph, Selection.of((share,)))
    assert [shared.graph.tensor_bytes[name] for name in split.features] == [4 * 2 * 16 * 6 * 6]
    (gather,) = [o for o in split.tail if o.inputs[0] in split.features and "Gather" in o.name]
    assert shared.graph.tensor_bytes[gather.outputs[0]] == 4 * 2 * 2 * 6 * 6
