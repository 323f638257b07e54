"""Operators that reduce axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from edgetune_exporters.lowering.call import Call

Lowering = Callable[[Call], Any]


def _axes(call: Call, dim: Any) -> list[int]:
    rank = call.meta(0).dim()
    if dim is None or dim == []:
        return list(range(rank))
    dims = [dim] if isinstance(dim, int) else list(dim)
    return [axis % rank if rank else 0 for axis in dims]


def reduce(call: Call, kind: str, name: str, axes: Sequence[int], keep: bool) -> str:
    """Reduce `axes` of `name` with the ONNX reduction `kind`."""
    if call.meta(0).dim() == 0:
        return name
    return call.op(kind, [name, call.emitter.integers(axes)], {"keepdims": int(keep)})


def _reduction(kind: str) -> Lowering:
    def lower(call: Call) -> str:
        axes, keep = _axes(call, call.arg(1, name="dim")), bool(call.arg(2, False, "keepdim"))
        name = call.operand(call.arg(0), call.result.dtype)
        if all(call.meta(0).shape[axis] == 1 for axis in axes):
            return call.reshape(name, call.result.shape)
        return reduce(call, kind, name, axes, keep)

    return lower


def _truth(kind: str) -> Lowering:
    """any and all: ONNX reduces no booleans, so over integers 0 and 1."""

    def lower(call: Call) -> str:
        axes, keep = _axes(call, call.arg(1)), bool(call.arg(2, False, "keepdim"))
        truth = call.operand(call.arg(0), torch.bool)
        number = call.cast(truth, torch.bool, torch.int32)
        return call.cast(reduce(call, kind, number, axes, keep), torch.int32, torch.bool)

    return lower


def _searchable(call: Call) -> str:
    """The argument in a type that onnxruntime finds extremes in: of integers, only 32 bits."""
    dtype = call.meta(0).dtype
    if dtype.is_floating_point:
        return call.tensor(0)
    return call.operand(call.arg(0), torch.float64 if dtype == torch.int64 else torch.int32)


def _index(kind: str) -> Lowering:
    def lower(call: Call) -> str:
        dim, keep = call.arg(1, name="dim"), bool(call.arg(2, False, "keepdim"))
        name = _searchable(call)
        if dim is None:
            name = call.reshape(name, [call.meta(0).numel()])
            dim = 0
        axis = dim % max(call.meta(0).dim(), 1)
        return call.op(kind, [name], {"axis": axis, "keepdims": int(keep)})

    return lower


def _extreme_with_index(value_kind: str, index_kind: str) -> Lowering:
    def lower(call: Call) -> tuple[str, str]:
        axis, keep = call.arg(1) % call.meta(0).dim(), bool(call.arg(2, False, "keepdim"))
        value = reduce(call, value_kind, call.tensor(0), [axis], keep)
        index = call.op(index_kind, [_searchable(call)], {"axis": axis, "keepdims": int(keep)})
        return value, index

    return lower


def _variance(call: Call) -> str:
    return _mean_and_variance(call)[1]


def _variance_mean(call: Call) -> tuple[str, str]:
    mean, variance = _mean_and_variance(call)
    return variance, mean


def _mean_and_variance(call: Call) -> tuple[str, str]:
    axes = _axes(call, call.arg(1, name="dim"))
    keep, x = bool(call.keyword("keepdim", False)), call.tensor(0)
    correction = call.keyword("correction", 1)
    correction = 1 if correction is None else correction
    count = 1
    for axis in axes:
        count *= call.meta(0).shape[axis]
    centre = reduce(call, "ReduceMean", x, axes, True)
    distance = call.op("Sub", [x, centre])
    total = reduce(call, "ReduceSum", call.op("Mul", [distance, distance]), axes, keep)
    dtype = call.meta(0).dtype
    variance = call.op("Div", [total, call.scalar(count - correction, dtype)])
    return (centre if keep else reduce(call, "ReduceMean", x, axes, False)), variance


def _cumsum(call: Call) -> str:
    axis = call.emitter.integers([call.arg(1) % call.meta(0).dim()])
    return call.op("CumSum", [call.operand(call.arg(0), call.result.dtype), axis])


def _softmax(kind: str) -> Lowering:
    def lower(call: Call) -> str:
        axis = call.arg(1) % call.meta(0).dim()
        return call.op(kind, [call.operand(call.arg(0), call.result.dtype)], {"axis": axis})

    return lower


def _layer_norm(call: Call) -> tuple[str, ...]:
    """All three results: the gradient needs the mean and the inverse deviation."""
    x, shape, weight, bias = call.tensor(0), list(call.arg(1)), call.arg(2), call.arg(3)
    dtype = call.meta(0).dtype
    scale = (
        call.name_of(weight)
        if weight is not None
        else call.emitter.constant(torch.ones(shape, dtype=dtype).numpy())
    )
    inputs = [x, scale] + ([call.name_of(bias)] if bias is not None else [])
    attributes = {"axis": call.meta(0).dim() - len(shape), "epsilon": float(call.arg(4))}
    return call.emitter.multi("LayerNormalization", inputs, 3, attributes)


LOWERINGS: dict[str, Lowering] = {
    **{f"aten.sum.{o}": _reduction("ReduceSum") for o in ("default", "dim_IntList")},
    **{f"aten.mean.{o}": _reduction("ReduceMean") for o in ("default", "dim")},
    **{f"aten.prod.{o}": _reduction("ReduceProd") for o in ("default", "dim_int")},
    **{f"aten.any.{o}": _truth("ReduceMax") for o in ("default", "dim", "dims")},
    **{f"aten.all.{o}": _truth("ReduceMin") for o in ("default", "dim", "dims")},
    "aten.amax.default": _reduction("ReduceMax"),
    "aten.amin.default": _reduction("ReduceMin"),
    "aten.max.default": _reduction("ReduceMax"),
    "aten.min.default": _reduction("ReduceMin"),
    "aten.argmax.default": _index("ArgMax"),
    "aten.argmin.default": _index("ArgMin"),
    "aten.max.dim": _extreme_with_index("ReduceMax", "ArgMax"),
    "aten.min.dim": _extreme_with_index("ReduceMin", "ArgMin"),
    "aten.var.correction": _variance,
    "aten.var_mean.correction": _variance_mean,
    "aten.cumsum.default": _cumsum,
    "aten._softmax.default": _softmax("Softmax"),
    "aten._log_softmax.default": _softmax("LogSoftmax"),
    "aten.native_layer_norm.default": _layer_norm,
}
