"""Rewrites that make a forward graph one that ONNX Runtime training 1.19.2 can differentiate.

Each rewrite is exact: it replaces an operator whose gradient is missing or wrong by operators whose
gradient is right (`ort_training_checks` has the tables). What no rewrite here repairs stays as it
is, for `check_trainable_by_ort` to name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, helper, inliner, numpy_helper

from edgetune_exporters.ort_training_checks import MAX_IR_VERSION, attribute


def prepare_for_ort(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` that computes the same and suits ORT's gradient builder better.

    Functions are inlined, constants become initializers, nodes get names, the IR version is
    lowered, and operators are rewritten by the table at the end of this file. Initializers keep
    their names and values, zeros included.
    """
    prepared = onnx.ModelProto()
    prepared.CopyFrom(model)
    if prepared.functions:
        prepared = inliner.inline_local_functions(prepared)
    prepared.ir_version = min(prepared.ir_version, MAX_IR_VERSION)
    _constants_to_initializers(prepared.graph)
    _name_nodes(prepared.graph)
    draft = _Draft.of(prepared)
    for node in prepared.graph.node:
        rewrite = REWRITES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rewrite is None or not rewrite(draft, node):
            draft.nodes.append(node)
    nodes = [NodeProto.FromString(node.SerializeToString()) for node in draft.nodes]
    del prepared.graph.node[:]
    prepared.graph.node.extend(nodes)
    prepared.graph.initializer.extend(draft.constants.values())
    return prepared


def _constants_to_initializers(graph: onnx.GraphProto) -> None:
    """Constant nodes and initializers that are also inputs (IR 3) become plain initializers."""
    kept = []
    for node in graph.node:
        tensors = [entry.t for entry in node.attribute if entry.name == "value"]
        if node.op_type == "Constant" and tensors:
            tensors[0].name = node.output[0]
            graph.initializer.append(tensors[0])
        else:
            kept.append(NodeProto.FromString(node.SerializeToString()))
    del graph.node[:]
    graph.node.extend(kept)
    known = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in known]
    del graph.input[:]
    graph.input.extend(inputs)


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Give every node a name of its own: errors name it, rewrites derive names from it."""
    taken: set[str] = set()
    for index, node in enumerate(graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{index}"
        taken.add(node.name)


@dataclass
class _Draft:
    """The graph under construction.

    shapes: dimensions by value name, None for a dimension that is not fixed; absent if unknown.
    """

    shapes: dict[str, list[int | None]]
    types: dict[str, int]
    initializers: dict[str, TensorProto]
    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, TensorProto] = field(default_factory=dict)

    @staticmethod
    def of(model: onnx.ModelProto) -> _Draft:
        initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        shapes: dict[str, list[int | None]] = {n: list(t.dims) for n, t in initializers.items()}
        types = {name: tensor.data_type for name, tensor in initializers.items()}
        inferred = onnx.shape_inference.infer_shapes(model).graph
        for value in (*inferred.input, *inferred.value_info, *inferred.output):
            kind = value.type.tensor_type
            types[value.name] = kind.elem_type
            if kind.HasField("shape"):
                dims = [d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim]
                shapes[value.name] = dims
        return _Draft(shapes, types, initializers)

    def constant(self, name: str, value: npt.ArrayLike, kind: type[np.generic] = np.float32) -> str:
        self.constants[name] = numpy_helper.from_array(np.asarray(value, kind), name)
        return name

    def emit(self, source: NodeProto, kind: str, inputs: list[str], output: str) -> str:
        """Append a node named after its output; it keeps the origin of `source`."""
        node = helper.make_node(kind, inputs, [output], name=output)
        node.metadata_props.extend(source.metadata_props)
        self.nodes.append(node)
        return output


def _hard_sigmoid(draft: _Draft, node: NodeProto) -> bool:
    slope, offset = attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5)
    _clipped_line(draft, node, slope, offset, node.output[0])
    return True


def _hard_swish(draft: _Draft, node: NodeProto) -> bool:
    gate = _clipped_line(draft, node, 1 / 6, 0.5, f"{node.name}/gate")
    draft.emit(node, "Mul", [node.input[0], gate], node.output[0])
    return True


def _clipped_line(draft: _Draft, node: NodeProto, slope: float, offset: float, output: str) -> str:
    """clip(slope * x + offset, 0, 1) of the first input."""
    name = node.name
    steep = draft.constant(f"{name}/slope", slope)
    scaled = draft.emit(node, "Mul", [node.input[0], steep], f"{name}/scaled")
    shift = draft.constant(f"{name}/offset", offset)
    line = draft.emit(node, "Add", [scaled, shift], f"{name}/line")
    zero, one = draft.constant(f"{name}/zero", 0), draft.constant(f"{name}/one", 1)
    return draft.emit(node, "Clip", [line, zero, one], output)


def _softplus(draft: _Draft, node: NodeProto) -> bool:
    """max(x, 0) + log(1 + exp(-|x|)), which does not overflow."""
    x, name = node.input[0], node.name
    zero, one = draft.constant(f"{name}/zero", 0), draft.constant(f"{name}/one", 1)
    size = draft.emit(node, "Abs", [x], f"{name}/abs")
    negative = draft.emit(node, "Neg", [size], f"{name}/neg")
    power = draft.emit(node, "Exp", [negative], f"{name}/exp")
    above = draft.emit(node, "Add", [power, one], f"{name}/above")
    tail = draft.emit(node, "Log", [above], f"{name}/tail")
    positive = draft.emit(node, "Max", [x, zero], f"{name}/positive")
    draft.emit(node, "Add", [positive, tail], node.output[0])
    return True


def _sum(draft: _Draft, node: NodeProto) -> bool:
    if len(node.input) == 1:
        draft.emit(node, "Identity", list(node.input), node.output[0])
        return True
    total = node.input[0]
    for index, term in enumerate(node.input[1:], start=2):
        last = index == len(node.input)
        output = node.output[0] if last else f"{node.name}/of_{index}"
        total = draft.emit(node, "Add", [total, term], output)
    return True


def _cast_like(draft: _Draft, node: NodeProto) -> bool:
    kind = draft.types.get(node.input[1])
    if not kind:
        return False
    draft.emit(node, "Cast", [node.input[0]], node.output[0])
    draft.nodes[-1].attribute.append(helper.make_attribute("to", kind))
    return True


def _dropout(draft: _Draft, node: NodeProto) -> bool:
    """Dropout that is off is the identity."""
    training = draft.initializers.get(node.input[2]) if len(node.input) > 2 else None
    is_switched = len(node.input) > 2 and node.input[2]
    is_off = not is_switched or (training is not None and not numpy_helper.to_array(training).any())
    if not is_off or len([name for name in node.output if name]) > 1:
        return False
    draft.emit(node, "Identity", [node.input[0]], node.output[0])
    return True


def _layer_norm(draft: _Draft, node: NodeProto) -> bool:
    """Its gradient reads the outputs Mean and InvStdDev and asks for a bias."""
    statistics = [f"{node.name}/mean", f"{node.name}/inv_std_dev"]
    present = list(node.output[1:3]) + [""] * (3 - len(node.output))
    node.output[1:] = [name or new for name, new in zip(present, statistics, strict=True)]
    size = [dim for dim in draft.shapes.get(node.input[1], [None]) if dim is not None]
    if len([name for name in node.input if name]) < 3 and size:
        node.input[2:] = [draft.constant(f"{node.name}/bias", np.zeros(size))]
    return False  # kept, as changed


def _batch_norm(draft: _Draft, node: NodeProto) -> bool:
    """x * (scale * r) + (bias - mean * (scale * r)), r = 1 / sqrt(var + epsilon), all per channel.

    Scale and bias stay tensors of their own, so that they can be trained.
    """
    x, scale, bias, mean, variance = node.input
    statistics = [draft.initializers.get(mean), draft.initializers.get(variance)]
    rank = len(draft.shapes.get(x, []))
    if attribute(node, "training_mode", 0) or None in statistics or not rank:
        return False
    mu, var = [numpy_helper.to_array(tensor) for tensor in statistics if tensor is not None]
    epsilon = attribute(node, "epsilon", 1e-5)
    name = node.name
    rate = draft.constant(f"{name}/rate", 1 / np.sqrt(var.astype(np.float64) + epsilon))
    centre = draft.constant(f"{name}/centre", mu)
    factor = draft.emit(node, "Mul", [scale, rate], f"{name}/factor")
    moved = draft.emit(node, "Mul", [factor, centre], f"{name}/moved")
    offset = draft.emit(node, "Sub", [bias, moved], f"{name}/offset")
    shape = draft.constant(f"{name}/shape", [-1] + [1] * (rank - 2), np.int64)
    factor = draft.emit(node, "Reshape", [factor, shape], f"{name}/factor_per_channel")
    offset = draft.emit(node, "Reshape", [offset, shape], f"{name}/offset_per_channel")
    scaled = draft.emit(node, "Mul", [x, factor], f"{name}/scaled")
    draft.emit(node, "Add", [scaled, offset], node.output[0])
    return True


def _power(draft: _Draft, node: NodeProto) -> bool:
    """The exponent in the type of the base: the gradient mixes up the two otherwise."""
    base, exponent = draft.types.get(node.input[0]), draft.types.get(node.input[1])
    if base and exponent and base != exponent:
        cast = draft.emit(node, "Cast", [node.input[1]], f"{node.name}/exponent")
        draft.nodes[-1].attribute.append(helper.make_attribute("to", base))
        node.input[1] = cast
    return False  # kept, as changed


def _explicit_pads(draft: _Draft, node: NodeProto) -> bool:
    """auto_pad=SAME_* as pads: ORT's gradient silently takes it for no padding."""
    mode = attribute(node, "auto_pad", "NOTSET")
    image = (draft.shapes.get(node.input[0]) or [])[2:]
    kernel = _kernel_shape(draft, node)
    if mode not in ("SAME_UPPER", "SAME_LOWER") or not kernel or None in image:
        return False
    strides = _integers(node, "strides", [1] * len(kernel))
    dilations = _integers(node, "dilations", [1] * len(kernel))
    sizes = [size for size in image if size is not None]
    before, after = [], []
    for size, width, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        total = max((-(-size // stride) - 1) * stride + (width - 1) * dilation + 1 - size, 0)
        small, large = total // 2, total - total // 2
        before.append(small if mode == "SAME_UPPER" else large)
        after.append(large if mode == "SAME_UPPER" else small)
    kept = [entry for entry in node.attribute if entry.name not in ("auto_pad", "pads")]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute("pads", before + after)])
    return False  # kept, as changed


def _kernel_shape(draft: _Draft, node: NodeProto) -> list[int]:
    weight = draft.shapes.get(node.input[1], [])[2:] if node.op_type == "Conv" else []
    return _integers(node, "kernel_shape", [dim for dim in weight if dim is not None])


def _integers(node: NodeProto, name: str, default: list[int]) -> list[int]:
    for entry in node.attribute:
        if entry.name == name:
            return list(entry.ints)
    return default


REWRITES: dict[str, Callable[[_Draft, NodeProto], bool]] = {
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Softplus": _softplus,
    "Sum": _sum,
    "CastLike": _cast_like,
    "Dropout": _dropout,
    "LayerNormalization": _layer_norm,
    "BatchNormalization": _batch_norm,
    "Pow": _power,
    "Conv": _explicit_pads,
    "AveragePool": _explicit_pads,
    "MaxPool": _explicit_pads,
}
"""By operator: appends what replaces the node and returns True, or (perhaps having changed the
node in place) returns False to keep it."""
