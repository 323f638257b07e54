"""Forms that gradients can take in standard ONNX operators, to be timed against each other.

Each case has two operands, `x` and `g` (data or weight, and the gradient of the result), and forms
that compute the same of them. The first is the one that edgetune writes; patches it makes of as
many samples at once as memory allows, which is between the first two forms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from edgetune.files.onnx_model import Attribute, Node, onnx_model
from edgetune.nouns.loss import Array

BATCH = 8


@dataclass
class Form:
    """A graph in the making."""

    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)

    def op(self, kind: str, *inputs: str, **attributes: Attribute) -> str:
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(Node(kind, inputs, (name,), attributes))
        return name

    def whole(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def constant(self, value: Array) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = value
        return name

    def reshape(self, name: str, *shape: int) -> str:
        return self.op("Reshape", name, self.whole(*shape))

    def cut(self, name: str, axis: int, start: int, stop: int, step: int = 1) -> str:
        bounds = (self.whole(start), self.whole(stop), self.whole(axis), self.whole(step))
        return self.op("Slice", name, *bounds)

    def padded(self, name: str, by: int) -> str:
        return self.op("Pad", name, self.whole(0, 0, by, by, 0, 0, by, by)) if by else name

    def swapped(self, name: str) -> str:
        return self.op("Transpose", name, perm=(1, 0, 2, 3))


@dataclass(frozen=True)
class Case:
    """Forms of one gradient, each a function that adds its nodes and returns its result."""

    name: str
    x: tuple[int, ...]
    g: tuple[int, ...]
    forms: dict[str, Callable[[Form], str]]

    def feeds(self) -> dict[str, Array]:
        """Random numbers of both signs."""
        draw = np.random.default_rng(0)
        sizes = {"x": self.x, "g": self.g}
        return {name: draw.standard_normal(size, np.float32) for name, size in sizes.items()}

    def model(self, name: str) -> bytes:
        """The ONNX model of the form of that name."""
        form = Form()
        result = self.forms[name](form)
        return onnx_model(form.nodes, self.feeds(), [result], form.constants)


@dataclass(frozen=True)
class Layer:
    """A convolution of square images. size: of the images; outputs, inputs: channels."""

    outputs: int
    inputs: int
    size: int
    kernel: int = 3
    stride: int = 1

    @property
    def pad(self) -> int:
        return self.kernel // 2

    @property
    def places(self) -> int:
        """Rows of the result, and columns."""
        return (self.size + 2 * self.pad - self.kernel) // self.stride + 1

    @property
    def name(self) -> str:
        strided = f", stride {self.stride}" if self.stride > 1 else ""
        kernel = f"{self.kernel}x{self.kernel}"
        return f"{kernel}, {self.inputs} to {self.outputs} of {self.size}x{self.size}{strided}"

    @property
    def data(self) -> tuple[int, ...]:
        return BATCH, self.inputs, self.size, self.size

    @property
    def gradient(self) -> tuple[int, ...]:
        return BATCH, self.outputs, self.places, self.places

    @property
    def weight(self) -> tuple[int, ...]:
        return self.outputs, self.inputs, self.kernel, self.kernel


def cases() -> Iterator[Case]:
    """All of them."""
    for layer in (
        Layer(64, 64, 56),
        Layer(256, 256, 14),
        Layer(512, 512, 7),
        Layer(128, 64, 56, stride=2),
    ):
        yield _of_weight(layer)
    large = _of_weight(Layer(64, 3, 224, kernel=7, stride=2))
    yield Case(large.name, large.x, large.g, dict(reversed(large.forms.items())))
    for layer in (Layer(144, 24, 56, kernel=1), Layer(160, 960, 7, kernel=1)):
        forms = {"products per sample": partial(_per_sample, layer), "one": partial(_one, layer)}
        best = forms if layer.size > 7 else dict(reversed(forms.items()))
        yield Case(f"weight, {layer.name}", layer.data, layer.gradient, best)
    for layer in (Layer(144, 144, 56), Layer(576, 576, 14), Layer(960, 960, 7)):
        columns = {"a convolution per column": partial(_by_column, layer)}
        groups = {"a group per channel of a sample": partial(_group_of_sample, layer)}
        forms = {
            **(columns if layer.size > 7 else groups),
            **(groups if layer.size > 7 else columns),
            "a group per channel": partial(_group, layer),
            "diagonals of products of rows": partial(_diagonals, layer),
        }
        yield Case(f"weight, depthwise {layer.name}", layer.data, layer.gradient, forms)
    for layer in (Layer(64, 64, 56), Layer(256, 256, 14), Layer(512, 512, 7)):
        forms = {"flipped kernel": partial(_flipped, layer), "transposed": partial(_turned, layer)}
        best = forms if layer.size > 14 else dict(reversed(forms.items()))
        yield Case(f"data, {layer.name}", layer.weight, layer.gradient, best)
    shape = (BATCH, 96, 56, 56)
    yield Case("ReLU6 of 96 x 56x56", shape, shape, {"product": _masked, "Where": _chosen})


def _of_weight(layer: Layer) -> Case:
    return Case(
        f"weight, {layer.name}",
        layer.data,
        layer.gradient,
        {
            "patches of the batch": partial(_patches, layer, 1),
            "patches of each sample": partial(_patches, layer, BATCH),
            "a product per tap": partial(_per_tap, layer),
            "convolution": partial(_convolution, layer),
        },
    )


def _taps(form: Form, layer: Layer, data: str) -> list[str]:
    """What each element of the kernel meets in (a, b, rows, columns)."""
    found, reach = [form.padded(data, layer.pad)], layer.stride * (layer.places - 1) + 1
    for axis in (3, 2):
        found = [
            form.cut(part, axis, start, start + reach, layer.stride)
            for start in range(layer.kernel)
            for part in found
        ]
    return found


def _patches(layer: Layer, parts: int, form: Form) -> str:
    samples, total = BATCH // parts, ""
    for first in range(0, BATCH, samples):
        x, g = (form.cut(n, 0, first, first + samples) if parts > 1 else n for n in "xg")
        rows = form.reshape(form.swapped(g), layer.outputs, -1)
        joined = form.op("Concat", *_taps(form, layer, form.swapped(x)), axis=1)
        patches = form.reshape(joined, layer.inputs * layer.kernel**2, -1)
        total = form.op("Gemm", rows, patches, *([total] if total else []), transB=1)
    return form.reshape(total, *layer.weight)


def _per_tap(layer: Layer, form: Form) -> str:
    rows = form.reshape(form.swapped("g"), layer.outputs, -1)
    taps = [form.reshape(t, layer.inputs, -1) for t in _taps(form, layer, form.swapped("x"))]
    joined = form.op("Concat", *(form.op("Gemm", rows, t, transB=1) for t in taps), axis=0)
    flat = form.reshape(joined, layer.kernel**2, layer.outputs * layer.inputs)
    return form.reshape(form.op("Transpose", flat, perm=(1, 0)), *layer.weight)


def _convolution(layer: Layer, form: Form) -> str:
    found = form.op(
        *("Conv", form.swapped("x"), form.swapped("g")),
        pads=(layer.pad,) * 4,
        dilations=(layer.stride,) * 2,
    )
    for axis in (2, 3):
        found = form.cut(found, axis, 0, layer.kernel)
    return form.swapped(found)


def _per_sample(layer: Layer, form: Form) -> str:
    """Of the two operands the one with fewer channels is turned."""
    of = {"x": layer.inputs, "g": layer.outputs}
    few, many = sorted("xg", key=lambda name: of[name])
    left, right = (form.reshape(name, BATCH, of[name], -1) for name in (many, few))
    product = form.op("MatMul", left, form.op("Transpose", right, perm=(0, 2, 1)))
    total = form.op("ReduceSum", product, form.whole(0), keepdims=0)
    if many == "x":
        total = form.op("Transpose", total, perm=(1, 0))
    return form.reshape(total, *layer.weight)


def _one(layer: Layer, form: Form) -> str:
    rows = form.reshape(form.swapped("g"), layer.outputs, -1)
    columns = form.reshape(form.swapped("x"), layer.inputs, -1)
    return form.reshape(form.op("Gemm", rows, columns, transB=1), *layer.weight)


def _group_of_sample(layer: Layer, form: Form) -> str:
    groups = BATCH * layer.inputs
    signal = form.reshape("x", 1, groups, layer.size, layer.size)
    kernel = form.reshape("g", groups, 1, layer.places, layer.places)
    found = form.op("Conv", signal, kernel, pads=(layer.pad,) * 4, group=groups)
    each = form.reshape(found, BATCH, layer.inputs, 1, layer.kernel, layer.kernel)
    return form.op("ReduceSum", each, form.whole(0), keepdims=0)


def _by_column(layer: Layer, form: Form) -> str:
    groups, width = BATCH * layer.inputs, layer.size + 2 * layer.pad
    signal = form.reshape(form.padded("x", layer.pad), 1, groups, width, width)
    found = []
    for column in range(layer.kernel):
        beside = width - layer.places - column
        kernel = form.op("Pad", "g", form.whole(0, 0, 0, column, 0, 0, 0, beside))
        kernel = form.reshape(kernel, groups, 1, layer.places, width)
        found.append(form.op("Conv", signal, kernel, group=groups))
    joined = form.op("Concat", *found, axis=3)
    each = form.reshape(joined, BATCH, layer.inputs, 1, layer.kernel, layer.kernel)
    return form.op("ReduceSum", each, form.whole(0), keepdims=0)


def _group(layer: Layer, form: Form) -> str:
    groups = layer.inputs
    signal = form.reshape(form.swapped("x"), 1, groups * BATCH, layer.size, layer.size)
    found = form.op("Conv", signal, form.swapped("g"), pads=(layer.pad,) * 4, group=groups)
    return form.reshape(found, groups, 1, layer.kernel, layer.kernel)


def _diagonals(layer: Layer, form: Form) -> str:
    """Products over all rows, (column of g, column of x): of them the diagonals are summed."""
    channels, places, width = layer.inputs, layer.places, layer.size + 2 * layer.pad
    data = form.padded(form.swapped("x"), layer.pad)
    turned = form.op("Transpose", "g", perm=(1, 3, 0, 2))
    rows = form.reshape(turned, channels, places, BATCH * places)
    products = []
    for start in range(layer.kernel):
        part = form.reshape(form.cut(data, 2, start, start + places), channels, -1, width)
        products.append(form.reshape(form.op("MatMul", rows, part), channels, 1, places * width))
    joined = form.op("Concat", *products, axis=1)
    skewed = form.op("Pad", joined, form.whole(0, 0, 0, 0, 0, places))
    skewed = form.reshape(skewed, channels, layer.kernel, places, width + 1)
    taken = form.cut(skewed, 3, 0, layer.kernel)
    total = form.op("ReduceSum", taken, form.whole(2), keepdims=0)
    return form.reshape(total, channels, 1, layer.kernel, layer.kernel)


def _flipped(layer: Layer, form: Form) -> str:
    ends = (form.whole(-1, -1), form.whole(-(2**31), -(2**31)))
    kernel = form.op("Slice", form.swapped("x"), *ends, form.whole(2, 3), form.whole(-1, -1))
    return form.op("Conv", "g", kernel, pads=(layer.pad,) * 4)


def _turned(layer: Layer, form: Form) -> str:
    return form.op("ConvTranspose", "g", "x", pads=(layer.pad,) * 4)


def _inside(form: Form) -> str:
    low, high = (form.constant(np.array(value, np.float32)) for value in (0, 6))
    return form.op("And", form.op("Greater", "x", low), form.op("Less", "x", high))


def _masked(form: Form) -> str:
    return form.op("Mul", "g", form.op("Cast", _inside(form), to=1))


def _chosen(form: Form) -> str:
    return form.op("Where", _inside(form), "g", form.constant(np.array(0, np.float32)))
