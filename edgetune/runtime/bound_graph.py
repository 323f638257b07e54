"""A graph that reads and writes arrays in place, bound to them from run to run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgetune.errors import DataError
from edgetune.nouns.bundle_names import NEXT
from edgetune.runtime.session import Array, Arrays

# Of the tensors that graphs of a bundle hand over.
_TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


class BoundGraph:
    """A loaded graph and its binding. graph: its name in the bundle, for messages.

    A training step runs its graphs on the same values, slots, gradients and results every time: to
    bind hundreds of them takes longer than a small graph itself. All results have fixed shapes.
    """

    def __init__(self, onnxruntime: Any, session: Any, graph: str) -> None:
        self._share = onnxruntime.OrtValue.ortvalue_from_numpy
        self._session, self._graph = session, graph
        self._inputs = [argument.name for argument in session.get_inputs()]
        self._outputs = [result.name for result in session.get_outputs()]
        self._binding = session.io_binding()
        self._bound: dict[tuple[str, str], tuple[Array, Any]] = {}
        self._results = {
            result.name: np.zeros(result.shape, _TYPES[result.type])
            for result in session.get_outputs()
            if not result.name.startswith(NEXT)
        }

    def run(
        self,
        passing: Sequence[Arrays],
        kept: Sequence[Arrays],
        changed: Arrays,
        run_options: Any = None,
    ) -> dict[str, Array]:
        """Run it; each input from the first of `passing` and `kept` that has it.

        passing: what differs from run to run; not held on to. changed: output `next:NAME` is
        written over its array NAME; the graphs are made so that every read of NAME comes before.
        Returns the other outputs, in memory that the next run writes over. Raises DataError where
        an input is in none of them.
        """
        held = []  # the memory that the binding points to, until the run is over
        for name in self._inputs:
            array = first_of(name, passing)
            if array is not None:
                held.append(np.ascontiguousarray(array).reshape(array.shape))
                self._binding.bind_ortvalue_input(name, self._share(held[-1]))
                continue
            array = first_of(name, kept)
            if array is None:
                raise DataError(f"{self._graph} reads {name!r}, which is not there")
            self._keep("input", name, array, self._binding.bind_ortvalue_input)
        for name in self._outputs:
            target = self._results[name] if name in self._results else changed[name[len(NEXT) :]]
            self._keep("output", name, target, self._binding.bind_ortvalue_output)
        self._session.run_with_iobinding(self._binding, run_options)
        return self._results

    def _keep(self, side: str, name: str, array: Array, bind: Callable[[str, Any], None]) -> None:
        """Bind `name` to the memory of `array` itself, unless it is already."""
        known = self._bound.get((side, name))
        if known is None or known[0] is not array:
            value = self._share(array)
            self._bound[side, name] = array, value
            bind(name, value)


def first_of(name: str, layers: Sequence[Arrays]) -> Array | None:
    """The array of that name in the first of `layers` that has one."""
    return next((layer[name] for layer in layers if name in layer), None)
