"""Onnxruntime's own record of a graph's runs, as time by operator and by module."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgetune.nouns.step_graph import StepGraph

_KERNEL = "_kernel_time"
# A convolution over blocks of channels has the name of the activation that it contains.
_FUSED = "_nchwc"


@dataclass(frozen=True)
class NodeTime:
    """One node of a graph. seconds: median over the recorded runs, the first left out."""

    graph: str
    name: str
    operator: str
    seconds: float


@dataclass(frozen=True)
class TimeOf:
    """Time in one step of all nodes of one kind. name: an operator's type, or a module's name."""

    name: str
    seconds: float
    nodes: int


def read_node_times(records: Mapping[str, Path]) -> list[NodeTime]:
    """The nodes in the profiling files, by graph, that onnxruntime wrote.

    Times are a little longer than without profiling, those of tiny operators much longer.
    """
    found = []
    for graph, path in records.items():
        durations: dict[tuple[str, str], list[float]] = {}
        for event in json.loads(path.read_bytes()):
            name = str(event.get("name", ""))
            if event.get("cat") == "Node" and name.endswith(_KERNEL):
                key = name.removesuffix(_KERNEL), str(event["args"].get("op_name", ""))
                durations.setdefault(key, []).append(event["dur"] * 1e-6)
        for (name, operator), times in durations.items():
            found.append(NodeTime(graph, name, operator, statistics.median(times[1:] or times)))
    return found


def by_operator(nodes: Iterable[NodeTime]) -> tuple[TimeOf, ...]:
    """Most time first."""
    return _grouped((node.operator, node.seconds) for node in nodes)


def by_module(nodes: Iterable[NodeTime], graph: StepGraph) -> tuple[TimeOf, ...]:
    """Most time first; what no module is known of, such as the update, counts under its graph."""
    modules = {operation.name: operation.module for operation in graph.operations}

    def module_of(node: NodeTime) -> str:
        return modules.get(node.name.removesuffix(_FUSED), "") or f"({node.graph})"

    return _grouped((module_of(node), node.seconds) for node in nodes)


def _grouped(named: Iterable[tuple[str, float]]) -> tuple[TimeOf, ...]:
    groups: dict[str, list[float]] = {}
    for name, seconds in named:
        groups.setdefault(name, []).append(seconds)
    found = [TimeOf(name, sum(times), len(times)) for name, times in groups.items()]
    return tuple(sorted(found, key=lambda item: (-item.seconds, item.name)))
