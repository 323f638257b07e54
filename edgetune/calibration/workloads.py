"""What is timed: small graphs of one class of operator each, of sizes as training steps have them.

A gradient graph runs as it is written; a frozen prefix is optimised when it is loaded (fused
activations, convolutions over blocks of channels). So both are measured, by the same kernels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, prod

import numpy as np

from edgetune.files.onnx_model import Attribute, Node, onnx_model
from edgetune.nouns.bundle_names import FEATURES, GRADIENTS
from edgetune.nouns.loss import Array
from edgetune.nouns.profile import INT8, PREFIX, UPDATE

MOVING, DISPATCH, GROUP = "bytes", "dispatch", "group"
"""What element-wise workloads, the chain of operators on next to nothing, and depthwise
convolutions of small images are of."""


# Waking the threads takes as long as a small operator. In a step they are awake from the one
# before; so an operator alone is repeated until that counts for little.
_LEAST_FLOPS = 5e8
_MOST_COPIES = 16


@dataclass(frozen=True)
class Workload:
    """A graph to be timed.

    measures: a key of `flops_per_second`, or MOVING, DISPATCH or GROUP. graph: the bundle's graph
    whose session options it runs with. copies: how often it does the same. amount: floating-point
    operations of one copy, or bytes read and written; of DISPATCH operators, of GROUP groups.
    operators: of the graph.
    """

    name: str
    measures: str
    graph: str
    model: bytes
    feeds: Mapping[str, Array]
    results: tuple[str, ...]
    amount: float
    operators: int
    copies: int


@dataclass
class _Graph:
    """A graph in the making, whose operators follow one another. shape: of the last result."""

    shape: tuple[int, ...]
    last: str = "x"
    amount: float = 0.0
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)

    def constant(self, array: Array) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = array
        return name

    def op(self, operator: str, *inputs: str, **attributes: Attribute) -> str:
        """An operator on `inputs`; on the last result where there are none."""
        name = f"{operator}_{len(self.nodes)}"
        self.nodes.append(Node(operator, inputs or (self.last,), (name,), attributes))
        self.last = name
        return name

    def convolution(
        self, weight: tuple[int, ...], stride: int = 1, pad: int = 0, group: int = 1
    ) -> None:
        """A Conv with a weight of that shape, its FLOPs counted."""
        n, _, height, width = self.shape
        rows = (height + 2 * pad - weight[2]) // stride + 1
        columns = (width + 2 * pad - weight[3]) // stride + 1
        self.shape = (n, weight[0], rows, columns)
        self.amount += 2 * prod(self.shape) * prod(weight[1:])
        self.op(
            *("Conv", self.last, self.constant(_random(weight))),
            strides=(stride, stride),
            pads=(pad,) * 4,
            group=group,
        )

    def activation(self) -> None:
        """What follows a convolution in MobileNet, fused where the runtime fuses."""
        six = np.float32(6)
        low, high = self.constant(np.asarray(0 * six)), self.constant(np.asarray(six))
        self.op("Clip", self.last, low, high)

    def workload(
        self,
        name: str,
        measures: str,
        graph: str,
        feeds: Mapping[str, Array],
        results: Sequence[str] = (),
    ) -> Workload:
        """results: all of one shape; without any, the last one."""
        # What is optimised when it is loaded would be merged with its copies; what moves bytes
        # would find them in a cache.
        copies = 1
        if graph == GRADIENTS and measures not in (MOVING, DISPATCH, UPDATE):
            copies = max(1, min(_MOST_COPIES, ceil(_LEAST_FLOPS / self.amount)))
        made = {name for node in self.nodes for name in node.outputs}
        nodes = [
            replace(
                node,
                inputs=tuple(_copied(name, copy) if name in made else name for name in node.inputs),
                outputs=tuple(_copied(name, copy) for name in node.outputs),
            )
            for copy in range(copies)
            for node in self.nodes
        ]
        results = tuple(
            _copied(name, copy) for copy in range(copies) for name in results or (self.last,)
        )
        model = onnx_model(nodes, feeds, results, self.constants)
        count = len(nodes)
        return Workload(name, measures, graph, model, feeds, results, self.amount, count, copies)


def _copied(name: str, copy: int) -> str:
    return f"{name}_{copy}"


def _random(shape: tuple[int, ...]) -> Array:
    """Small numbers, never denormal, the same at every run."""
    return np.random.default_rng(0).uniform(0.1, 0.2, shape).astype(np.float32)


def workloads() -> tuple[Workload, ...]:
    """All of them; together they hold about 100 MiB."""
    return (
        *_convolutions(),
        *_prefixes(),
        *_products(),
        *_transposes(),
        *_elementwise(),
        *_int8(),
        _update(),
        _dispatch(),
    )


def _convolutions() -> Iterator[Workload]:
    """Forward and gradient of the input, of a depthwise one that of the weight too.

    The gradient of a depthwise weight is a convolution with images as the kernels and a group per
    channel of each sample; that of any other is a matrix product.
    """
    for name, measures, image, weight, stride, pad, group in (
        ("3x3, 64 channels", "convolution", (4, 64, 20, 20), (64, 64, 3, 3), 1, 1, 1),
        ("3x3, 256 channels", "convolution", (4, 256, 6, 6), (256, 256, 3, 3), 1, 1, 1),
        ("3x3, 3 channels", "convolution", (4, 3, 96, 96), (32, 3, 3, 3), 2, 1, 1),
        ("1x1, 96 channels", "pointwise", (4, 96, 24, 24), (144, 96, 1, 1), 1, 0, 1),
        ("1x1, 320 channels", "pointwise", (4, 320, 6, 6), (1280, 320, 1, 1), 1, 0, 1),
        ("3x3, of 24 x 24", "depthwise", (4, 192, 24, 24), (192, 1, 3, 3), 1, 1, 192),
        ("of a weight, of 24 x 24", "depthwise", (1, 384, 26, 26), (384, 1, 24, 24), 1, 0, 384),
        ("3x3, of 3 x 3", GROUP, (4, 384, 3, 3), (384, 1, 3, 3), 1, 1, 384),
        ("of a weight, of 3 x 3", GROUP, (1, 1536, 5, 5), (1536, 1, 3, 3), 1, 0, 1536),
    ):
        graph = _Graph(image)
        graph.convolution(weight, stride, pad, group)
        if measures == GROUP:
            graph.amount = image[0] * group
        yield graph.workload(name, measures, GRADIENTS, {"x": _random(image)})
    image, weight = (4, 128, 10, 10), (128, 64, 3, 3)
    graph = _Graph(image, amount=2 * prod(image) * prod(weight[1:]))
    graph.op("ConvTranspose", "x", graph.constant(_random(weight)), strides=(2, 2), pads=(1,) * 4)
    yield graph.workload("of an image, 3x3", "convolution", GRADIENTS, {"x": _random(image)})


def _prefixes() -> Iterator[Workload]:
    """Convolutions in a row with their activations, as a frozen prefix has them."""
    for name, image, weights in (
        ("3x3, 64 channels", (4, 64, 20, 20), [(64, 64, 3, 3)] * 8),
        ("3x3, 256 channels", (4, 256, 6, 6), [(256, 256, 3, 3)] * 6),
        ("1x1, 32 and 192 channels", (4, 32, 24, 24), [(192, 32, 1, 1), (32, 192, 1, 1)] * 8),
        ("1x1, 160 and 320 channels", (4, 160, 6, 6), [(320, 160, 1, 1), (160, 320, 1, 1)] * 2),
    ):
        graph = _Graph(image)
        for weight in weights:
            graph.convolution(weight, pad=weight[2] // 2)
            graph.activation()
        kind = "pointwise" if weights[0][2] == 1 else "convolution"
        yield graph.workload(name, PREFIX[kind], FEATURES, {"x": _random(image)})
    for channels, size in ((96, 24), (384, 6)):
        graph = _Graph((4, channels, size, size))
        for _ in range(12):
            graph.convolution((channels, 1, 3, 3), pad=1, group=channels)
            graph.activation()
        feeds = {"x": _random((4, channels, size, size))}
        yield graph.workload(f"3x3, {channels} channels", PREFIX["depthwise"], FEATURES, feeds)


def _products() -> Iterator[Workload]:
    for name, left, right in (
        ("512 x 256 x 1024", (512, 256), (256, 1024)),
        ("1280 x 72 x 320", (1280, 72), (72, 320)),
        ("32 of 64 x 64 x 64", (32, 64, 64), (32, 64, 64)),
    ):
        graph = _Graph(left, amount=2 * prod(left) * right[-1])
        graph.op("MatMul", "x", graph.constant(_random(right)))
        yield graph.workload(name, "matmul", GRADIENTS, {"x": _random(left)})
    graph = _Graph((512, 1024), amount=2 * 512 * 1024 * 256)
    graph.op("Gemm", "x", graph.constant(_random((256, 1024))), transB=1)
    feeds = {"x": _random((512, 1024))}
    yield graph.workload("512 x 1024 x 256, transposed", "matmul", GRADIENTS, feeds)


def _transposes() -> Iterator[Workload]:
    """Of a weight, and of an activation."""
    for shape, order in (((640, 320), (1, 0)), ((4, 96, 400), (0, 2, 1))):
        graph = _Graph(shape)
        graph.op("Transpose", perm=order)
        graph.amount = prod(shape)
        name = f"of {' x '.join(str(size) for size in shape)}"
        yield graph.workload(name, "transpose", GRADIENTS, {"x": _random(shape)})


def _elementwise() -> Iterator[Workload]:
    """A forward and a backward through an activation and a residual, kept in between."""
    for name, shape in (
        ("of 1.7 MiB", (4, 96, 34, 34)),
        ("of 147 KiB", (4, 256, 6, 6)),
    ):
        size = 4 * prod(shape)
        graph = _Graph(shape)
        one = graph.constant(np.full((1, 1, 1, 1), 0.5, np.float32))
        added = graph.op("Add", "x", "y")
        graph.activation()
        scaled = graph.op("Mul", graph.last, one)
        graph.op("Transpose", scaled, perm=(1, 0, 2, 3))
        graph.op("Transpose", graph.last, perm=(1, 0, 2, 3))
        graph.op("Mul", graph.last, added)
        graph.op("Sub", graph.last, scaled)
        mask = graph.op("LessOrEqual", added, one)
        graph.op("Cast", mask, to=1)
        graph.op("Mul", graph.last, scaled)
        axes = graph.constant(np.array([0, 2, 3], np.int64))
        graph.op("ReduceSum", graph.last, axes, keepdims=0)
        # Add, Clip, Mul, two Transposes, two with two inputs, a mask of bytes, its Cast, Mul, sum
        graph.amount = size * (3 + 2 + 2 + 2 + 2 + 3 + 3 + 1.25 + 1.25 + 3 + 1)
        feeds = {"x": _random(shape), "y": _random(shape)}
        yield graph.workload(name, MOVING, GRADIENTS, feeds)


def _int8() -> Iterator[Workload]:
    """Products of an 8-bit prefix: unsigned data, signed weights, one scale per channel."""
    for name, image, weight in (
        ("3x3, 64 channels", (4, 64, 20, 20), (64, 64, 3, 3)),
        ("1x1, 160 channels", (4, 160, 12, 12), (160, 160, 1, 1)),
    ):
        graph = _Graph(image)
        step, zero = (
            graph.constant(np.asarray(np.float32(0.01))),
            graph.constant(np.asarray(np.uint8(0))),
        )
        graph.op("QuantizeLinear", "x", step, zero)
        for _ in range(8):
            data = graph.op("DequantizeLinear", graph.last, step, zero)
            stored = np.random.default_rng(0).integers(-99, 99, weight).astype(np.int8)
            scales = graph.constant(np.full(weight[0], 1e-3, np.float32))
            zeros = graph.constant(np.zeros(weight[0], np.int8))
            rounded = graph.op("DequantizeLinear", graph.constant(stored), scales, zeros, axis=0)
            graph.op("Conv", data, rounded, pads=(weight[2] // 2,) * 4)
            graph.op("Relu")
            graph.op("QuantizeLinear", graph.last, step, zero)
            graph.amount += 2 * prod(image) * prod(weight[1:])
        graph.op("DequantizeLinear", graph.last, step, zero)
        yield graph.workload(name, INT8, FEATURES, {"x": _random(image)})


def _update() -> Workload:
    """AdamW on more than a cache holds, one tensor after the other."""
    shape, tensors = (128, 128, 3, 3), 16
    graph = _Graph(shape)
    factor = graph.constant(np.full((1, 1, 1, 1), 0.5, np.float32))
    feeds, results = {}, []
    for number in range(tensors):
        value, gradient, first, second = names = [f"{kind}{number}" for kind in "xgms"]
        feeds.update({name: _random(shape) for name in names})
        kept = graph.op("Mul", first, factor)
        mean = graph.op("Add", kept, graph.op("Mul", gradient, factor))
        scaled = graph.op("Mul", gradient, factor)
        square = graph.op("Mul", scaled, scaled)
        variance = graph.op("Add", graph.op("Mul", second, factor), square)
        bound = graph.op("Add", graph.op("Sqrt", variance), factor)
        change = graph.op("Mul", graph.op("Div", mean, bound), factor)
        next_value = graph.op("Sub", graph.op("Mul", value, factor), change)
        results += [mean, variance, next_value]
    graph.amount = len(graph.nodes) * prod(shape)
    return graph.workload(f"{tensors} tensors", UPDATE, GRADIENTS, feeds, results)


def _dispatch() -> Workload:
    """Operators on next to nothing, of the kinds that a backward is full of."""
    graph = _Graph((8, 8))
    factor = graph.constant(np.full((1, 1), 0.5, np.float32))
    axis = graph.constant(np.array([1], np.int64))
    for _ in range(40):
        graph.op("Mul", graph.last, factor)
        graph.op("Transpose", graph.last, perm=(1, 0))
        graph.op("Add", graph.last, "x")
        total = graph.op("ReduceSum", graph.last, axis, keepdims=1)
        graph.op("Sub", "x", total)
    graph.amount = len(graph.nodes)
    name = f"{len(graph.nodes)} operators in a row"
    return graph.workload(name, DISPATCH, GRADIENTS, {"x": _random((8, 8))})
