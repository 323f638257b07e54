"""The graphs of a portable bundle: loaded when they are first needed, and run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgetune.errors import DataError
from edgetune.nouns.bundle_names import FEATURES, GRADIENTS, SMALLER, SMALLER_GRAPHS, UPDATE
from edgetune.runtime.bound_graph import BoundGraph, first_of
from edgetune.runtime.onnx_session import load_graph
from edgetune.runtime.onnxruntime_packages import import_onnxruntime
from edgetune.runtime.session import Array, Arrays
from edgetune.runtime.shared_arena import SharedArena

_TRAINING = (GRADIENTS, UPDATE)


class LoadedGraphs:
    """The graphs in `folder`, by the names of edgetune.nouns.bundle_names.

    block_bytes: what the tensors of one run take at the most. profile_prefix: if given, onnxruntime
    times the nodes of every graph (`end_profiling`).
    """

    def __init__(self, folder: Path, block_bytes: float, profile_prefix: str | None) -> None:
        self._onnxruntime = import_onnxruntime()
        self._folder, self._profile_prefix = folder, profile_prefix
        self._smaller = False
        self._start(block_bytes)

    def _start(self, block_bytes: float) -> None:
        self._loaded: dict[str, Any] = {}
        self._bound: dict[str, BoundGraph] = {}
        self._run_before: set[str] = set()
        # An arena before it is freed with the last graph in it.
        self._arena = SharedArena(self._onnxruntime, block_bytes)

    def go_over_to_smaller(self, block_bytes: float) -> None:
        """Run those of the smaller micro-batch from now on, whose runs take so much."""
        self._smaller = True
        self._start(block_bytes)

    def batch_of(self, graph: str) -> int | None:
        """How many samples the graph takes at once, None for any number."""
        size = self._session(graph).get_inputs()[0].shape[0]
        return size if isinstance(size, int) else None

    def run(self, graph: str, *layers: Arrays) -> dict[str, Array]:
        """Run a graph, each input from the first of `layers` that has it."""
        session = self._session(graph)
        names = [result.name for result in session.get_outputs()]
        taken = {i.name: first_of(i.name, layers) for i in session.get_inputs()}
        feeds = {name: value for name, value in taken.items() if value is not None}
        with _blaming_data(graph):
            results = session.run(names, feeds, self._run_options(graph))
        return dict(zip(names, results, strict=True))

    def run_in_place(
        self, graph: str, passing: Sequence[Arrays], kept: Sequence[Arrays], changed: Arrays
    ) -> dict[str, Array]:
        """Run a graph over the arrays `changed`; see BoundGraph.run."""
        session = self._session(graph)
        if graph not in self._bound:
            self._bound[graph] = BoundGraph(self._onnxruntime, session, graph)
        with _blaming_data(graph):
            return self._bound[graph].run(passing, kept, changed, self._run_options(graph))

    def end_profiling(self) -> dict[str, Path]:
        """Onnxruntime's records of the graphs loaded now, by graph; only with a profile_prefix."""
        return {name: Path(graph.end_profiling()) for name, graph in self._loaded.items()}

    def _run_options(self, graph: str) -> Any:
        """Onnxruntime's options for the run of a graph that comes now."""
        if graph in self._run_before:
            return None
        self._run_before.add(graph)
        return self._arena.first_run_options()

    def _session(self, graph: str) -> Any:
        """The named graph, loaded when it is first needed.

        Training, evaluation and prediction hold the same weights: one of them is loaded at a time.
        """
        if graph not in self._loaded:
            together = _TRAINING if graph in _TRAINING else (graph,)
            kept = (FEATURES, *together)
            self._loaded = {name: made for name, made in self._loaded.items() if name in kept}
            self._bound = {name: bound for name, bound in self._bound.items() if name in kept}
            self._run_before &= self._loaded.keys()
            small = self._smaller and graph in SMALLER_GRAPHS
            path = self._folder / (SMALLER + graph if small else graph)
            self._loaded[graph] = load_graph(
                self._onnxruntime, path, graph, self._arena, self._profile_prefix
            )
        return self._loaded[graph]


@contextmanager
def _blaming_data(graph: str) -> Iterator[None]:
    """Turn what onnxruntime raises while running into one DataError.

    A loaded graph fails only on what it is fed: shapes, or an index out of an embedding's range.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # onnxruntime raises its own types, one per status code
        text = str(error).splitlines()[0]
        raise DataError(
            f"onnxruntime cannot run {graph} on these data: {text}; check the inputs' shapes, and "
            "that indices such as token ids lie within the model's vocabulary"
        ) from error
