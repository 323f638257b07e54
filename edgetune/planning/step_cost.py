"""The predicted cost of a selection: what is emitted, simulated."""

from __future__ import annotations

from collections.abc import Sequence

from edgetune.nouns.cost import StepCost
from edgetune.nouns.optimizer import Optimizer
from edgetune.nouns.profile import DeviceProfile
from edgetune.nouns.selection import Selection
from edgetune.nouns.step_graph import Operation, StepGraph
from edgetune.planning.device_time import moved_bytes, step_joules, step_seconds
from edgetune.planning.liveness import Peak, simulate_peak
from edgetune.planning.process_memory import (
    ALLOCATOR_OVERHEAD,
    BASE_PROCESS_BYTES,
    BYTES_PER_OPERATION,
    CHECKPOINT_COPIES,
    PREPACKED_SHARE,
    UPDATE_TEMPORARIES,
)
from edgetune.planning.split import Split, split_step


def cost_of(
    graph: StepGraph,
    selection: Selection,
    batch: int,
    optimizer: Optimizer,
    profile: DeviceProfile,
) -> StepCost:
    """Cost of one step of `batch` samples, run as micro-batches of `graph.batch` samples.

    Memory follows the phases of a step: the prefix, then the tail with the prefix's features, then
    the update, then a checkpoint; the phases do not overlap. Gradients add up in place, and values
    and optimizer state are updated in place.
    """
    split = split_step(graph, selection)
    trainable_bytes = sum(graph.tensor_bytes[name] for name in selection.trainable)
    weight_bytes = trainable_bytes + _frozen_bytes(graph, split, selection)
    slots = len(optimizer.slots) * trainable_bytes
    accumulated = trainable_bytes
    widest = max(graph.tensor_bytes[name] for name in selection.trainable)
    phases = [
        *(_with_overhead(peak) for peak in _phase_peaks(graph, split)),
        _with_overhead(Peak(UPDATE_TEMPORARIES * widest, "update")),
        Peak(int(CHECKPOINT_COPIES * (trainable_bytes + slots)), "checkpoint"),
    ]
    largest = max(phases, key=lambda peak: peak.bytes)
    operations = (*split.prefix, *split.tail)
    micro_batches = -(-batch // graph.batch)
    base = BASE_PROCESS_BYTES + BYTES_PER_OPERATION * (len(operations) + len(split.constants))
    seconds = step_seconds(operations, graph, profile)
    seconds = None if seconds is None else seconds * micro_batches
    moved = sum(moved_bytes(operation, graph) for operation in operations)
    return StepCost(
        peak_bytes=base + weight_bytes + slots + accumulated + largest.bytes,
        base_bytes=base,
        weight_bytes=weight_bytes,
        state_bytes=slots + accumulated,
        activation_bytes=largest.bytes,
        peak_at=largest.at,
        flops=sum(operation.flops for operation in operations) * micro_batches,
        moved_bytes=moved * micro_batches,
        seconds=seconds,
        joules=step_joules(seconds, profile),
    )


def _with_overhead(peak: Peak) -> Peak:
    return Peak(int(ALLOCATOR_OVERHEAD * peak.bytes), peak.at)


def _phase_peaks(graph: StepGraph, split: Split) -> tuple[Peak, Peak]:
    """Peaks of the prefix and of the tail, each with the feeds that are alive meanwhile."""
    inputs = _sum(graph, (*graph.inputs, *graph.labels))
    prefix = simulate_peak(split.prefix, graph.tensor_bytes, split.features)
    # Each gradient is added to its accumulator, in place, as soon as it is there.
    tail = simulate_peak(split.tail, graph.tensor_bytes, (graph.loss, graph.correct))
    features = _sum(graph, split.features)
    return (
        Peak(prefix.bytes + inputs, prefix.at),
        Peak(tail.bytes + inputs + features, tail.at),
    )


def _sum(graph: StepGraph, names: Sequence[str]) -> int:
    return sum(graph.tensor_bytes[name] for name in names)


def _frozen_bytes(graph: StepGraph, split: Split, selection: Selection) -> int:
    """Frozen weights, each once, with the share that the runtime keeps a second time prepared."""
    made: set[str] = set()
    read: set[str] = set()
    prepared: set[str] = set()
    for operation in (*split.constants, *split.prefix, *split.tail):
        made.update(operation.outputs)
        read.update(operation.inputs)
        if operation.operator_class in ("matmul", "convolution", "depthwise"):
            prepared.update(operation.inputs[1:])
    outside = read - made - set(selection.trainable) - set(graph.inputs) - set(graph.labels)
    folded = _folded_bytes(graph, split.constants, split)
    frozen = sum(graph.tensor_bytes[name] for name in outside if name)
    copies = sum(graph.tensor_bytes[name] for name in outside & prepared)
    return frozen + folded + int(PREPACKED_SHARE * copies)


def _folded_bytes(graph: StepGraph, constants: Sequence[Operation], split: Split) -> int:
    """Results of constant operations that stay: those that a data-dependent operation reads."""
    made = {name for operation in constants for name in operation.outputs}
    read = {name for o in (*split.prefix, *split.tail) for name in o.inputs}
    return sum(graph.tensor_bytes[name] for name in made & read)
