"""An ATen graph to one ONNX model of the dense step."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from torch import Tensor, fx

from edgetune.errors import ExportError
from edgetune_exporters.joint import JointGraph, module_of
from edgetune_exporters.live_nodes import live_nodes
from edgetune_exporters.lowering import elementwise, indexing, products, reductions, shapes
from edgetune_exporters.lowering.call import Call, meta_of, onnx_type
from edgetune_exporters.lowering.emitter import Emitter, model_of
from edgetune_exporters.lowering.order import late_weights

LOWERINGS = {
    **elementwise.LOWERINGS,
    **shapes.LOWERINGS,
    **reductions.LOWERINGS,
    **products.LOWERINGS,
    **indexing.LOWERINGS,
}


@dataclass(frozen=True)
class LoweredStep:
    """The dense step as an ONNX model, with the type of every tensor in it.

    model: inputs are the data, the targets and the scale; every parameter and constant is an
        initializer under its PyTorch name; outputs are those of the joint graph, by result name.
    parameters: names of the initializers that can be trained.
    types: (ONNX element type, shape) of every tensor.
    tensors: by node name of the joint graph, the tensor that holds its result.
    """

    model: onnx.ModelProto
    parameters: tuple[str, ...]
    types: Mapping[str, tuple[int, tuple[int, ...]]]
    tensors: Mapping[str, str]


def lower(
    joint: JointGraph,
    parameters: Mapping[str, Tensor],
    constants: Mapping[str, Tensor],
) -> LoweredStep:
    """Lower every operator. Raises one ExportError naming each that cannot be, and its module."""
    nodes = list(joint.graph.graph.nodes)
    placeholders = [node for node in nodes if node.op == "placeholder"]
    emitter = Emitter()
    values: dict[fx.Node, str | tuple[str, ...]] = {}
    graph_inputs = []
    for node, name in zip(placeholders, joint.placeholders, strict=True):
        values[node] = name
        if name not in parameters and name not in constants:
            meta = meta_of(node)
            graph_inputs.append(
                helper.make_tensor_value_info(name, onnx_type(meta.dtype), list(meta.shape))
            )
    _refuse_unknown(nodes)
    for node in nodes:
        if node.op in ("call_function", "get_attr"):
            values[node] = _lower_node(emitter, joint, node, values)
    initializers = [
        numpy_helper.from_array(np.ascontiguousarray(value.detach().numpy()), name)
        for name, value in {**parameters, **constants}.items()
    ] + [numpy_helper.from_array(value, name) for name, value in emitter.constants.items()]
    outputs = _outputs(emitter, joint, nodes[-1], values)
    # Transposes are left over where an operator reads a matrix as it lies.
    live = live_nodes(emitter.nodes, [info.name for info in outputs])
    nodes_in_order = late_weights(live, {info.name for info in graph_inputs})
    graph = helper.make_graph(nodes_in_order, "step", graph_inputs, outputs, initializers)
    model = model_of(graph)
    types = infer_types(model)
    tensors = {
        n.name: name for n, name in values.items() if isinstance(name, str) and name in types
    }
    return LoweredStep(model, tuple(parameters), types, tensors)


def _lower_node(
    emitter: Emitter,
    joint: JointGraph,
    node: fx.Node,
    values: Mapping[fx.Node, str | tuple[str, ...]],
) -> str | tuple[str, ...]:
    if node.op == "get_attr":
        return emitter.constant(getattr(joint.graph, str(node.target)).detach().numpy())
    if node.target is operator.getitem:
        source: Any = node.args[0]
        index: Any = node.args[1]
        return values[source][index]
    emitter.origin = module_of(node)
    lowered: str | tuple[str, ...] = LOWERINGS[str(node.target)](Call(emitter, node, values))
    return lowered


def _refuse_unknown(nodes: Sequence[fx.Node]) -> None:
    missing: dict[str, set[str]] = {}
    for node in nodes:
        if node.op == "call_function" and node.target is not operator.getitem:
            name = str(node.target)
            if name not in LOWERINGS:
                missing.setdefault(name, set()).add(module_of(node))
    if missing:
        lines = "\n".join(
            f"  - {name} from {', '.join(sorted(modules)[:3])}"
            for name, modules in sorted(missing.items())
        )
        raise ExportError(
            f"the model uses operators that edgetune cannot export yet:\n{lines}\n"
            "replace them in the model, or keep what comes before them frozen in another model"
        )


def _outputs(
    emitter: Emitter,
    joint: JointGraph,
    output: fx.Node,
    values: Mapping[fx.Node, str | tuple[str, ...]],
) -> list[onnx.ValueInfoProto]:
    """Give every result its public name."""
    results: Any = output.args[0]
    infos = []
    for name, node in zip(joint.results, results, strict=True):
        source = values[node]
        assert isinstance(source, str)  # results are single tensors
        emitter.nodes.append(helper.make_node("Identity", [source], [name], name=name))
        meta = meta_of(node)
        infos.append(helper.make_tensor_value_info(name, onnx_type(meta.dtype), list(meta.shape)))
    return infos


def infer_types(model: onnx.ModelProto) -> dict[str, tuple[int, tuple[int, ...]]]:
    """(ONNX element type, shape) of every tensor, by ONNX's own inference; all shapes are static.

    Raises ExportError for a tensor whose shape cannot be inferred.
    """
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, data_prop=True)
    graph = inferred.graph
    types = {
        info.name: (
            info.type.tensor_type.elem_type,
            tuple(d.dim_value for d in info.type.tensor_type.shape.dim),
        )
        for info in [*graph.input, *graph.value_info, *graph.output]
    }
    types.update({i.name: (i.data_type, tuple(i.dims)) for i in graph.initializer})
    unknown = [n for node in graph.node for n in node.output if n and n not in types]
    if unknown:
        raise ExportError(f"ONNX cannot infer the shape of {', '.join(unknown[:3])}")
    return types
