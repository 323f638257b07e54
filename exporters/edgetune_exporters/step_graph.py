"""The planner's view of a lowered step: class, FLOPs and bytes of every ONNX node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import onnx
from onnx import helper

from edgetune.nouns.bundle_names import SCALE
from edgetune.nouns.candidate import Candidate
from edgetune.nouns.step_graph import Operation, StepGraph
from edgetune_exporters.int8.operations import int8_products, int8_results
from edgetune_exporters.lowering.lower import LoweredStep
from edgetune_exporters.workspace import workspace_bytes

Types = Mapping[str, tuple[int, tuple[int, ...]]]

_VIEWS = ("Reshape", "Identity", "Squeeze", "Unsqueeze", "Flatten")
# Kernels that onnxruntime's CPU provider runs over their first input, found by experiment (1.32).
_IN_PLACE = (
    "Clip", "Relu", "LeakyRelu", "Elu", "Sigmoid", "Tanh", "Softmax", "LogSoftmax", "HardSigmoid",
    "Softplus", "ScatterElements",
)  # fmt: skip


def step_graph(
    lowered: LoweredStep, targets: tuple[str, ...], shares: tuple[Candidate, ...] = ()
) -> StepGraph:
    """The StepGraph of a dense lowered step.

    targets: the names of its target inputs. shares: candidates of which `lowered` has the gradient
    beside those of whole parameters; they follow the parameter's own.
    """
    graph = lowered.model.graph
    results = [output.name for output in graph.output]
    labels = (*targets, SCALE)
    weighted = int8_products(graph)
    in_int8 = int8_results(graph.node, weighted)
    return StepGraph(
        batch=_batch_of(graph),
        operations=tuple(
            operation_of(node, lowered.types, node.name in weighted, node.output[0] in in_int8)
            for node in graph.node
        ),
        tensor_bytes=bytes_of(lowered.types),
        inputs=tuple(i.name for i in graph.input if i.name not in labels),
        labels=labels,
        parameters=lowered.parameters,
        candidates=_candidates(
            [n for n in lowered.parameters if f"gradient:{n}" in results], shares
        ),
        loss="loss",
        correct="correct" if "correct" in results else "",
        outputs=tuple(n for n in results if n not in ("loss", "correct") and ":" not in n),
    )


def _candidates(parameters: Sequence[str], shares: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Each parameter whole, then its shares."""
    found = {name: [Candidate(name, name, f"gradient:{name}")] for name in parameters}
    for share in shares:
        found[share.parameter].append(share)
    return tuple(candidate for group in found.values() for candidate in group)


def _batch_of(graph: onnx.GraphProto) -> int:
    (scale,) = [i for i in graph.input if i.name == SCALE]
    return int(scale.type.tensor_type.shape.dim[0].dim_value)


def bytes_of(types: Types) -> dict[str, int]:
    """The size of every tensor."""
    return {
        name: int(prod(shape) * helper.tensor_dtype_to_np_dtype(element_type).itemsize)
        for name, (element_type, shape) in types.items()
    }


def operation_of(
    node: onnx.NodeProto, types: Types, int8_weight: bool = False, int8_result: bool = False
) -> Operation:
    """What the planner knows of `node`. types: (ONNX element type, shape) of every tensor."""
    kind, flops = _class_and_flops(node, types)
    # Shapes, axes and other small integer inputs of a view are constants, not data it reads.
    inputs = [node.input[0]] if kind == "view" else [name for name in node.input if name]
    return Operation(
        name=node.name,
        operator_class=kind,
        inputs=tuple(inputs),
        outputs=tuple(name for name in node.output if name),
        flops=float(flops),
        in_place=node.op_type in _IN_PLACE,
        module=node.doc_string,
        workspace_bytes=workspace_bytes(node, types),
        reads_in_part=node.op_type in ("Gather", "GatherElements", "GatherND", "Slice"),
        int8_weight=int8_weight,
        int8_result=int8_result,
        groups=_groups(node, types) if kind == "depthwise" else 0,
    )


def _class_and_flops(node: onnx.NodeProto, types: Types) -> tuple[str, int]:
    """Operator class, and FLOPs with multiply and add counted as two."""
    out = prod(types[node.output[0]][1])
    if node.op_type in _VIEWS:
        return "view", 0
    if node.op_type == "MatMul":
        return "matmul", 2 * out * types[node.input[0]][1][-1]
    if node.op_type == "Gemm":
        shape = types[node.input[0]][1]
        return "matmul", 2 * out * shape[0 if _attribute(node, "transA", 0) else 1]
    if node.op_type in ("Conv", "ConvTranspose"):
        weight = types[node.input[1]][1]
        per_position = 2 * prod(weight[1:])
        positions = out if node.op_type == "Conv" else prod(types[node.input[0]][1])
        return _convolution_class(node, weight), per_position * positions
    if node.op_type == "Transpose" and _moves_elements(node, types[node.input[0]][1]):
        return "transpose", out
    if node.op_type in ("Gather", "Slice"):
        return "elementwise", out  # what they do not pick they do not read
    return "elementwise", max(out, *(prod(types[name][1]) for name in node.input if name), 0)


def _moves_elements(node: onnx.NodeProto, shape: Sequence[int]) -> bool:
    """Whether the elements of the last axis do not stay together; axes of 1 are none."""
    (order,) = [list(a.ints) for a in node.attribute if a.name == "perm"]
    axes = [axis for axis in range(len(shape)) if shape[axis] > 1]
    return bool(axes) and [axis for axis in order if axis in axes][-1] != axes[-1]


def _convolution_class(node: onnx.NodeProto, weight: tuple[int, ...]) -> str:
    """The gradient of a depthwise weight has many channels in, and one out, per group."""
    groups = _attribute(node, "group", 1)
    if groups > 1 and (weight[1] == 1 or weight[0] == groups):
        return "depthwise"
    return "pointwise" if prod(weight[2:]) == 1 else "convolution"


def _groups(node: onnx.NodeProto, types: Types) -> int:
    """Of all samples together."""
    return types[node.input[0]][1][0] * _attribute(node, "group", 1)


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    for attribute in node.attribute:
        if attribute.name == name:
            return int(attribute.i)
    return default
