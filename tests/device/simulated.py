"""The memory of the graphs that are emitted, simulated operation by operation: the oracle."""

from __future__ import annotations

from edgetune.nouns.selection import Selection
from edgetune.nouns.step_graph import StepGraph
from edgetune.planning.split import split_step
from tests.device.liveness import simulate_peak


def simulated_peak_bytes(graph: StepGraph, selection: Selection) -> int:
    """Peak of the prefix or of the tail; feeds and the prefix's features are alive in both."""
    split = split_step(graph, selection)
    feeds = _sum(graph, (*graph.inputs, *graph.labels))
    others = {**graph.tensor_bytes, **dict.fromkeys(split.features, 0)}
    prefix = simulate_peak(split.prefix, others, split.features)
    # Each gradient is added to its accumulator, in place, as soon as it is there.
    tail = simulate_peak(split.tail, graph.tensor_bytes, (graph.loss, graph.correct))
    return feeds + _sum(graph, split.features) + max(prefix.bytes, tail.bytes)


def _sum(graph: StepGraph, names: tuple[str, ...]) -> int:
    return sum(graph.tensor_bytes[name] for name in names)
