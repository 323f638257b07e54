"""A forward graph rewritten so that ONNX Runtime's gradient builder trains slices of a tensor.

The initializer keeps its name and becomes the slices alone; the rest is a constant. A product is
computed as two side by side, of which only one has a weight gradient: over the slices' input
channels and the others', added; or of the slices' output channels and the others', joined. An
embedding looks a token up in the one part or the other. What else reads the tensor gets it joined
again from both parts: exact, though its whole gradient is then computed and cut.

Channels are picked and joined by Split and Concat, whose gradients are each other and copy blocks;
the gradient of Gather takes a lock for every element (onnxruntime 1.19.2, CPU).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from edgetune.errors import ExportError, raise_all
from edgetune.nouns.candidate import Share
from edgetune.nouns.loss import Array
from edgetune.nouns.slices import Shares, share_problems
from edgetune_exporters.live_nodes import live_nodes
from edgetune_exporters.ort_training_checks import attribute

Shape = Sequence[int | None]


def with_shares(model: onnx.ModelProto, shares: Shares) -> onnx.ModelProto:
    """A copy of `model` that computes the same, and of whose initializers `shares` are slices.

    model: as `prepare_for_ort` returns it. An initializer NAME of `shares` holds its slices, a new
    one NAME:frozen the rest. Raises ExportError naming slices that are not there.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    wholes = {t.name: numpy_helper.to_array(t) for t in graph.initializer if t.name in shares}
    problems = [
        p for name in wholes for p in share_problems(name, shares[name], wholes[name].shape)
    ]
    raise_all(ExportError, "cannot train these slices", problems)
    parts = {name: _Parts.of(name, whole, shares[name]) for name, whole in wholes.items()}
    # All slices of a tensor are the tensor.
    parts = {name: part for name, part in parts.items() if part.rest.size}
    if not parts:
        return result
    rewriting = _Rewriting(parts, _shapes(model))
    # A tensor need not be joined for what no output depends on.
    for node in live_nodes(graph.node, [value.name for value in graph.output]):
        rewriting.add(node)
    nodes = [NodeProto.FromString(node.SerializeToString()) for node in rewriting.nodes]
    del graph.node[:]
    graph.node.extend(nodes)
    for tensor in graph.initializer:
        if tensor.name in parts:
            tensor.CopyFrom(numpy_helper.from_array(parts[tensor.name].slices, tensor.name))
    constants = {part.frozen: part.rest for part in parts.values()} | rewriting.constants
    graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in constants.items())
    return result


@dataclass(frozen=True, eq=False)
class _Parts:
    """A tensor, cut along an axis. chosen: (size of the axis,) bool, whether a slice is trained."""

    name: str
    axis: int
    chosen: Array
    slices: Array
    rest: Array

    @staticmethod
    def of(name: str, whole: Array, share: Share) -> _Parts:
        chosen = np.zeros(whole.shape[share.axis], bool)
        chosen[list(share.indices)] = True
        slices, rest = (np.compress(part, whole, share.axis) for part in (chosen, ~chosen))
        return _Parts(name, share.axis, chosen, slices, rest)

    @property
    def frozen(self) -> str:
        return f"{self.name}:frozen"

    @property
    def runs(self) -> list[tuple[bool, int]]:
        """(trained, length) of the runs of slices next to each other."""
        return [(trained, len(list(run))) for trained, run in groupby(self.chosen.tolist())]


@dataclass(frozen=True)
class _Product:
    """Where the channels of a product are.

    summed, kept: axes of the weight, that which is summed over and that of the results.
    data, result: axes of the data that is summed over, and of the result's channels.
    """

    summed: int
    kept: int
    data: int
    result: int


def _product(node: NodeProto, shapes: Mapping[str, Shape]) -> _Product | None:
    """How the node multiplies its second input, None when it does not or not channel by channel."""
    if node.op_type == "Conv" and attribute(node, "group", 1) == 1:
        return _Product(1, 0, 1, 1)
    if node.op_type == "Gemm":
        turned = attribute(node, "transB", 0)
        return _Product(turned, 1 - turned, 0 if attribute(node, "transA", 0) else 1, 1)
    if node.op_type == "MatMul" and len(shapes.get(node.input[1], ())) == 2:
        rank = len(shapes.get(node.input[0], ()))
        return _Product(0, 1, rank - 1, rank - 1) if rank > 1 else None
    return None


class _Rewriting:
    """The graph under construction."""

    def __init__(self, parts: Mapping[str, _Parts], shapes: Mapping[str, Shape]) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, Array] = {}
        self._parts, self._shapes = parts, shapes
        self._joined: set[str] = set()

    def add(self, node: NodeProto) -> None:
        """Append `node`, or what takes its place."""
        position, rewrite = self._rewrite_of(node)
        for index, name in enumerate(node.input):
            if name in self._parts and index != position:
                node.input[index] = self._whole(node, self._parts[name])
        if rewrite is None:
            self.nodes.append(node)
        else:
            rewrite(node)

    def _rewrite_of(self, node: NodeProto) -> tuple[int, Callable[[NodeProto], None] | None]:
        """(the input that may stay in parts, how); (-1, None) where none may."""
        if node.op_type == "Gather" and node.input[0] in self._parts:
            rows = self._parts[node.input[0]]
            if rows.axis == attribute(node, "axis", 0) == 0:
                return 0, lambda node: self._rows(node, rows)
        product = _product(node, self._shapes)
        if product is None or node.input[1] not in self._parts:
            return -1, None
        parts, axes = self._parts[node.input[1]], product
        if parts.axis == axes.summed:
            return 1, lambda node: self._over_inputs(node, parts, axes.data)
        if parts.axis == axes.kept and self._bias_is_cut(node, parts):
            return 1, lambda node: self._over_outputs(node, parts, axes.result)
        return -1, None

    def _bias_is_cut(self, node: NodeProto, parts: _Parts) -> bool:
        """Whether the bias, if any, has one number for each output channel."""
        if len(node.input) < 3:
            return True
        return list(self._shapes.get(node.input[2], ()))[-1:] == [len(parts.chosen)]

    def _over_inputs(self, node: NodeProto, parts: _Parts, axis: int) -> None:
        data, weight, *bias = node.input
        y = node.output[0]
        rest, chosen = self._cut(node, data, parts, axis, f"{y}/data")
        frozen = self._again(node, [rest, parts.frozen, *bias], f"{y}/frozen")
        trained = self._again(node, [chosen, weight], f"{y}/trained")
        self._emit(node, "Add", [frozen, trained], [y])

    def _over_outputs(self, node: NodeProto, parts: _Parts, axis: int) -> None:
        data, weight, *bias = node.input
        y = node.output[0]
        biases: tuple[list[str], list[str]] = ([], [])
        if bias:
            last = len(self._shapes[bias[0]]) - 1
            rest, chosen = self._cut(node, bias[0], parts, last, f"{y}/bias")
            biases = ([rest], [chosen])
        frozen = self._again(node, [data, parts.frozen, *biases[0]], f"{y}/frozen")
        trained = self._again(node, [data, weight, *biases[1]], f"{y}/trained")
        self._join(node, frozen, trained, parts, axis, y)

    def _rows(self, node: NodeProto, parts: _Parts) -> None:
        """Each token's row from the one part or the other; both look up something for each."""
        weight, tokens = node.input
        y = node.output[0]
        rows = []
        for kind, source, present in (
            ("trained", weight, parts.chosen),
            ("frozen", parts.frozen, ~parts.chosen),
        ):
            places = np.where(present, np.cumsum(present) - 1, 0)  # row 0 for what is not there
            table = self._constant(f"{y}/{kind}_places", places.astype(np.int64))
            place = self._emit(node, "Gather", [table, tokens], [f"{y}/{kind}_place"])
            rows.append(self._emit(node, "Gather", [source, place], [f"{y}/{kind}"]))
        is_trained = self._constant(f"{y}/is_trained", parts.chosen)
        which = self._emit(node, "Gather", [is_trained, tokens], [f"{y}/which"])
        behind = self._constant(f"{y}/behind", -np.arange(1, parts.slices.ndim, dtype=np.int64))
        mask = self._emit(node, "Unsqueeze", [which, behind], [f"{y}/mask"])
        self._emit(node, "Where", [mask, *rows], [y])

    def _whole(self, reader: NodeProto, parts: _Parts) -> str:
        name = f"{parts.name}:whole"
        if name not in self._joined:
            self._joined.add(name)
            self._join(reader, parts.frozen, parts.name, parts, parts.axis, name)
        return name

    def _cut(
        self, node: NodeProto, tensor: str, parts: _Parts, axis: int, name: str
    ) -> tuple[str, str]:
        """(the other channels, those of the share) of `tensor`."""
        runs = parts.runs
        pieces = self._split(node, tensor, [length for _, length in runs], axis, name)
        rest = [piece for piece, (trained, _) in zip(pieces, runs, strict=True) if not trained]
        chosen = [piece for piece, (trained, _) in zip(pieces, runs, strict=True) if trained]
        return (
            self._concat(node, rest, axis, f"{name}/rest"),
            self._concat(node, chosen, axis, f"{name}/chosen"),
        )

    def _join(
        self, node: NodeProto, frozen: str, trained: str, parts: _Parts, axis: int, name: str
    ) -> None:
        """The tensor `name`, of which `frozen` and `trained` are the parts."""
        pieces = {}
        for kind, part in ((False, frozen), (True, trained)):
            lengths = [length for of, length in parts.runs if of == kind]
            pieces[kind] = iter(self._split(node, part, lengths, axis, f"{name}/{part}"))
        in_order = [next(pieces[kind]) for kind, _ in parts.runs]
        self._emit(node, "Concat", in_order, [name], axis)

    def _split(
        self, node: NodeProto, tensor: str, lengths: list[int], axis: int, name: str
    ) -> list[str]:
        if len(lengths) == 1:
            return [tensor]
        sizes = self._constant(f"{name}/lengths", np.array(lengths, np.int64))
        pieces = [f"{name}/{index}" for index in range(len(lengths))]
        self._emit(node, "Split", [tensor, sizes], pieces, axis)
        return pieces

    def _concat(self, node: NodeProto, pieces: list[str], axis: int, name: str) -> str:
        if len(pieces) == 1:
            return pieces[0]
        return self._emit(node, "Concat", pieces, [name], axis)

    def _constant(self, name: str, value: Array) -> str:
        self.constants[name] = value
        return name

    def _again(self, node: NodeProto, inputs: Sequence[str], output: str) -> str:
        """The same operator on other inputs."""
        copy = NodeProto.FromString(node.SerializeToString())
        copy.name, copy.input[:], copy.output[:] = output, inputs, [output]
        self.nodes.append(copy)
        return output

    def _emit(
        self,
        node: NodeProto,
        kind: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        axis: int | None = None,
    ) -> str:
        """An operator that takes part in the place of `node`; its first output."""
        new = helper.make_node(kind, inputs, outputs, name=outputs[0], axis=axis)
        new.metadata_props.extend(node.metadata_props)
        self.nodes.append(new)
        return outputs[0]


def _shapes(model: onnx.ModelProto) -> dict[str, Shape]:
    """Dimensions by tensor name, None where one is not fixed; absent where unknown."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes: dict[str, Shape] = {t.name: tuple(t.dims) for t in model.graph.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        kind = value.type.tensor_type
        if kind.HasField("shape"):
            shapes[value.name] = tuple(
                d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim
            )
    return shapes
