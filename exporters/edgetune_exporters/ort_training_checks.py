"""What ONNX Runtime training 1.19.2 can differentiate, and what it would get silently wrong.

The tables were made by building and running the gradient of every standard operator with that
release (the last there is) and comparing with finite differences. Its gradient builder walks from
the trainable tensors to the loss; only nodes on such a path need a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edgetune.errors import ExportError, nearest, raise_all
from edgetune_exporters.live_nodes import captured_by_subgraphs, inputs_of

OPSETS = range(18, 22)
MAX_IR_VERSION = 10

# fmt: off
DIFFERENTIABLE = frozenset(
    {
        "Abs", "Add", "AveragePool", "BiasGelu", "Cast", "Clip", "Concat", "Conv", "Cos", "Div",
        "Dropout", "Erf", "Exp", "Expand", "FastGelu", "Flatten", "Gather", "GatherElements",
        "GatherND", "Gelu", "Gemm", "GlobalAveragePool", "Identity", "LayerNormalization",
        "LeakyRelu", "Log", "LogSoftmax", "MatMul", "Max", "MaxPool", "Min", "Mul", "Neg",
        "Pad", "Pow", "QuickGelu", "Reciprocal", "ReduceL2", "ReduceLogSumExp", "ReduceMean",
        "ReduceSum", "Relu", "Reshape", "ScatterElements", "ScatterND", "Sigmoid", "Sin",
        "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub", "Tanh", "Tile", "TopK",
        "Transpose", "Trilu", "Unsqueeze", "Where",
    }
)
# fmt: on
"""Operators with a gradient that is registered, has a CPU kernel and is right.

ConvTranspose and Resize have a registered gradient, but no CPU kernel for it.
"""

SILENTLY_CUT = {
    "Pow": {1: "exponent"},
    "Clip": {1: "lower bound", 2: "upper bound"},
    "OneHot": {2: "values"},
    "Range": {0: "start", 1: "limit", 2: "delta"},
    "Dropout": {1: "ratio"},
}
"""Floating-point inputs through which ORT lets no gradient flow, and says nothing."""

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
_ADVICE = "freeze what lies before it, express it in other operators, or use --format portable"


def check_trainable_by_ort(model: onnx.ModelProto, trainable: Sequence[str]) -> None:
    """Raise one ExportError with every reason why ORT cannot train `trainable` of `model`.

    model: a forward graph whose first output is the scalar float32 loss, as `prepare_for_ort`
    returns it. trainable: names of initializers.
    """
    graph = _Graph.of(model)
    problems = [
        *_version_problems(model),
        *_loss_problems(graph),
        *_name_problems(graph, trainable),
    ]
    known = [name for name in trainable if name in graph.initializers]
    path = graph.path(known)
    for index, node in enumerate(graph.nodes):
        if node.op_type == "BatchNormalization":
            problems.append(_batch_norm_problem(node))
        elif index in path.nodes:
            problems += _node_problems(graph, node, path)
    problems += [
        f"the tensor {name!r} does not influence the loss in a differentiable way: select another"
        for name in known
        if name not in path.read
    ]
    raise_all(ExportError, "ONNX Runtime training cannot train this model", problems)


@dataclass(frozen=True)
class _Path:
    """What lies between the trainable tensors and the loss.

    nodes: indices of the nodes that ORT differentiates; read: the values they read through which
    gradient flows; influenced: all floating-point values that depend on a trainable tensor.
    """

    nodes: frozenset[int]
    read: frozenset[str]
    influenced: frozenset[str]


@dataclass(frozen=True)
class _Graph:
    """A forward graph; types: element type by value name, absent where it is not known."""

    nodes: tuple[NodeProto, ...]
    outputs: tuple[onnx.ValueInfoProto, ...]
    initializers: dict[str, TensorProto]
    types: dict[str, int]

    @staticmethod
    def of(model: onnx.ModelProto) -> _Graph:
        inferred = onnx.shape_inference.infer_shapes(model).graph
        initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        types = {name: tensor.data_type for name, tensor in initializers.items()}
        for value in (*inferred.input, *inferred.value_info, *inferred.output):
            if value.type.tensor_type.elem_type:
                types[value.name] = value.type.tensor_type.elem_type
        return _Graph(tuple(model.graph.node), tuple(model.graph.output), initializers, types)

    def is_float(self, name: str) -> bool:
        return self.types.get(name, TensorProto.FLOAT) in _FLOATS

    def gradient_inputs(self, node: NodeProto) -> set[str]:
        """The inputs of `node` that ORT's walk goes through."""
        cut = SILENTLY_CUT.get(node.op_type, {})
        through = {n for i, n in enumerate(node.input) if n and i not in cut and self.is_float(n)}
        return through | captured_by_subgraphs(node)

    def path(self, names: Sequence[str]) -> _Path:
        """What lies between `names` and the loss, walked as ORT walks it."""
        reached, influenced, forward = set(names), set(names), set()
        for index, node in enumerate(self.nodes):
            floats = [name for name in node.output if name and self.is_float(name)]
            if influenced.intersection(inputs_of(node)):
                influenced.update(floats)
            if reached.intersection(self.gradient_inputs(node)):
                forward.add(index)
                reached.update(floats)
        needed, backward = {value.name for value in self.outputs[:1]}, set()
        for index in reversed(range(len(self.nodes))):
            if needed.intersection(self.nodes[index].output):
                needed |= self.gradient_inputs(self.nodes[index])
                backward.add(index)
        both = forward & backward
        read = set().union(*(self.gradient_inputs(self.nodes[index]) for index in both))
        return _Path(frozenset(both), frozenset(read), frozenset(influenced))


def where(node: NodeProto) -> str:
    """The words that find `node` again: operator, name, and the module it was exported from."""
    scopes = {entry.key: entry.value for entry in node.metadata_props}
    module = scopes.get("namespace") or scopes.get("pkg.torch.onnx.name_scopes")
    named = f"{node.op_type} (node {node.name or 'of ' + node.output[0]}"
    return f"{named}, module {module})" if module else f"{named})"


def _version_problems(model: onnx.ModelProto) -> list[str]:
    problems = []
    opset = opset_of(model)
    if opset not in OPSETS:
        problems.append(
            f"the model has opset {opset}: expected {OPSETS[0]} to {OPSETS[-1]}; export it again "
            f"with opset_version={OPSETS[0]}"
        )
    if model.ir_version > MAX_IR_VERSION:
        problems.append(
            f"the model has IR version {model.ir_version}: expected at most {MAX_IR_VERSION}; "
            "prepare_for_ort lowers it"
        )
    return problems


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard operator set, 0 when the model states none."""
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    return versions[0] if versions else 0


def _loss_problems(graph: _Graph) -> list[str]:
    if not graph.outputs:
        return ["the graph has no outputs: expected the scalar loss first"]
    loss = graph.outputs[0]
    kind = loss.type.tensor_type
    if kind.elem_type == TensorProto.FLOAT and kind.HasField("shape") and not kind.shape.dim:
        return []
    return [f"the first output {loss.name!r} is no scalar float32: expected the loss there"]


def _name_problems(graph: _Graph, trainable: Sequence[str]) -> list[str]:
    if not trainable:
        return ["nothing is trainable: select at least one tensor"]
    problems = []
    for name in trainable:
        tensor = graph.initializers.get(name)
        if tensor is None:
            known = [n for n, t in graph.initializers.items() if t.data_type in _FLOATS]
            problems.append(f"there is no initializer {name!r} to train{nearest(name, known)}")
        elif tensor.data_type != TensorProto.FLOAT:
            kind = TensorProto.DataType.Name(tensor.data_type).lower()
            problems.append(f"the initializer {name!r} is {kind}: only float32 can be trained")
    return problems


def _batch_norm_problem(node: NodeProto) -> str:
    return (
        f"{where(node)} is left in the graph: ORT would silently switch it to batch statistics; "
        "put the model in eval mode and fold it (prepare_for_ort does, when its mean and variance "
        "are initializers and training_mode is 0)"
    )


def _node_problems(graph: _Graph, node: NodeProto, path: _Path) -> list[str]:
    if node.op_type not in DIFFERENTIABLE:
        return [f"{where(node)} has no gradient on the way from a trainable tensor; {_ADVICE}"]
    limit = _LIMITS.get(node.op_type)
    found = limit(graph, node, path) if limit else None
    problems = [f"{where(node)} {found}"] if found else []
    cut = SILENTLY_CUT.get(node.op_type, {})
    return problems + [
        f"{where(node)}: its {cut[index]} {name!r} depends on a trainable tensor, and ORT silently "
        f"lets no gradient through there; {_ADVICE}"
        for index, name in enumerate(node.input)
        if index in cut and name in path.influenced
    ]


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """The value of an attribute; text as str."""
    for entry in node.attribute:
        if entry.name == name:
            value = helper.get_attribute_value(entry)
            return value.decode() if isinstance(value, bytes) else value
    return default


def _layer_norm_limit(graph: _Graph, node: NodeProto, path: _Path) -> str | None:
    if len([name for name in node.output if name]) < 3:
        return "lacks its Mean and InvStdDev outputs, which its gradient reads; add them"
    if len([name for name in node.input if name]) < 3:
        return "has no bias, which its gradient asks for; add one of zeros"
    return None


def _padding_limit(graph: _Graph, node: NodeProto, path: _Path) -> str | None:
    padding = attribute(node, "auto_pad", "NOTSET")
    if padding in ("NOTSET", "VALID"):
        return None
    return f"has auto_pad={padding}, for which ORT's gradient is silently wrong; use explicit pads"


def _pad_limit(graph: _Graph, node: NodeProto, path: _Path) -> str | None:
    mode = attribute(node, "mode", "constant")
    return None if mode == "constant" else f"has mode={mode}: only constant padding has a gradient"


def _reduce_limit(graph: _Graph, node: NodeProto, path: _Path) -> str | None:
    has_axes = len(node.input) > 1 and node.input[1]
    if has_axes or attribute(node, "keepdims", 1):
        return None
    return "reduces all axes without keepdims, which its gradient cannot; name the axes"


def _slice_limit(graph: _Graph, node: NodeProto, path: _Path) -> str | None:
    steps = graph.initializers.get(node.input[4]) if len(node.input) > 4 else None
    if steps is None or (numpy_helper.to_array(steps) > 0).all():
        return None
    return "has a negative step, for which there is no gradient"


def _split_limit(graph: _Graph, node: NodeProto, path: _Path) -> str | None:
    lost = [name for name in node.output if name not in path.read]
    if not lost:
        return None
    return f"has outputs off the way to the loss ({', '.join(lost)}): ORT forgets their place"


def _pow_limit(graph: _Graph, node: NodeProto, path: _Path) -> str | None:
    same = graph.types.get(node.input[1]) == graph.types.get(node.input[0])
    return None if same else "has an exponent of another type than its base; cast it"


_LIMITS: dict[str, Callable[[_Graph, NodeProto, _Path], str | None]] = {
    "LayerNormalization": _layer_norm_limit,
    "Conv": _padding_limit,
    "AveragePool": _padding_limit,
    "MaxPool": _padding_limit,
    "Pad": _pad_limit,
    "ReduceL2": _reduce_limit,
    "ReduceLogSumExp": _reduce_limit,
    "Slice": _slice_limit,
    "Split": _split_limit,
    "Pow": _pow_limit,
}
"""For operators whose gradient covers only some uses: what is wrong with this one, or None."""
