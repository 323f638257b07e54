"""A dense step with the gradients of shares, what they cost, and what PyTorch says they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from edgetune_exporters.dense_step import DenseStep
from edgetune_exporters.lowering.lower import LoweredStep
from edgetune_exporters.shares import DENOMINATORS, share_axes, shares_of
from edgetune_exporters.slicing.share_gradients import with_share_gradients
from edgetune_exporters.step_graph import step_graph
from onnx import helper

from edgetune.nouns.candidate import Candidate
from edgetune.nouns.profile import CONVOLUTIONS
from edgetune.nouns.step_graph import Operation, StepGraph
from edgetune.planning.split import needed_operations
from tests.export.lowered import Arrays, run_onnx


@dataclass(frozen=True)
class Shared:
    """shares: the candidates that are shares, offered: the names asked for."""

    step: DenseStep
    lowered: LoweredStep
    shares: tuple[Candidate, ...]
    graph: StepGraph
    offered: tuple[str, ...]


def with_shares(step: DenseStep, denominators: Sequence[int] = DENOMINATORS) -> Shared:
    """Every share of the model, of slices chosen at random."""
    axes = share_axes(step.model)
    sizes = {(axis.parameter, axis.axis): axis.size for axis in axes}
    random = np.random.default_rng(0)

    def choose(parameter: str, axis: int, count: int) -> list[int]:
        chosen = random.choice(sizes[parameter, axis], count, replace=False)
        return sorted(chosen.tolist())

    wanted = shares_of(axes, denominators, choose)
    lowered, shares = with_share_gradients(step.lowered, wanted)
    return Shared(step, lowered, shares, step_graph(lowered, ("targets",), shares), tuple(wanted))


def computed(shared: Shared) -> Arrays:
    """Every result of the step for the sample batch, the gradients of shares among them."""
    model = onnx.ModelProto()
    model.CopyFrom(shared.lowered.model)
    for share in shared.shares:
        element_type, shape = shared.lowered.types[share.gradient]
        info = helper.make_tensor_value_info(share.gradient, element_type, list(shape))
        model.graph.output.append(info)
    step = shared.step
    scale = np.ones(step.graph.batch, np.float32)
    return run_onnx(model, {**step.model.inputs, **step.targets, "scale": scale})


def autograd(step: DenseStep) -> Mapping[str, np.ndarray[Any, Any]]:
    """The gradient of every parameter that the loss depends on, by PyTorch."""
    values = {n: v.clone().requires_grad_() for n, v in step.model.parameters.items()}
    outputs = step.model.run({**step.model.constants, **step.model.inputs, **values})
    total = step.loss.per_sample(outputs, step.targets["targets"]).sum()
    found = torch.autograd.grad(total, list(values.values()), allow_unused=True)
    return {n: g.numpy() for n, g in zip(values, found, strict=True) if g is not None}


def assert_slices_of_autograd(shared: Shared, tolerance: float) -> None:
    """tolerance: of an element, as a part of the gradient's largest."""
    whole, found = autograd(shared.step), computed(shared)
    for share in shared.shares:
        assert share.share is not None
        expected = np.take(whole[share.parameter], share.share.indices, share.share.axis)
        assert found[share.gradient].shape == expected.shape
        allowed = tolerance * float(np.abs(whole[share.parameter]).max())
        difference = np.abs(found[share.gradient] - expected).max()
        assert difference <= allowed, f"{share.name} differs by {difference}, allowed {allowed}"


def part(shared: Shared, share: Candidate) -> float:
    """How much of its parameter a share is."""
    assert share.share is not None
    return len(share.share.indices) / shared.lowered.types[share.parameter][1][share.share.axis]


@dataclass(frozen=True)
class Work:
    """FLOPs that a step does for one gradient alone: in products, in gathers, in all else."""

    products: float
    gathers: float
    others: float


def work_of(shared: Shared) -> dict[str, Work]:
    """By candidate, what no other parameter's whole gradient and no result of the forward needs."""
    graph, added = shared.graph, _added(shared)
    wanted: dict[str, set[str]] = {c.gradient: {c.name} for c in graph.candidates}
    for name in (graph.loss, graph.correct, *graph.outputs):
        wanted[name] = {"forward"}
    sums = {c.name: {"products": 0.0, "gathers": 0.0, "others": 0.0} for c in graph.candidates}
    parameter = {c.name: c.parameter for c in graph.candidates}
    for operation in reversed(graph.operations):
        users = set().union(*(wanted.get(name, set()) for name in operation.outputs))
        for name in operation.inputs:
            wanted[name] = wanted.get(name, set()) | users
        wholes = {user for user in users if parameter.get(user, user) == user}
        for user in users - {"forward"}:
            if wholes <= {parameter[user]}:
                sums[user][_kind(operation, added)] += operation.flops
    return {name: Work(**found) for name, found in sums.items()}


def _added(shared: Shared) -> set[str]:
    return {o.name for o in shared.graph.operations} - {
        o.name for o in shared.step.graph.operations
    }


def _kind(operation: Operation, added: set[str]) -> str:
    if operation.operator_class in (*CONVOLUTIONS, "matmul"):
        return "products"
    is_gather = operation.name in added and operation.name.startswith("Gather")
    return "gathers" if is_gather else "others"


def kept_for_backward(shared: Shared, candidate: Candidate) -> dict[str, int]:
    """Bytes by name of what is made up to the loss and read after it in a step of `candidate`.

    Tensors made of weights alone do not count, and a view counts as what it is a view of.
    """
    graph = shared.graph
    (loss,) = [node.input[0] for node in shared.lowered.model.graph.node if node.name == graph.loss]
    lies_in: dict[str, str] = {}  # of what depends on data: the tensor whose memory it lies in
    forward: set[str] = set()  # what is made up to the loss
    kept: dict[str, int] = {}
    for operation in needed_operations(graph, (graph.loss, candidate.gradient)):
        read = [lies_in[name] for name in operation.inputs if name in lies_in]
        kept.update({name: graph.tensor_bytes[name] for name in read if name in forward})
        if read or not {*graph.inputs, *graph.labels}.isdisjoint(operation.inputs):
            is_view = operation.operator_class == "view" and read
            lies_in.update({name: read[0] if is_view else name for name in operation.outputs})
        if loss in operation.outputs:
            forward = set(lies_in.values())
    return kept
