"""Which shares of a model's parameters can be trained: channels of its layers, rows of embeddings.

Which slices a share takes is not decided here; how its gradient is computed is in
`edgetune_exporters.slicing`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from edgetune.nouns.candidate import Share
from edgetune_exporters.capture import CapturedModel

DENOMINATORS = (8, 4, 2)
"""A share is 1/8, 1/4 or 1/2 of an axis."""

# The argument by which a matrix product takes its weight of shape (in, out).
_PRODUCTS = {"aten.mm": "mat2", "aten.addmm": "mat2", "aten.matmul": "other"}
_TRANSPOSES = ("aten.t", "aten.transpose", "aten.permute")


@dataclass(frozen=True)
class ShareAxis:
    """An axis of a parameter along which some slices can be trained and the others frozen.

    kind: "in" or "out" (channels of a convolution or a linear layer), or "rows" (of an embedding).
    size: number of slices.
    """

    parameter: str
    kind: str
    axis: int
    size: int


def share_axes(model: CapturedModel) -> tuple[ShareAxis, ...]:
    """The axes of every weight of a convolution, a linear layer or an embedding, in model order.

    A grouped convolution has only axis 0, which its groups divide: the other one is per group. A
    parameter that several operators read (tied, or recurrent) has none, for its gradient is a sum.
    """
    readers: dict[str, list[tuple[fx.Node, fx.Node]]] = {name: [] for name in model.parameters}
    placeholders = [node for node in model.graph.graph.nodes if node.op == "placeholder"]
    for node, name in zip(placeholders, model.placeholders, strict=True):
        if name in readers:
            readers[name] += [(node, user) for user in node.users]
    found = []
    for name, uses in readers.items():
        kinds = _kinds(*uses[0]) if len(uses) == 1 else {}
        shape = model.parameters[name].shape
        found += [ShareAxis(name, kind, axis, shape[axis]) for axis, kind in kinds.items()]
    return tuple(found)


def shares_of(
    axes: Sequence[ShareAxis],
    denominators: Sequence[int],
    choose_indices: Callable[[str, int, int], Sequence[int]],
) -> dict[str, tuple[str, Share]]:
    """(parameter, share) by candidate name `PARAMETER:KIND/N`, for every axis of at least N slices.

    A share has size // N slices. choose_indices: parameter, axis, count -> which ones, ascending.
    """
    found = {}
    for axis in axes:
        for parts in denominators:
            if axis.size >= parts:
                chosen = choose_indices(axis.parameter, axis.axis, axis.size // parts)
                share = Share(axis.axis, tuple(int(index) for index in chosen))
                found[f"{axis.parameter}:{axis.kind}/{parts}"] = (axis.parameter, share)
    return found


def _kinds(weight: fx.Node, user: fx.Node) -> dict[int, str]:
    """Kind by axis of a weight with the one reader `user`."""
    kind, arguments = _call(user)
    if kind in _TRANSPOSES and weight.meta["val"].dim() == 2 and len(user.users) == 1:
        of_turned = _kinds_in_product(user, next(iter(user.users)))
        return {1 - axis: name for axis, name in reversed(of_turned.items())}
    if kind in _PRODUCTS:
        return _kinds_in_product(weight, user)
    if arguments.get("weight") is not weight:
        return {}
    if kind == "aten.embedding":
        return {0: "rows"}
    if kind == "aten.linear":
        return {0: "out", 1: "in"}
    if kind.startswith("aten.conv"):
        transposed = kind.startswith("aten.conv_transpose") or arguments.get("transposed", False)
        kinds = {0: "in", 1: "out"} if transposed else {0: "out", 1: "in"}
        return kinds if arguments["groups"] == 1 else {0: kinds[0]}
    return {}


def _kinds_in_product(matrix: fx.Node, user: fx.Node) -> dict[int, str]:
    kind, arguments = _call(user)
    is_weight = kind in _PRODUCTS and arguments[_PRODUCTS[kind]] is matrix
    return {0: "in", 1: "out"} if is_weight and matrix.meta["val"].dim() == 2 else {}


def _call(node: fx.Node) -> tuple[str, dict[str, Any]]:
    """("aten.linear", arguments by name, defaults included) of a call of an ATen operator."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return "", {}
    schema = node.target._schema.arguments
    arguments = {a.name: a.default_value for a in schema if a.has_default_value()}
    given = zip((argument.name for argument in schema), node.args, strict=False)
    return f"aten.{node.target.overloadpacket.__name__}", {
        **arguments,
        **dict(given),
        **node.kwargs,
    }
