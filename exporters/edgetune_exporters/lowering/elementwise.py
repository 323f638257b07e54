"""Element-wise operators."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import fx

from edgetune_exporters.lowering.call import Call, meta_of

Lowering = Callable[[Call], Any]

_UNARY = {
    "abs": "Abs", "neg": "Neg", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "sin": "Sin",
    "cos": "Cos", "tan": "Tan", "atan": "Atan", "asin": "Asin", "acos": "Acos", "sinh": "Sinh",
    "cosh": "Cosh", "tanh": "Tanh", "sigmoid": "Sigmoid", "erf": "Erf", "relu": "Relu",
    "floor": "Floor", "ceil": "Ceil", "round": "Round", "sign": "Sign", "sgn": "Sign",
    "asinh": "Asinh", "acosh": "Acosh", "atanh": "Atanh", "reciprocal": "Reciprocal",
    "isnan": "IsNaN", "isinf": "IsInf",
}  # fmt: skip
_BINARY = {"mul": "Mul", "maximum": "Max", "minimum": "Min"}
_COMPARISON = {
    "eq": "Equal", "lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual",
}  # fmt: skip
_SMALL_INTEGERS = (torch.uint8, torch.int8, torch.int16)  # onnxruntime does not compare them
_LOGICAL = {"and": "And", "or": "Or", "xor": "Xor"}


def _unary(kind: str) -> Lowering:
    def lower(call: Call) -> str:
        return call.op(kind, [call.operand(call.arg(0), _operating_type(call))])

    return lower


def _operating_type(call: Call) -> torch.dtype:
    """The type a unary operator computes in: its result's, or its input's for a predicate."""
    result = call.result.dtype
    return call.meta(0).dtype if result == torch.bool else result


def _binary(kind: str) -> Lowering:
    def lower(call: Call) -> str:
        dtype = call.result.dtype
        if dtype == torch.bool and kind == "Mul":
            kind_of_bool = "And"
            return call.op(kind_of_bool, [call.operand(call.arg(i), dtype) for i in (0, 1)])
        return call.op(kind, [call.operand(call.arg(i), dtype) for i in (0, 1)])

    return lower


def _comparison(kind: str, negated: bool = False) -> Lowering:
    def lower(call: Call) -> str:
        dtype = _common_type(call.arg(0), call.arg(1))
        if dtype in _SMALL_INTEGERS or (dtype == torch.bool and kind != "Equal"):
            dtype = torch.int32
        result = call.op(kind, [call.operand(call.arg(i), dtype) for i in (0, 1)])
        return call.op("Not", [result]) if negated else result

    return lower


def _common_type(left: Any, right: Any) -> torch.dtype:
    operands = [meta_of(x) if isinstance(x, fx.Node) else x for x in (left, right)]
    return torch.result_type(*operands)


def _logical(kind: str) -> Lowering:
    def lower(call: Call) -> str:
        if call.result.dtype != torch.bool:
            raise call.refuse("bit-wise arithmetic on integers has no portable operator")
        return call.op(kind, [call.operand(call.arg(i), torch.bool) for i in (0, 1)])

    return lower


def _negation(call: Call) -> str:
    if call.result.dtype != torch.bool:
        raise call.refuse("bit-wise arithmetic on integers has no portable operator")
    return call.op("Not", [call.operand(call.arg(0), torch.bool)])


def _scaled_sum(kind: str) -> Lowering:
    """add and sub with their `alpha`."""

    def lower(call: Call) -> str:
        dtype, alpha = call.result.dtype, call.keyword("alpha", 1)
        if dtype == torch.bool and kind == "Add":
            return call.op("Or", [call.operand(call.arg(i), dtype) for i in (0, 1)])
        left, right = (call.operand(call.arg(i), dtype) for i in (0, 1))
        if alpha != 1:
            right = call.op("Mul", [right, call.operand(alpha, dtype)])
        return call.op(kind, [left, right])

    return lower


def _rsub(call: Call) -> str:
    dtype = call.result.dtype
    return call.op("Sub", [call.operand(call.arg(1), dtype), call.operand(call.arg(0), dtype)])


def _div(call: Call) -> str:
    mode = call.keyword("rounding_mode")
    dtype = call.result.dtype
    computed = dtype if mode is None or dtype.is_floating_point else torch.float64
    quotient = call.op("Div", [call.operand(call.arg(i), computed) for i in (0, 1)])
    if mode is None:
        return quotient
    if mode == "floor":
        return call.cast(call.op("Floor", [quotient]), computed, dtype)
    return call.cast(_toward_zero(call, quotient), computed, dtype)


def _toward_zero(call: Call, name: str) -> str:
    return call.op("Mul", [call.op("Sign", [name]), call.op("Floor", [call.op("Abs", [name])])])


def _truncated(call: Call) -> str:
    dtype = call.result.dtype
    return _toward_zero(call, call.tensor(0)) if dtype.is_floating_point else call.tensor(0)


def _fmod(call: Call) -> str:
    """The remainder with the dividend's sign, as in C."""
    dtype = call.result.dtype
    return call.op("Mod", [call.operand(call.arg(i), dtype) for i in (0, 1)], {"fmod": 1})


def _remainder(call: Call) -> str:
    """The remainder with the divisor's sign, as in Python."""
    dtype = call.result.dtype
    left, right = (call.operand(call.arg(i), dtype) for i in (0, 1))
    if not dtype.is_floating_point:
        return call.op("Mod", [left, right])
    times = call.op("Floor", [call.op("Div", [left, right])])
    return call.op("Sub", [left, call.op("Mul", [times, right])])


def _pow(call: Call) -> str:
    dtype, exponent = call.result.dtype, call.arg(1)
    base = call.operand(call.arg(0), dtype)
    if exponent == 1:
        return base
    if exponent == 2:
        return call.op("Mul", [base, base])
    if exponent == 3:
        return call.op("Mul", [call.op("Mul", [base, base]), base])
    if exponent == 0.5:
        return call.op("Sqrt", [base])
    if exponent in (-1, -0.5):
        root = base if exponent == -1 else call.op("Sqrt", [base])
        return call.op("Reciprocal", [root])
    return call.op("Pow", [base, call.operand(exponent, dtype)])


def _rsqrt(call: Call) -> str:
    return call.op("Reciprocal", [call.op("Sqrt", [call.operand(call.arg(0), call.result.dtype)])])


def _log1p(call: Call) -> str:
    dtype = call.result.dtype
    return call.op(
        "Log", [call.op("Add", [call.operand(call.arg(0), dtype), call.scalar(1, dtype)])]
    )


def _expm1(call: Call) -> str:
    dtype = call.result.dtype
    return call.op(
        "Sub", [call.op("Exp", [call.operand(call.arg(0), dtype)]), call.scalar(1, dtype)]
    )


def _logarithm(base: float) -> Lowering:
    def lower(call: Call) -> str:
        dtype = call.result.dtype
        natural = call.op("Log", [call.operand(call.arg(0), dtype)])
        return call.op("Mul", [natural, call.scalar(1 / math.log(base), dtype)])

    return lower


def _erfc(call: Call) -> str:
    dtype = call.result.dtype
    erf = call.op("Erf", [call.operand(call.arg(0), dtype)])
    return call.op("Sub", [call.scalar(1, dtype), erf])


def _exp2(call: Call) -> str:
    dtype = call.result.dtype
    return call.op("Pow", [call.scalar(2, dtype), call.operand(call.arg(0), dtype)])


def _where(call: Call) -> str:
    dtype = call.result.dtype
    condition = call.operand(call.arg(0), torch.bool)
    return call.op("Where", [condition, *(call.operand(call.arg(i), dtype) for i in (1, 2))])


def _masked_fill(call: Call) -> str:
    dtype = call.result.dtype
    condition = call.operand(call.arg(1), torch.bool)
    return call.op("Where", [condition, call.operand(call.arg(2), dtype), call.tensor(0)])


def _clamp(call: Call) -> str:
    dtype = call.result.dtype
    low, high = call.arg(1, name="min"), call.arg(2, name="max")
    name = call.operand(call.arg(0), dtype)
    if not isinstance(low, fx.Node) and not isinstance(high, fx.Node) and dtype.is_floating_point:
        return clip(call, name, low, high)
    if low is not None:
        name = call.op("Max", [name, call.operand(low, dtype)])
    if high is not None:
        name = call.op("Min", [name, call.operand(high, dtype)])
    return name


def clip(call: Call, name: str, low: float | None, high: float | None) -> str:
    """Clip by constants; an absent bound is an empty input."""
    bounds = ["" if b is None else call.scalar(b, torch.float32) for b in (low, high)]
    return call.op("Clip", [name, *bounds] if high is not None else [name, bounds[0]])


def _hardtanh(call: Call) -> str:
    return clip(call, call.tensor(0), call.arg(1, -1.0), call.arg(2, 1.0))


def _leaky_relu(call: Call) -> str:
    return call.op("LeakyRelu", [call.tensor(0)], {"alpha": float(call.arg(1, 0.01))})


def _elu(call: Call) -> str:
    """scale * x where x > 0, scale * alpha * (exp(input_scale * x) - 1) elsewhere."""
    dtype, x = call.result.dtype, call.tensor(0)
    alpha, scale, input_scale = (call.arg(i, 1.0) for i in (1, 2, 3))
    scaled = x if input_scale == 1 else call.op("Mul", [x, call.scalar(input_scale, dtype)])
    result = call.op("Elu", [scaled], {"alpha": float(alpha)})
    if input_scale != 1:
        positive = call.op("Greater", [x, call.scalar(0, dtype)])
        result = call.op("Where", [positive, x, result])
    return result if scale == 1 else call.op("Mul", [result, call.scalar(scale, dtype)])


def _gelu(call: Call) -> str:
    """0.5 x (1 + erf(x / sqrt 2)), a form that onnxruntime fuses (Hendrycks and Gimpel, 2016)."""
    dtype, x = call.result.dtype, call.tensor(0)
    half, one = call.scalar(0.5, dtype), call.scalar(1.0, dtype)
    if call.keyword("approximate", "none") == "tanh":
        cube = call.op("Mul", [call.op("Mul", [x, x]), x])
        inner = call.op("Add", [x, call.op("Mul", [cube, call.scalar(0.044715, dtype)])])
        scaled = call.op("Mul", [inner, call.scalar(math.sqrt(2 / math.pi), dtype)])
        gate = call.op("Tanh", [scaled])
    else:
        gate = call.op("Erf", [call.op("Div", [x, call.scalar(math.sqrt(2), dtype)])])
    return call.op("Mul", [call.op("Mul", [x, call.op("Add", [gate, one])]), half])


def _convert(call: Call) -> str:
    return call.cast(call.tensor(0), call.meta(0).dtype, call.result.dtype)


def _identity(call: Call) -> str:
    return call.tensor(0)


def _full(call: Call) -> str:
    """A constant of the result's shape: full, zeros, ones, empty and their `_like` forms."""
    name = str(call.node.target).split(".")[1]
    fill: Any = {"zeros": 0, "ones": 1, "new_zeros": 0, "new_ones": 1, "zeros_like": 0,
                 "ones_like": 1, "empty": 0, "empty_like": 0, "empty_permuted": 0,
                 "new_empty": 0}.get(name)  # fmt: skip
    if fill is None:
        fill = call.arg(0) if name == "scalar_tensor" else call.arg(2 if name == "new_full" else 1)
    shape = tuple(call.result.shape)
    value = torch.full(shape, fill, dtype=call.result.dtype, device="cpu")
    return call.emitter.constant(value.numpy())


def _computed(call: Call) -> str:
    """A constant that torch computes now: arange, eye and the like, whose arguments are numbers."""
    arguments = {k: v for k, v in call.node.kwargs.items() if k not in ("device", "pin_memory")}
    target: Any = call.node.target
    value = target(*call.node.args, **arguments)
    return call.emitter.constant(value.numpy())


_CONSTANTS = (
    "full", "full_like", "zeros", "zeros_like", "ones", "ones_like", "empty", "empty_like",
    "empty_permuted",
    "new_full", "new_zeros", "new_ones", "new_empty", "scalar_tensor",
)  # fmt: skip

_IDENTITIES = ("clone", "alias", "detach", "lift_fresh_copy", "contiguous")
_SCALAR_OR_TENSOR = ("Tensor", "Scalar")


def _overloads(names: Iterable[str], overloads: Iterable[str]) -> list[tuple[str, str]]:
    """(full name, operator name) of every overload of the named operators."""
    return [(f"aten.{name}.{overload}", name) for name in names for overload in overloads]


LOWERINGS: dict[str, Lowering] = {
    **{full: _unary(_UNARY[name]) for full, name in _overloads(_UNARY, ["default"])},
    **{
        full: _binary(_BINARY[name])
        for full, name in _overloads(_BINARY, [*_SCALAR_OR_TENSOR, "default"])
    },
    **{
        full: _comparison(_COMPARISON[name])
        for full, name in _overloads(_COMPARISON, _SCALAR_OR_TENSOR)
    },
    **{
        full: _comparison("Equal", negated=True)
        for full, _ in _overloads(["ne"], _SCALAR_OR_TENSOR)
    },
    **{
        f"aten.{form}_{name}.{overload}": _logical(kind)
        for name, kind in _LOGICAL.items()
        for form, overload in (("bitwise", "Tensor"), ("bitwise", "Scalar"), ("logical", "default"))
    },
    **{full: _scaled_sum("Add") for full, _ in _overloads(["add"], _SCALAR_OR_TENSOR)},
    **{full: _scaled_sum("Sub") for full, _ in _overloads(["sub"], _SCALAR_OR_TENSOR)},
    **{full: _full for full, _ in _overloads(_CONSTANTS, ["default", "memory_format"])},
    **{
        full: _div
        for full, _ in _overloads(["div"], [*_SCALAR_OR_TENSOR, "Tensor_mode", "Scalar_mode"])
    },
    **{full: _remainder for full, _ in _overloads(["remainder"], _SCALAR_OR_TENSOR)},
    **{full: _pow for full, _ in _overloads(["pow"], ["Tensor_Scalar", "Tensor_Tensor", "Scalar"])},
    **{full: _rsub for full, _ in _overloads(["rsub"], _SCALAR_OR_TENSOR)},
    **{full: _clamp for full, _ in _overloads(["clamp"], ["default", "Tensor"])},
    **{full: _masked_fill for full, _ in _overloads(["masked_fill"], _SCALAR_OR_TENSOR)},
    **{full: _identity for full, _ in _overloads(_IDENTITIES, ["default"])},
    **{full: _computed for full, _ in _overloads(["arange"], ["default", "start", "start_step"])},
    "aten.eye.default": _computed,
    "aten.eye.m": _computed,
    "aten.logical_not.default": _negation,
    "aten.bitwise_not.default": _negation,
    "aten.where.self": _where,
    "aten.rsqrt.default": _rsqrt,
    "aten.log1p.default": _log1p,
    "aten.expm1.default": _expm1,
    "aten.log2.default": _logarithm(2),
    "aten.log10.default": _logarithm(10),
    "aten.exp2.default": _exp2,
    "aten.erfc.default": _erfc,
    "aten.clamp_min.Tensor": _binary("Max"),
    "aten.clamp_max.Tensor": _binary("Min"),
    "aten.hardtanh.default": _hardtanh,
    "aten.leaky_relu.default": _leaky_relu,
    "aten.elu.default": _elu,
    "aten.trunc.default": _truncated,
    "aten.fmod.Tensor": _fmod,
    "aten.fmod.Scalar": _fmod,
    "aten.gelu.default": _gelu,
    "aten._to_copy.default": _convert,
    "prims.convert_element_type.default": _convert,
}
