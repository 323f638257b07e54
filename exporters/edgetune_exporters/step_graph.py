"""The planner's view of a lowered step: class, FLOPs and bytes of every ONNX node."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import onnx
from onnx import helper

from edgetune.nouns.bundle_names import SCALE
from edgetune.nouns.candidate import Candidate
from edgetune.nouns.step_graph import Operation, StepGraph
from edgetune_exporters.lowering.lower import LoweredStep

Types = Mapping[str, tuple[int, tuple[int, ...]]]

_VIEWS = ("Reshape", "Identity", "Squeeze", "Unsqueeze", "Flatten")
# Kernels that onnxruntime's CPU provider may run over their input (`MayInplace`).
_IN_PLACE = (
    "Add", "Sub", "Mul", "Div", "Abs", "Neg", "Exp", "Log", "Sqrt", "Reciprocal", "Relu", "Tanh",
    "Sigmoid", "Erf", "Floor", "Ceil", "Clip", "LeakyRelu", "Elu", "Softmax", "LogSoftmax", "Not",
    "And", "Or",
)  # fmt: skip


def step_graph(lowered: LoweredStep, targets: tuple[str, ...]) -> StepGraph:
    """The StepGraph of a dense lowered step; `targets` are the names of its target inputs."""
    graph = lowered.model.graph
    results = [output.name for output in graph.output]
    labels = (*targets, SCALE)
    return StepGraph(
        batch=_batch_of(graph),
        operations=tuple(_operation(node, lowered.types) for node in graph.node),
        tensor_bytes={name: _bytes(*found) for name, found in lowered.types.items()},
        inputs=tuple(i.name for i in graph.input if i.name not in labels),
        labels=labels,
        parameters=lowered.parameters,
        candidates=tuple(
            Candidate(name, name, f"gradient:{name}")
            for name in lowered.parameters
            if f"gradient:{name}" in results
        ),
        loss="loss",
        correct="correct" if "correct" in results else "",
        outputs=tuple(n for n in results if n not in ("loss", "correct") and ":" not in n),
    )


def _batch_of(graph: onnx.GraphProto) -> int:
    (scale,) = [i for i in graph.input if i.name == SCALE]
    return int(scale.type.tensor_type.shape.dim[0].dim_value)


def _bytes(element_type: int, shape: tuple[int, ...]) -> int:
    return int(prod(shape) * helper.tensor_dtype_to_np_dtype(element_type).itemsize)


def _operation(node: onnx.NodeProto, types: Types) -> Operation:
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
        depthwise = weight[1] == 1 and _attribute(node, "group", 1) > 1
        return ("depthwise" if depthwise else "convolution"), per_position * positions
    return "elementwise", max(out, *(prod(types[name][1]) for name in node.input if name), 0)


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    for attribute in node.attribute:
        if attribute.name == name:
            return int(attribute.i)
    return default
