"""New nodes between those of the dense step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from edgetune_exporters.lowering.lower import LoweredStep


class AddedNodes:
    """Nodes with one result that are added to a dense step; equal ones are added once.

    types: (ONNX element type, shape) of every tensor, those of the new nodes included.
    """

    def __init__(self, lowered: LoweredStep) -> None:
        self._lowered = lowered
        self.types = dict(lowered.types)
        self._nodes: list[tuple[int, onnx.NodeProto]] = []
        self._results: dict[tuple[int, bytes], str] = {}
        self._constants: dict[Any, onnx.TensorProto] = {}

    def add(
        self,
        node: onnx.NodeProto,
        after: int,
        element_type: int,
        shape: Sequence[int],
        result: str = "",
    ) -> str:
        """Add a node that has neither name nor result yet; returns its result.

        after: the index of the dense step's node right behind which it stands, in the order of
            adding. result: the name of both, made up when empty.
        """
        key = (after, node.SerializeToString(deterministic=True))
        if result or key not in self._results:
            name = result or f"{node.op_type}_share_{len(self._nodes)}"
            node.name = name
            node.output.append(name)
            self._nodes.append((after, node))
            self.types[name] = (element_type, tuple(shape))
            self._results[key] = name
        return self._results[key]

    def constant(self, value: npt.NDArray[Any]) -> str:
        """The name of a constant tensor."""
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._constants:
            name = f"share_constant_{len(self._constants)}"
            self._constants[key] = numpy_helper.from_array(value, name)
            self.types[name] = (self._constants[key].data_type, value.shape)
        return self._constants[key].name

    def integers(self, values: Sequence[int]) -> str:
        """A constant int64 vector."""
        return self.constant(np.asarray(list(values), np.int64))

    def step(self, results: Sequence[str]) -> LoweredStep:
        """The dense step with those added nodes that make `results`."""
        wanted = set(results)
        behind: dict[int, list[onnx.NodeProto]] = defaultdict(list)
        for after, node in reversed(self._nodes):
            if node.output[0] in wanted:
                wanted.update(node.input)
                behind[after].insert(0, node)
        model = onnx.ModelProto()
        model.CopyFrom(self._lowered.model)
        del model.graph.node[:]
        for index, node in enumerate(self._lowered.model.graph.node):
            model.graph.node.append(node)
            model.graph.node.extend(behind[index])
        constants = [c for c in self._constants.values() if c.name in wanted]
        model.graph.initializer.extend(constants)
        types = {n: t for n, t in self.types.items() if n in self._lowered.types or n in wanted}
        return replace(self._lowered, model=model, types=types)
