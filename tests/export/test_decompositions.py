"""Backward operators written as forward ones, against autograd, without any ONNX."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from edgetune_exporters.capture import quiet
from edgetune_exporters.decompositions import convolutions
from edgetune_exporters.decompositions.normalization import safe_softmax
from edgetune_exporters.decompositions.table import decompositions
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F  # noqa: N812

Shape = tuple[int, ...]
Function = Callable[..., Tensor]


def tensors(*shapes: Shape) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


def traced_gradient(function: Function, values: list[Tensor]) -> tuple[fx.GraphModule, Tensor]:
    """The decomposed gradient as a graph of (values, gradient of the result), and that gradient."""
    result = function(*values)
    grad = torch.randn(result.shape, generator=torch.Generator().manual_seed(1))

    def gradients(*flat: Tensor) -> tuple[Tensor, ...]:
        found = torch.autograd.grad(function(*flat[:-1]), flat[:-1], flat[-1], allow_unused=True)
        return tuple(g for g in found if g is not None)

    with quiet():
        trace = make_fx(
            gradients,
            decomposition_table=decompositions(),
            tracing_mode="fake",
            _allow_non_fake_inputs=True,
        )
        graph = trace(*values, grad)
    return graph, grad


def check(function: Function, *shapes: Shape) -> fx.GraphModule:
    """Assert that the decomposed gradient is autograd's and that no backward operator remains."""
    values = tensors(*shapes)
    graph, grad = traced_gradient(function, values)
    operators = {str(n.target) for n in graph.graph.nodes if n.op == "call_function"}
    assert not [name for name in operators if "backward" in name]
    expected = torch.autograd.grad(function(*values), values, grad)
    with torch.no_grad():
        found = graph(*values, grad)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    return graph


def count(graph: fx.GraphModule, operator: str) -> int:
    return sum(str(node.target) == operator for node in graph.graph.nodes)


def operators_of(graph: fx.GraphModule) -> set[str]:
    return {str(node.target) for node in graph.graph.nodes if node.op == "call_function"}


CONVOLUTIONS = [
    pytest.param(F.conv1d, {}, (2, 3, 9), (4, 3, 3), id="1d"),
    pytest.param(F.conv1d, {"stride": 2, "padding": 2}, (2, 3, 9), (4, 3, 5), id="1d-stride"),
    pytest.param(
        F.conv1d, {"stride": 3, "dilation": 2, "groups": 2}, (2, 4, 14), (6, 2, 3), id="1d-all"
    ),
    pytest.param(F.conv2d, {}, (2, 3, 6, 7), (4, 3, 3, 2), id="2d-kernel-not-square"),
    pytest.param(F.conv2d, {"padding": 1}, (2, 3, 6, 6), (4, 3, 3, 3), id="2d-padding"),
    pytest.param(F.conv2d, {"padding": 3}, (2, 3, 4, 4), (4, 3, 3, 3), id="2d-padding-over-reach"),
    pytest.param(F.conv2d, {"padding": 2}, (2, 3, 4, 4), (4, 3, 1, 1), id="2d-pointwise-padding"),
    pytest.param(
        F.conv2d, {"stride": 2, "padding": 1}, (2, 3, 7, 8), (4, 3, 3, 3), id="2d-stride-odd-even"
    ),
    pytest.param(
        F.conv2d, {"stride": 3}, (2, 3, 10, 11), (4, 3, 2, 2), id="2d-stride-does-not-divide"
    ),
    pytest.param(
        F.conv2d,
        {"stride": (1, 2), "padding": (0, 1), "dilation": (2, 1)},
        (2, 3, 8, 9),
        (4, 3, 3, 3),
        id="2d-axes-differ",
    ),
    pytest.param(F.conv2d, {"dilation": 2}, (2, 3, 8, 8), (4, 3, 3, 3), id="2d-dilation"),
    pytest.param(F.conv2d, {"groups": 2}, (2, 4, 6, 6), (6, 2, 3, 3), id="2d-groups"),
    pytest.param(
        F.conv2d,
        {"groups": 2, "stride": 2, "padding": 1},
        (2, 4, 7, 7),
        (6, 2, 3, 3),
        id="2d-groups-stride",
    ),
    pytest.param(F.conv2d, {"groups": 4, "padding": 1}, (2, 4, 6, 6), (4, 1, 3, 3), id="depthwise"),
    pytest.param(
        F.conv2d,
        {"groups": 4, "stride": 2, "padding": 2},
        (2, 4, 7, 7),
        (4, 1, 5, 5),
        id="depthwise-stride",
    ),
    pytest.param(
        F.conv2d, {"groups": 4, "padding": 1}, (2, 4, 6, 6), (8, 1, 3, 3), id="depthwise-multiplied"
    ),
    pytest.param(
        F.conv2d,
        {"groups": 4, "padding": (1, 0)},
        (2, 4, 12, 14),
        (4, 1, 3, 2),
        id="large-depthwise",
    ),
    pytest.param(
        F.conv2d,
        {"groups": 3, "padding": 3},
        (1, 3, 9, 9),
        (6, 1, 3, 3),
        id="large-depthwise-multiplied",
    ),
    pytest.param(
        F.conv2d, {"groups": 4, "dilation": 2}, (2, 4, 16, 16), (4, 1, 3, 3), id="depthwise-dilated"
    ),
    pytest.param(F.conv1d, {"groups": 4}, (2, 4, 300), (4, 1, 3), id="depthwise-1d-long"),
    pytest.param(F.conv2d, {"groups": 4}, (2, 4, 3, 3), (8, 1, 1, 1), id="pointwise-groups"),
    pytest.param(F.conv2d, {"stride": 2}, (2, 3, 7, 7), (4, 3, 1, 1), id="pointwise-stride"),
    pytest.param(F.conv2d, {}, (2, 3, 12, 12), (4, 3, 1, 1), id="pointwise-many-positions"),
    pytest.param(F.conv2d, {}, (3, 8, 1, 2), (9, 8, 1, 1), id="pointwise-few-positions"),
    pytest.param(F.conv2d, {}, (1, 3, 5, 5), (4, 3, 3, 3), id="batch-of-one"),
    pytest.param(F.conv2d, {"padding": 3}, (2, 3, 9, 9), (4, 3, 7, 7), id="2d-large-kernel"),
    pytest.param(F.conv2d, {"padding": 1}, (2, 8, 4, 4), (9, 8, 3, 3), id="2d-large-weight"),
    pytest.param(F.conv3d, {"padding": 1}, (2, 2, 4, 5, 4), (3, 2, 3, 3, 3), id="3d"),
    pytest.param(
        F.conv3d,
        {"stride": 2, "groups": 2},
        (2, 2, 5, 6, 5),
        (4, 1, 2, 3, 2),
        id="3d-stride-groups",
    ),
    pytest.param(F.conv_transpose1d, {"stride": 2}, (2, 3, 5), (3, 4, 3), id="transposed-1d"),
    pytest.param(F.conv_transpose2d, {}, (2, 3, 5, 5), (3, 4, 3, 3), id="transposed"),
    pytest.param(
        F.conv_transpose2d,
        {"stride": 2, "padding": 1, "output_padding": 1},
        (2, 3, 5, 4),
        (3, 4, 3, 3),
        id="transposed-output-padding",
    ),
    pytest.param(
        F.conv_transpose2d,
        {"stride": 2, "groups": 2},
        (2, 4, 4, 4),
        (4, 3, 2, 2),
        id="transposed-groups",
    ),
    pytest.param(
        F.conv_transpose2d, {"dilation": 2}, (2, 3, 4, 4), (3, 4, 3, 3), id="transposed-dilation"
    ),
    pytest.param(F.conv_transpose2d, {}, (2, 3, 5, 5), (3, 4, 1, 1), id="transposed-pointwise"),
]


@pytest.mark.parametrize(("function", "options", "data", "weight"), CONVOLUTIONS)
def test_gradients_of_a_convolution(
    function: Function, options: dict[str, object], data: Shape, weight: Shape
) -> None:
    groups = int(str(options.get("groups", 1)))
    outputs = weight[1] * groups if "transpose" in function.__name__ else weight[0]
    check(lambda x, w, b: function(x, w, b, **options), data, weight, (outputs,))


def test_a_pointwise_weight_gradient_is_a_matrix_product() -> None:
    many = operators_of(check(F.conv2d, (2, 3, 12, 12), (4, 3, 1, 1)))
    few = operators_of(check(F.conv2d, (3, 8, 1, 2), (9, 8, 1, 1)))
    assert "aten.bmm.default" in many and "aten.mm.default" not in many
    assert "aten.mm.default" in few and "aten.bmm.default" not in few


@pytest.mark.parametrize(
    ("weight", "groups", "products"),
    [
        pytest.param((4, 4, 3, 3), 1, 1, id="3x3"),
        pytest.param((4, 4, 5, 6), 1, 1, id="30-taps"),
        pytest.param((4, 4, 6, 6), 1, 0, id="36-taps"),
        pytest.param((4, 2, 3, 3), 2, 0, id="grouped"),
        pytest.param((4, 1, 3, 3), 4, 0, id="depthwise"),
    ],
)
def test_a_weight_gradient_is_one_product_with_patches_or_a_convolution(
    weight: Shape, groups: int, products: int
) -> None:
    graph = check(lambda x, w: F.conv2d(x, w, groups=groups), (2, 4, 8, 8), weight)
    assert count(graph, "aten.mm.default") == products
    assert count(graph, "aten.convolution.default") == 3 - products


@pytest.mark.parametrize(
    ("size", "stride", "convolutions_of_weight"),
    [
        pytest.param(12, 1, 3, id="large"),
        pytest.param(11, 1, 1, id="small"),
        pytest.param(24, 2, 1, id="strided"),
    ],
)
def test_of_a_large_depthwise_gradient_each_column_is_a_convolution(
    size: int, stride: int, convolutions_of_weight: int
) -> None:
    graph = check(
        lambda x, w: F.conv2d(x, w, groups=2, stride=stride, padding=1),
        (1, 2, size, size),
        (2, 1, 3, 3),
    )
    assert count(graph, "aten.convolution.default") == 2 + convolutions_of_weight


@pytest.mark.parametrize(
    ("data", "products"),
    [
        pytest.param((11, 4, 8, 8), 6, id="two-samples-and-the-rest"),
        pytest.param((2, 4, 8, 8), 2, id="one-sample"),
        pytest.param((1, 4, 8, 8), 1, id="batch-of-one"),
    ],
)
def test_large_patches_are_made_of_some_samples_at_a_time(
    data: Shape, products: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolutions, "PATCHES_BYTES", 0)
    graph = check(lambda x, w: F.conv2d(x, w, padding=1), data, (4, 4, 3, 3))
    assert count(graph, "aten.mm.default") + count(graph, "aten.addmm.default") == products


@pytest.mark.parametrize(
    ("data", "flips"),
    [
        pytest.param((2, 8, 4, 4), 0, id="weight-larger-than-gradient"),
        pytest.param((2, 8, 9, 9), 1, id="weight-smaller-than-gradient"),
    ],
)
def test_of_the_kernel_only_a_small_one_is_flipped_for_the_input_gradient(
    data: Shape, flips: int
) -> None:
    graph = check(lambda x, w: F.conv2d(x, w, padding=1), data, (8, 8, 3, 3))
    assert count(graph, "aten.flip.default") == flips


def test_only_what_is_asked_for_is_computed() -> None:
    data, weight = tensors((2, 3, 6, 6), (4, 3, 3, 3))
    graph, _ = traced_gradient(lambda w: F.conv2d(data.detach(), w), [weight])
    both, _ = traced_gradient(F.conv2d, [data, weight])
    convolutions_of = [count(g, "aten.convolution.default") for g in (graph, both)]
    assert convolutions_of == [1, 2]  # the forward, and the gradient of the data


@pytest.mark.parametrize("masked", [(), ((0, 1, 2),), ((0, 0, 0), (0, 0, 1), (0, 0, 2))])
def test_a_softmax_is_zero_where_all_is_masked(masked: tuple[Shape, ...]) -> None:
    """masked: elements that are -inf; the last case is a whole row."""
    (data,) = tensors((2, 4, 3))
    with torch.no_grad():
        for place in masked:
            data[place] = -torch.inf
    graph, grad = traced_gradient(lambda x: torch.ops.aten._safe_softmax(x, -1), [data])
    names = operators_of(graph)
    assert "aten._softmax.default" in names and "aten.where.self" not in names
    result = torch.ops.aten._safe_softmax(data, -1)
    (expected,) = torch.autograd.grad(result, [data], grad)
    torch.testing.assert_close(graph(data, grad)[0], expected)
    forward = safe_softmax(data, -1)
    torch.testing.assert_close(forward, result)


POOLS = [
    pytest.param(lambda x: F.max_pool2d(x, 2), (2, 3, 6, 8), id="max"),
    pytest.param(lambda x: F.max_pool2d(x, 3, 2, 1), (2, 3, 7, 8), id="max-overlapping"),
    pytest.param(lambda x: F.max_pool2d(x, 2, ceil_mode=True), (2, 3, 5, 7), id="max-ceil"),
    pytest.param(lambda x: F.max_pool2d(x, 2, 1, dilation=2), (2, 3, 6, 6), id="max-dilation"),
    pytest.param(lambda x: F.max_pool1d(x, 3, 2), (2, 3, 9), id="max-1d"),
    pytest.param(lambda x: F.avg_pool2d(x, 2), (2, 3, 6, 8), id="average"),
    pytest.param(lambda x: F.avg_pool2d(x, 2), (2, 3, 7, 5), id="average-does-not-divide"),
    pytest.param(lambda x: F.avg_pool2d(x, 3, 2, 1), (2, 3, 7, 8), id="average-padding"),
    pytest.param(
        lambda x: F.avg_pool2d(x, (3, 2), (1, 2), (1, 0)), (2, 3, 7, 8), id="average-axes-differ"
    ),
    pytest.param(
        lambda x: F.avg_pool2d(x, 2, divisor_override=3), (2, 3, 6, 6), id="average-divisor"
    ),
    pytest.param(lambda x: F.avg_pool1d(x, 3, 2, 1), (2, 3, 9), id="average-1d"),
    pytest.param(lambda x: F.adaptive_avg_pool2d(x, 1), (2, 3, 5, 6), id="adaptive-to-one"),
    pytest.param(lambda x: F.adaptive_avg_pool2d(x, (3, 2)), (2, 3, 6, 8), id="adaptive-divides"),
    pytest.param(lambda x: F.adaptive_avg_pool2d(x, (3, 4)), (2, 3, 7, 10), id="adaptive-uneven"),
    pytest.param(lambda x: F.adaptive_avg_pool2d(x, (5, 7)), (2, 3, 3, 4), id="adaptive-growing"),
    pytest.param(lambda x: F.adaptive_avg_pool1d(x, 4), (2, 3, 10), id="adaptive-1d"),
]
RESIZES = [
    pytest.param(lambda x: F.interpolate(x, scale_factor=2), (2, 3, 4, 5), id="nearest"),
    pytest.param(lambda x: F.interpolate(x, size=(8, 15)), (2, 3, 4, 5), id="nearest-size"),
    pytest.param(
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), (2, 3, 4, 5), id="bilinear"
    ),
    pytest.param(
        lambda x: F.interpolate(x, size=(7, 3), mode="bilinear"), (2, 3, 4, 5), id="bilinear-size"
    ),
    pytest.param(
        lambda x: F.interpolate(x, scale_factor=(1.7, 2.3), mode="bilinear"),
        (2, 3, 4, 5),
        id="bilinear-factors",
    ),
    pytest.param(
        lambda x: F.interpolate(x, scale_factor=1.7, mode="bilinear", recompute_scale_factor=True),
        (2, 3, 4, 5),
        id="bilinear-recomputed-factors",
    ),
    pytest.param(
        lambda x: F.interpolate(x, size=(7, 9), mode="bilinear", align_corners=True),
        (2, 3, 4, 5),
        id="bilinear-corners",
    ),
    pytest.param(
        lambda x: F.interpolate(x, size=(1, 9), mode="bilinear", align_corners=True),
        (2, 3, 4, 5),
        id="bilinear-corners-one-row",
    ),
    pytest.param(
        lambda x: F.interpolate(x, scale_factor=0.5, mode="bilinear"),
        (2, 3, 6, 8),
        id="bilinear-smaller",
    ),
]
TOKENS = torch.tensor([[1, 4, 4], [0, 6, 1]])
INDEXING = [
    pytest.param(lambda w: F.embedding(TOKENS, w), (7, 3), id="embedding"),
    pytest.param(lambda w: F.embedding(TOKENS, w, padding_idx=4), (7, 3), id="embedding-padding"),
    pytest.param(
        lambda w: F.embedding(TOKENS, w, padding_idx=-1), (7, 3), id="embedding-padding-from-end"
    ),
    pytest.param(lambda x: x[:, 1:4], (2, 6, 3), id="slice"),
    pytest.param(lambda x: x[:, -3:-1], (2, 6, 3), id="slice-from-end"),
    pytest.param(lambda x: x[:, 1::2], (2, 6, 3), id="slice-step"),
    pytest.param(lambda x: x[:, 1:6:3], (2, 7, 3), id="slice-step-does-not-divide"),
    pytest.param(lambda x: x[..., ::2], (2, 6, 3), id="slice-last-axis-step"),
    pytest.param(lambda x: x[:, 2:100], (2, 6, 3), id="slice-beyond-the-end"),
    pytest.param(lambda x: x[:, 2], (2, 6, 3), id="select"),
    pytest.param(lambda x: x[..., -1], (2, 6, 3), id="select-last"),
    pytest.param(lambda x: x.unbind(1)[1] * 2, (2, 3), id="unbind"),
    pytest.param(lambda x: x.split([2, 1, 3], 1)[2], (2, 6, 3), id="split"),
]


@pytest.mark.parametrize(("function", "shape"), [*POOLS, *RESIZES, *INDEXING])
def test_gradient_of_pooling_resizing_and_indexing(function: Function, shape: Shape) -> None:
    check(function, shape)


@pytest.mark.parametrize(
    ("function", "shape", "message"),
    [
        pytest.param(
            lambda x: F.avg_pool2d(x, 2, ceil_mode=True),
            (2, 3, 5, 5),
            "avg_pool2d with ceil_mode",
            id="average-ceil",
        ),
        pytest.param(
            lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
            (2, 3, 6, 6),
            "without counting its padding",
            id="average-padding-not-counted",
        ),
        pytest.param(
            lambda x: F.interpolate(x, size=(5, 8)),
            (2, 3, 4, 4),
            r"nearest upsampling from \(4, 4\) to \(5, 8\): only by whole factors",
            id="nearest-uneven",
        ),
        pytest.param(
            lambda w: F.embedding(TOKENS, w, scale_grad_by_freq=True),
            (7, 3),
            "embedding with scale_grad_by_freq",
            id="embedding-by-frequency",
        ),
    ],
)
def test_a_gradient_that_is_not_written_is_refused(
    function: Function, shape: Shape, message: str
) -> None:
    with pytest.raises(NotImplementedError, match=message):
        traced_gradient(function, tensors(shape))
