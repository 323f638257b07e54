"""Values are repeated as late as can be: what reads them broadcasts for itself, at no cost."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten
_BINARY = {
    aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor,
    aten.mul.Scalar, aten.div.Scalar,
}  # fmt: skip


def expand_late(graph: fx.GraphModule) -> None:
    """Let binary operators on an expanded tensor read what was expanded.

    With a number beside it, the result is what is expanded, and its readers are looked at next;
    with a tensor of the result's shape beside it, nothing is.
    """
    for node in list(graph.graph.nodes):
        if node.target is aten.expand.default:
            _push_down(graph.graph, node)
    graph.graph.eliminate_dead_code()


def _push_down(graph: fx.Graph, expand: fx.Node) -> None:
    source: Any = expand.args[0]
    small: Tensor = source.meta["val"]
    for user in [user for user in expand.users if user.target in _BINARY]:
        whole: Tensor = user.meta["val"]
        first, second = user.args[:2]
        other = second if first is expand else first
        if user.kwargs or len(user.args) != 2 or other is expand or whole.dim() != small.dim():
            continue
        if isinstance(other, fx.Node) and other.meta["val"].shape == whole.shape:
            user.replace_input_with(expand, source)
        elif not isinstance(other, fx.Node) or other.meta["val"].dim() == 0:
            with graph.inserting_before(user):
                arguments = tuple(source if a is expand else a for a in (first, second))
                operator: Any = user.target
                sooner = graph.call_function(operator, arguments)
                sooner.meta = {**user.meta, "val": small.new_empty(small.shape, dtype=whole.dtype)}
                later = graph.call_function(aten.expand.default, (sooner, list(whole.shape)))
                later.meta = dict(user.meta)
            user.replace_all_uses_with(later)
            _push_down(graph, later)
