"""Adds gradients of shares to the dense step.

The gradient of some slices of a parameter is a Gather of the whole gradient. It is pushed through
the operators that make the gradient, from the result towards what they are made of: a product of
the slices of an operand is the slice of the product. What remains are Gathers of tensors that the
step has anyway. Each stands right behind the operator that makes its tensor, so that only the share
of an activation is kept for the backward; one of an input or a weight, which stay anyway, stands
where it is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgetune.nouns.candidate import Candidate, Share
from edgetune_exporters.lowering.lower import LoweredStep
from edgetune_exporters.slicing.added_nodes import AddedNodes
from edgetune_exporters.slicing.rules import MOVEMENTS, RULES, Operator

# What the gradient of a weight costs: without a share of one of these nothing is saved.
_PRODUCTS = ("MatMul", "Gemm", "Conv", "ScatterElements")


def with_share_gradients(
    lowered: LoweredStep, shares: Mapping[str, tuple[str, Share]]
) -> tuple[LoweredStep, tuple[Candidate, ...]]:
    """The step with a tensor `gradient:NAME` for each of the shares, and these as candidates.

    shares: (parameter, share) by candidate name. Left out is a share of a parameter that the loss
    does not depend on, and one whose gradient can only be cut out of the whole one.
    """
    slicer = _Slicer(lowered)
    candidates = []
    for name, (parameter, share) in shares.items():
        result = f"gradient:{name}"
        if slicer.add_gradient(f"gradient:{parameter}", share, result):
            candidates.append(Candidate(name, parameter, result, share))
    return slicer.added.step([c.gradient for c in candidates]), tuple(candidates)


class _Slicer:
    def __init__(self, lowered: LoweredStep) -> None:
        graph = lowered.model.graph
        self.added = AddedNodes(lowered)
        self._nodes = list(graph.node)
        self._maker = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._needed_by = _sole_results(graph)

    def add_gradient(self, gradient: str, share: Share, result: str) -> bool:
        """Whether `share` of the tensor `gradient` could be made, as the tensor `result`."""
        if gradient not in self._maker:
            return False
        last = self._maker[gradient]
        whole = self._nodes[last].input[0]
        source = self._sliced(whole, share, last, whole, below_product=False)
        if source is None:
            return False
        node = helper.make_node("Identity", [source], [])
        self.added.add(node, last, *self.added.types[source], result)
        return True

    def _sliced(
        self, tensor: str, share: Share, reader: int, whole: str, below_product: bool
    ) -> str | None:
        """A tensor that holds `share` of `tensor`, for the node at the index `reader`.

        Operators that only the gradient `whole` needs are made anew. Below its product, which is
        what costs, so are those that only move elements, whoever needs them: it is the activation
        that is shared then and not a copy of it. The others' results are gathered there; above the
        product that saves nothing, and the answer is None.
        """
        maker = self._maker.get(tensor)
        if maker is not None:
            is_movement = self._nodes[maker].op_type in MOVEMENTS
            if self._needed_by[maker] == whole or (below_product and is_movement):
                made = self._made(maker, share, whole, below_product)
                if made is not None:
                    return made
        if not below_product:
            return None
        return self._gathered(tensor, share, reader if maker is None else maker)

    def _made(self, index: int, share: Share, whole: str, below_product: bool) -> str | None:
        """`share` of the result of a node, by a copy of the node; None when that cannot be."""
        node = self._nodes[index]
        if node.op_type == "ScatterElements":
            return self._rows(index, share)
        rule = RULES.get(node.op_type)
        reading = rule(self._operator(node), share) if rule else None
        if reading is None:
            return None
        inputs = list(node.input)
        for position, values in reading.integers.items():
            inputs[position] = self.added.integers(values)
        for position, wanted in reading.shares.items():
            below = below_product or node.op_type in _PRODUCTS
            found = self._read(inputs[position], wanted, index, whole, below)
            if found is None:
                return None
            inputs[position] = found
        element_type, shape = self.added.types[node.output[0]]
        attributes = {**_attributes(node), **reading.attributes}
        return self._add(index, node.op_type, inputs, attributes, element_type, share.shape(shape))

    def _read(
        self, tensor: str, share: Share, reader: int, whole: str, below_product: bool
    ) -> str | None:
        """As `_sliced`, for indices that may repeat or be all that there are."""
        once = tuple(sorted(set(share.indices)))
        found: str | None = tensor
        if len(once) < self.added.types[tensor][1][share.axis]:
            found = self._sliced(tensor, Share(share.axis, once), reader, whole, below_product)
        if found is None or once == share.indices:
            return found
        position = {index: at for at, index in enumerate(once)}
        repeated = tuple(position[index] for index in share.indices)
        return self._gathered(found, Share(share.axis, repeated), reader)

    def _rows(self, index: int, share: Share) -> str | None:
        """Rows of a sum by row: what belongs to others goes to one more row, which is dropped."""
        node = self._nodes[index]
        base, index_of_all, terms = node.input
        element_type, shape = self.added.types[base]
        expand = self._nodes[self._maker[index_of_all]] if index_of_all in self._maker else None
        is_sum = _attributes(node).get("reduction") == b"add" and self._is_zero(base)
        by_row = expand is not None and expand.op_type == "Expand" and not _axis(node)
        if expand is None or not (is_sum and by_row) or share.axis != 0:
            return None
        rows, size = expand.input
        index_type, index_shape = self.added.types[rows]
        count = len(share.indices)
        place = np.full(shape[0], count, np.int64)
        place[list(share.indices)] = np.arange(count)
        inputs = [self.added.constant(place), rows]
        places = self._add(index, "Gather", inputs, {}, index_type, index_shape)
        of_all = self.added.types[index_of_all][1]
        places = self._add(index, "Expand", [places, size], {}, index_type, of_all)
        more = (count + 1, *shape[1:])
        zero = helper.make_tensor("", element_type, [1], [0])
        inputs = [self.added.integers(more)]
        zeros = self._add(index, "ConstantOfShape", inputs, {"value": zero}, element_type, more)
        inputs = [zeros, places, terms]
        attributes = {"axis": 0, "reduction": "add"}
        total = self._add(index, "ScatterElements", inputs, attributes, element_type, more)
        inputs = [total, *(self.added.integers([value]) for value in (0, count, 0))]
        return self._add(index, "Slice", inputs, {}, element_type, share.shape(shape))

    def _is_zero(self, tensor: str) -> bool:
        value = self._initializers.get(tensor)
        if value is None and tensor in self._maker:
            maker = self._nodes[self._maker[tensor]]
            value = _attributes(maker).get("value") if maker.op_type == "ConstantOfShape" else None
        return value is not None and not numpy_helper.to_array(value).any()

    def _gathered(self, tensor: str, share: Share, after: int) -> str:
        element_type, shape = self.added.types[tensor]
        inputs = [tensor, self.added.integers(share.indices)]
        attributes = {"axis": share.axis}
        return self._add(after, "Gather", inputs, attributes, element_type, share.shape(shape))

    def _add(
        self,
        after: int,
        kind: str,
        inputs: Sequence[str],
        attributes: Mapping[str, Any],
        element_type: int,
        shape: Sequence[int],
    ) -> str:
        """Add a node behind another one, as a part of the same module."""
        node = helper.make_node(kind, inputs, [], **attributes)
        node.doc_string = self._nodes[after].doc_string
        return self.added.add(node, after, element_type, shape)

    def _operator(self, node: onnx.NodeProto) -> Operator:
        shapes = [self.added.types[name][1] if name else () for name in node.input]
        result = self.added.types[node.output[0]][1]

        def integers(position: int) -> tuple[int, ...]:
            return tuple(numpy_helper.to_array(self._initializers[node.input[position]]).tolist())

        return Operator(tuple(shapes), result, _attributes(node), integers)


def _axis(node: onnx.NodeProto) -> int:
    return int(_attributes(node).get("axis", 0))


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _sole_results(graph: onnx.GraphProto) -> list[str]:
    """For each node the one result of the step that needs it, "" when several do.

    A result is an Identity, and stands here as the tensor behind it: weights that are used alike
    have one gradient.
    """
    sole: dict[str, str] = {}
    names = {result.name for result in graph.output}
    found = []
    for node in reversed(graph.node):
        results = {sole[name] for name in node.output if name in sole}
        if names.intersection(node.output):
            results.add(node.input[0])
        result = results.pop() if len(results) == 1 else ""
        found.append(result)
        for name in node.input:
            sole[name] = result if sole.get(name, result) == result else ""
    return found[::-1]
