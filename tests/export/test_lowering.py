"""Every element-wise operator: forward and gradient of the lowered step against autograd."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from tests.export.lowered import Pairs, assert_equal, compare_table

Function = Callable[..., Any]
BATCH = 3


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def whole(*shape: int, low: int = -6, high: int = 6) -> Tensor:
    """Whole numbers, zero left out."""
    found = torch.randint(low, high, shape, generator=torch.Generator().manual_seed(2))
    return torch.where(found == 0, 1, found)


def positive(x: Tensor) -> Tensor:
    return x.abs() + 0.5


def inside(x: Tensor) -> Tensor:
    """Between -0.9 and 0.9."""
    return 0.9 * torch.tanh(x)


UNARY: dict[str, Function] = {
    "abs": torch.abs,
    "neg": torch.neg,
    "exp": torch.exp,
    "log": lambda x: torch.log(positive(x)),
    "sqrt": lambda x: torch.sqrt(positive(x)),
    "rsqrt": lambda x: torch.rsqrt(positive(x)),
    "reciprocal": lambda x: torch.reciprocal(positive(x)),
    "sin": torch.sin,
    "cos": torch.cos,
    "tan": lambda x: torch.tan(inside(x)),
    "asin": lambda x: torch.asin(inside(x)),
    "acos": lambda x: torch.acos(inside(x)),
    "atan": torch.atan,
    "sinh": torch.sinh,
    "cosh": torch.cosh,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "erf": torch.erf,
    "log1p": lambda x: torch.log1p(positive(x)),
    "expm1": torch.expm1,
    "relu": torch.relu,
    "relu6": F.relu6,
    "hardtanh": lambda x: F.hardtanh(x, -0.5, 0.3),
    "leaky-relu": lambda x: F.leaky_relu(x, 0.2),
    "elu": lambda x: F.elu(x, 0.7),
    "celu": lambda x: F.celu(x, 1.0),
    "selu": F.selu,
    "gelu": F.gelu,
    "gelu-tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "mish": F.mish,
    "softplus": F.softplus,
    "logsigmoid": F.logsigmoid,
    "hardswish": lambda x: F.hardswish(3 * x),
    "hardsigmoid": lambda x: F.hardsigmoid(3 * x),
    "floor": lambda x: x + torch.floor(x),
    "ceil": lambda x: x + torch.ceil(x),
    "round": lambda x: x + torch.round(x),
    "trunc": lambda x: x + torch.trunc(x),
    "sign": lambda x: x * torch.sign(x),
    "square": torch.square,
    "asinh": torch.asinh,
    "acosh": lambda x: torch.acosh(positive(x) + 1),
    "atanh": lambda x: torch.atanh(inside(x)),
    "log2": lambda x: torch.log2(positive(x)),
    "log10": lambda x: torch.log10(positive(x)),
    "exp2": torch.exp2,
    "erfc": torch.erfc,
    "logit": lambda x: torch.logit(inside(x).abs() + 0.05),
}

ARITHMETIC: dict[str, Function] = {
    "add": lambda x, y: x + y,
    "add-alpha": lambda x, y: torch.add(x, y, alpha=3),
    "add-number": lambda x, y: x + 2,
    "sub-alpha": lambda x, y: torch.sub(x, y, alpha=0.5),
    "rsub": lambda x, y: 1 - x,
    "mul": lambda x, y: x * y,
    "mul-number": lambda x, y: 3 * x,
    "div": lambda x, y: x / (1 + y * y),
    "div-number": lambda x, y: x / 3,
    "number-div": lambda x, y: 3 / positive(x),
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "broadcast": lambda x, y: x * y[:, :1] + y[0],
    "pow-tensor": lambda x, y: positive(x) ** y,
    "pow-number-tensor": lambda x, y: 2.0**x,
    "remainder": lambda x, y: torch.remainder(x, positive(y)),
    "remainder-number": lambda x, y: x % -0.7,
    "floor-div": lambda x, y: x + torch.floor(x / 0.3),
    "fmod": lambda x, y: torch.fmod(x, positive(y)),
    "fmod-number": lambda x, y: torch.fmod(x, 0.7),
    "trunc-div": lambda x, y: x + torch.div(x, 0.3, rounding_mode="trunc"),
    "where": lambda x, y: torch.where(y > 0, x, y),
    "where-number": lambda x, y: torch.where(y > 0, x, 0.5),
    "masked-fill": lambda x, y: x.masked_fill(y > 0, -2.0),
    "clamp": lambda x, y: x.clamp(-0.5, 0.5),
    "clamp-min": lambda x, y: x.clamp(min=0.1),
    "clamp-max": lambda x, y: x.clamp(max=0.1),
    "clamp-tensors": lambda x, y: torch.clamp(x, min=y - 0.2, max=y + 0.2),
    "lerp": lambda x, y: torch.lerp(x, y, 0.3),
    "addcmul": lambda x, y: torch.addcmul(x, y, y, value=0.5),
    "addcdiv": lambda x, y: torch.addcdiv(x, y, positive(y), value=0.5),
    "length": lambda x, y: torch.sqrt(x * x + y * y + 1e-3),
}


INTEGERS: dict[str, Function] = {
    "add": lambda i: i + 2,
    "mul": lambda i: i * i,
    "sub": lambda i: 7 - i,
    "abs": torch.abs,
    "neg": torch.neg,
    "sign": torch.sign,
    "remainder": lambda i: i % 4,
    "remainder-negative": lambda i: i % -4,
    "floor-div": lambda i: i // 4,
    "floor-div-negative": lambda i: i // -4,
    "trunc-div": lambda i: torch.div(i, 4, rounding_mode="trunc"),
    "true-div": lambda i: i / 4,
    "clamp": lambda i: i.clamp(-2, 3),
    "maximum": lambda i: torch.maximum(i, -i),
    "square": lambda i: i**2,
    "where": lambda i: torch.where(i > 0, i, 0),
    "masked-fill": lambda i: i.masked_fill(i > 0, 9),
    "sum": lambda i: i.sum(1),
    "cumsum": lambda i: i.cumsum(1),
    "amax": lambda i: i.amax(1),
    "argmax": lambda i: i.argmax(1),
    "to-float": lambda i: i.float() * 0.5,
    "to-int32": lambda i: i.int() + 1,
    "int32-plus-int64": lambda i: i.int() + i,
    "times-float": lambda i: i * 0.5,
    "sqrt-of-integers": lambda i: torch.sqrt(i * i),
    "bool-sum": lambda i: (i > 0).sum(1),
    "bool-cumsum": lambda i: (i > 0).cumsum(1),
    "bool-times-integer": lambda i: (i > 0) * i,
    "bool-plus-bool": lambda i: (i > 0) + (i < -3),
    "bool-times-bool": lambda i: (i > 0) * (i < 3),
    "bool-minus": lambda i: 1 - (i > 0).long(),
    "eq": lambda i: i == 2,
    "ne": lambda i: i != 2,
    "lt-number-float": lambda i: i < 2.5,
    "compare-bools": lambda i: (i > 0) < (i > -3),
    "compare-bool-with-one": lambda i: (i > 0) == 1,
    "ne-bools": lambda i: (i > 0) != (i > -3),
    "and": lambda i: (i > -3) & (i < 3),
    "or": lambda i: (i < -3) | (i > 3),
    "xor": lambda i: (i < 3) ^ (i > -3),
    "not": lambda i: ~(i > 0),
    "logical-not": torch.logical_not,
    "logical-and": lambda i: torch.logical_and(i - 1, i > 0),
    "any": lambda i: (i > 4).any(),
    "any-dim": lambda i: (i > 4).any(1),
    "any-keepdim": lambda i: (i > 4).any(-1, keepdim=True),
    "any-of-integers": lambda i: (i - 1).any(1),
    "all": lambda i: (i > -9).all(),
    "all-dim": lambda i: (i > -4).all(1, keepdim=True),
    "full-like": lambda i: torch.full_like(i, 3),
    "arange": lambda i: i + torch.arange(5),
    "arange-step": lambda i: i + torch.arange(1, 11, 2),
    "eye": lambda i: i + torch.eye(5).long()[:3],
    "one-hot": lambda i: (i.unsqueeze(-1) == torch.arange(4)).float(),
    "triu": lambda i: torch.triu(i, 1),
    "isnan": lambda i: torch.isnan(i / (i - 1)),
    "isinf": lambda i: torch.isinf(i / (i - 1)),
}


MIXED: dict[str, Function] = {
    "float-times-integer": lambda x, i: x * i,
    "float-plus-bool": lambda x, i: x + (i > 0),
    "float-times-bool": lambda x, i: x * (i > 0),
    "float-minus-int32": lambda x, i: x - i.int(),
    "float-over-integer": lambda x, i: x / i,
    "compare-with-integer": lambda x, i: torch.where(x > i, x, i),
    "maximum-of-float-and-integer": lambda x, i: torch.maximum(x, i.float()),
    "power-integer": lambda x, i: positive(x) ** i,
    "cat-float-integer": lambda x, i: torch.cat([x, i.float()], 1),
    "stack-same": lambda x, i: torch.stack([x, i.float()], 1),
    "float64-inside": lambda x, i: (x.double() * i.double()).float(),
}


POWERS: dict[str, Function] = {
    **{
        f"power {exponent}": lambda x, exponent=exponent: positive(x) ** exponent
        for exponent in (0, 1, 2, 3, 4, -1, -2, 0.5, -0.5, 1.5)
    },
    "square of any": lambda x: x**2,
    "cube of any": lambda x: x**3,
}


TABLES: dict[str, tuple[dict[str, Function], tuple[Tensor, ...]]] = {
    "unary": (UNARY, (rand(BATCH, 4),)),
    "powers": (POWERS, (rand(BATCH, 4),)),
    "arithmetic": (ARITHMETIC, (rand(BATCH, 4), rand(BATCH, 4, seed=1))),
    "integers": (
        {name: lambda x, i, f=f: (x, f(i)) for name, f in INTEGERS.items()},
        (rand(BATCH, 2), whole(BATCH, 5)),
    ),
    "mixed": (MIXED, (rand(BATCH, 4), whole(BATCH, 4))),
}


@cache
def compared(table: str) -> dict[str, Pairs]:
    functions, inputs = TABLES[table]
    return compare_table(functions, *inputs)


@pytest.mark.parametrize(("table", "name"), [(t, n) for t, (f, _) in TABLES.items() for n in f])
def test_operator(table: str, name: str) -> None:
    assert_equal(compared(table)[name])
