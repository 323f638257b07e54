"""Matrix products, convolutions and pooling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from edgetune_exporters.lowering.call import Call
from edgetune_exporters.lowering.shapes import reordered, reordering, transpose

Lowering = Callable[[Call], Any]


def _matrix(call: Call, node: fx.Node) -> tuple[str, int]:
    """(name, 1 when it stands transposed): a transposed matrix is read as it lies in memory."""
    transposed = 0
    while (order := reordering(node)) is not None:
        transposed ^= order == [1, 0]
        source: Any = node.args[0]
        node = source
    return call.name_of(node), transposed


def _mm(call: Call) -> str:
    (a, trans_a), (b, trans_b) = (_matrix(call, call.arg(i)) for i in (0, 1))
    if not trans_a and not trans_b:
        return call.op("MatMul", [a, b])
    return call.op("Gemm", [a, b], {"transA": trans_a, "transB": trans_b})


def _addmm(call: Call) -> str:
    (a, trans_a), (b, trans_b) = (_matrix(call, call.arg(i)) for i in (1, 2))
    attributes = {
        "alpha": float(call.keyword("alpha", 1)),
        "beta": float(call.keyword("beta", 1)),
        "transA": trans_a,
        "transB": trans_b,
    }
    return call.op("Gemm", [a, b, call.tensor(0)], attributes)


def _bmm(call: Call) -> str:
    """MatMul reads no operand transposed. Of a left one it turns the right and the result instead,
    where they are smaller together.
    """
    left, (rows, inner), columns = call.arg(0), call.meta(0).shape[1:], call.meta(1).shape[2]
    swapped = [0, 2, 1]
    if reordering(left) == swapped and (inner + rows) * columns < rows * inner:
        turned = reordered(call, call.arg(1), swapped)
        product = call.op("MatMul", [turned, call.name_of(left.args[0])])
        return transpose(call, product, swapped)
    return _matmul(call)


def _matmul(call: Call) -> str:
    return call.op("MatMul", [call.tensor(0), call.tensor(1)])


def _axes(values: Sequence[int], count: int) -> list[int]:
    return list(values) * count if len(values) == 1 else list(values)


def _unpadded(node: fx.Node, spatial: int) -> tuple[fx.Node, list[int], list[int]]:
    """(data, padding before, after) of each spatial axis: zeros around it are the convolution's."""
    nothing = [0] * spatial
    if str(node.target) != "aten.constant_pad_nd.default":
        return node, nothing, nothing
    pads: Any = node.args[1]
    value: Any = node.args[2] if len(node.args) > 2 else 0
    if value != 0 or len(pads) > 2 * spatial or min(pads) < 0:
        return node, nothing, nothing
    every = [*pads, *[0] * (2 * spatial - len(pads))]  # from the last axis to the first
    source: Any = node.args[0]
    return source, every[-2::-2], every[::-2]


def _convolution(call: Call) -> str:
    bias, spatial = call.arg(2), call.meta(0).dim() - 2
    stride, padding, dilation = (_axes(call.arg(i), spatial) for i in (3, 4, 5))
    data, before, after = _unpadded(call.arg(0), spatial)
    if call.arg(6):
        data, before, after = call.arg(0), [0] * spatial, [0] * spatial
    inputs = [call.name_of(data), call.tensor(1)]
    inputs += [call.name_of(bias)] if bias is not None else []
    pads = [
        *(p + more for p, more in zip(padding, before, strict=True)),
        *(p + more for p, more in zip(padding, after, strict=True)),
    ]
    attributes: dict[str, Any] = {
        "strides": stride,
        "pads": pads,
        "dilations": dilation,
        "group": call.arg(8),
    }
    if not call.arg(6):
        return call.op("Conv", inputs, attributes)
    attributes["output_padding"] = _axes(call.arg(7), spatial)
    return call.op("ConvTranspose", inputs, attributes)


def _window(call: Call, has_dilation: bool) -> dict[str, Any]:
    """Attributes of a pooling window: (data, kernel, stride, padding, [dilation], ceil_mode)."""
    spatial = call.meta(0).dim() - 2
    kernel = _axes(call.arg(1), spatial)
    stride = _axes(call.arg(2), spatial) if call.arg(2) else kernel
    padding = _axes(call.arg(3, [0]), spatial)
    attributes: dict[str, Any] = {
        "kernel_shape": kernel,
        "strides": stride,
        "pads": padding + padding,
        "ceil_mode": int(call.arg(5 if has_dilation else 4, False)),
    }
    if has_dilation:
        attributes["dilations"] = _axes(call.arg(4, [1]), spatial)
    return attributes


def _max_pool2d(call: Call) -> tuple[str, str]:
    """ONNX counts indices over the whole tensor, PyTorch within each plane."""
    if call.meta(0).dim() != 4:
        raise call.refuse("max pooling without a batch dimension")
    attributes = _window(call, has_dilation=True)
    value, whole = call.emitter.multi("MaxPool", [call.tensor(0)], 2, attributes)
    area = call.meta(0).shape[-1] * call.meta(0).shape[-2]
    return value, call.op("Mod", [whole, call.scalar(area, torch.int64)])


def _avg_pool(call: Call) -> str:
    if call.arg(6) is not None:
        raise call.refuse("divisor_override")
    attributes = {**_window(call, has_dilation=False), "count_include_pad": int(call.arg(5, True))}
    return call.op("AveragePool", [call.tensor(0)], attributes)


LOWERINGS: dict[str, Lowering] = {
    "aten.mm.default": _mm,
    "aten.addmm.default": _addmm,
    "aten.bmm.default": _bmm,
    "aten.matmul.default": _matmul,
    "aten.mv.default": _matmul,
    "aten.dot.default": _matmul,
    "aten.convolution.default": _convolution,
    "aten.max_pool2d_with_indices.default": _max_pool2d,
    "aten.avg_pool2d.default": _avg_pool,
    "aten.avg_pool1d.default": _avg_pool,
}
