"""Seconds and joules of work on a device, from its profile."""

from __future__ import annotations

from collections.abc import Sequence

from edgetune.nouns.profile import DeviceProfile
from edgetune.nouns.step_graph import Operation, StepGraph


def step_seconds(
    operations: Sequence[Operation], graph: StepGraph, profile: DeviceProfile
) -> float | None:
    """Duration of running `operations` once, in seconds.

    Each operation takes the longer of computing and moving its bytes (the roofline: Williams,
    Waterman and Patterson, 2009), plus the profile's overhead per operator. None where the profile
    lacks the bandwidth or the rate of a class that is used.
    """
    bandwidth = profile.bandwidth_bytes_per_second
    if bandwidth is None:
        return None
    overhead = profile.dispatch_seconds.value if profile.dispatch_seconds else 0.0
    total = 0.0
    for operation in operations:
        if operation.operator_class == "view":
            continue
        moving = moved_bytes(operation, graph) / bandwidth.value
        computing = 0.0
        if operation.operator_class != "elementwise":
            rate = profile.flops_per_second.get(operation.operator_class)
            if rate is None:
                return None
            computing = operation.flops / rate.value
        total += max(moving, computing) + overhead
    return total


def moved_bytes(operation: Operation, graph: StepGraph) -> int:
    """Bytes an operation reads and writes; a view moves none."""
    if operation.operator_class == "view":
        return 0
    return sum(graph.tensor_bytes[name] for name in (*operation.inputs, *operation.outputs) if name)


def step_joules(seconds: float | None, profile: DeviceProfile) -> float | None:
    """Energy of `seconds` of full work, in joules, at the profile's power scope.

    Load power for as long as the device computes; None where the profile lacks it.
    """
    if seconds is None or profile.load_watts is None:
        return None
    return seconds * profile.load_watts.value
