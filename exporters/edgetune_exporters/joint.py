"""The dense training step as one ATen graph: forward, loss and the gradient of every parameter.

PyTorch's autograd differentiates while `make_fx` watches; nothing here knows a gradient rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch._functorch._aot_autograd.logging_utils import setup_stacktrace_preservation_hooks
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.traceback import preserve_node_meta
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from edgetune.errors import ExportError
from edgetune.nouns.bundle_names import SCALE
from edgetune_exporters.capture import CapturedModel, quiet
from edgetune_exporters.decompositions.table import decompositions
from edgetune_exporters.late_expand import expand_late
from edgetune_exporters.losses import ResolvedLoss


@dataclass(frozen=True)
class JointGraph:
    """An ATen graph over named tensors.

    placeholders: name of each placeholder, in order: parameters, constants, inputs, targets, scale.
    results: name of each output, in order: "loss", "correct" (when the loss has it),
        "output", "output.1", ..., and "gradient:NAME" per parameter that the loss depends on.
    """

    graph: fx.GraphModule
    placeholders: tuple[str, ...]
    results: tuple[str, ...]


def trace_step(
    model: CapturedModel, targets: Mapping[str, Tensor], loss: ResolvedLoss, gradients: bool
) -> JointGraph:
    """Trace the step on the sample batch; with `gradients` False only its forward part.

    Raises ExportError naming the operator that PyTorch cannot differentiate or decompose.
    """
    names = [*model.parameters, *model.constants, *model.inputs, *targets, SCALE]
    batch = len(next(iter(model.inputs.values())))
    values = {**model.parameters, **model.constants, **model.inputs, **targets}
    sample = [values[name].detach() for name in names[:-1]] + [torch.ones(batch)]
    sample = [
        value.clone().requires_grad_(gradients and name in model.parameters)
        for name, value in zip(names, sample, strict=True)
    ]
    results: list[str] = []

    def step(*flat: Tensor) -> list[Tensor]:
        tensors = dict(zip(names, flat, strict=True))
        found = _step(model, tensors, list(targets), loss, gradients)
        results[:] = found
        return list(found.values())

    with quiet(), preserve_node_meta(), sdpa_kernel(SDPBackend.MATH):
        try:
            graph = make_fx(
                step,
                decomposition_table=decompositions(),
                tracing_mode="fake",
                _allow_non_fake_inputs=True,  # tensors that a loss holds, as class weights
            )(*sample)
        except NotImplementedError as error:
            raise ExportError(f"cannot export {error}") from error
        except RuntimeError as error:
            raise ExportError(f"PyTorch cannot differentiate the model: {error}") from error
    _drop_assertions(graph)
    _write_nothing(graph)
    expand_late(graph)
    _name_backward_modules(graph)
    return JointGraph(graph, tuple(names), tuple(results))


def _step(
    model: CapturedModel,
    tensors: Mapping[str, Tensor],
    target_names: list[str],
    loss: ResolvedLoss,
    gradients: bool,
) -> dict[str, Tensor]:
    targets = tensors[target_names[0]]
    outputs = model.run(tensors)
    scale = tensors[SCALE]
    total = (loss.per_sample(outputs, targets) * scale).sum()
    results = {"loss": total}
    if loss.correct is not None:
        # Rows that only fill up the micro-batch have scale 0 and are not counted.
        hits = loss.correct(outputs, targets)
        results["correct"] = torch.where(scale != 0, hits, 0).sum()
    for index, output in enumerate(pytree.tree_leaves(outputs)):
        if isinstance(output, Tensor):
            results["output" if index == 0 else f"output.{index}"] = output
    if gradients:
        parameters = {name: tensors[name] for name in model.parameters}
        if total.grad_fn is None:
            raise ExportError("the loss does not depend on any parameter: nothing can be trained")
        # Autograd then notes on each operation of the backward which forward one it belongs to.
        setup_stacktrace_preservation_hooks([total.grad_fn])
        found = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, found, strict=True):
            if gradient is not None:
                results[f"gradient:{name}"] = gradient
    return results


def _drop_assertions(graph: fx.GraphModule) -> None:
    for node in reversed(list(graph.graph.nodes)):
        if node.op == "call_function" and "_assert" in str(node.target) and not node.users:
            graph.graph.erase_node(node)


def _write_nothing(graph: fx.GraphModule) -> None:
    """Operators that write over their first argument become functional ones.

    Autograd's formulas write over temporaries of their own. A tensor with views stays as it is,
    and lowering refuses it: what is written would show in the views.
    """
    for node in graph.graph.nodes:
        name = str(node.target).removeprefix("aten.")
        kind, _, overload = name.partition(".")
        if node.op != "call_function" or not kind.endswith("_") or kind.startswith("_"):
            continue
        target = node.args[0]
        if target.op != "call_function" or any(map(_is_view, (target, *target.users))):
            continue
        later = [user for user in target.users if user is not node and user > node]
        if kind == "copy_":
            source = node.args[1]
            if not _same_type(source, target):
                continue
            node.replace_all_uses_with(source)
            result = source
        else:
            node.target = getattr(getattr(torch.ops.aten, kind[:-1]), overload)
            result = node
        for user in later:
            user.replace_input_with(target, result)
        if kind == "copy_":
            graph.graph.erase_node(node)


def _is_view(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target.is_view


def _same_type(one: fx.Node, other: fx.Node) -> bool:
    a, b = one.meta["val"], other.meta["val"]
    return bool(a.shape == b.shape and a.dtype == b.dtype)


def _name_backward_modules(graph: fx.GraphModule) -> None:
    """Give each backward node the module of the forward node that autograd numbered alike."""
    modules: dict[int, Any] = {}
    for node in graph.graph.nodes:
        number, stack = node.meta.get("seq_nr"), node.meta.get("nn_module_stack")
        if number is None:
            continue
        if stack:
            modules.setdefault(number, stack)
        elif number in modules:
            node.meta["nn_module_stack"] = modules[number]


def module_of(node: fx.Node) -> str:
    """The dotted path of the module that `node` comes from, "the loss" when there is none."""
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return "the loss"
    path, kind = list(stack.values())[-1]
    name = kind if isinstance(kind, str) else kind.__name__
    return f"{path or 'the model'} ({name.rpartition('.')[2]})"
