"""Seconds and joules of work on a device, from its profile."""

from __future__ import annotations

from edgetune.nouns.profile import INT8, DeviceProfile, Quantity
from edgetune.nouns.step_graph import Operation, StepGraph
from edgetune.planning.int8_prefix import Int8Prefix


def operation_seconds(
    operation: Operation, graph: StepGraph, profile: DeviceProfile
) -> float | None:
    """Duration of running `operation` once, in seconds.

    The longer of computing and moving its bytes (the roofline: Williams, Waterman and Patterson,
    2009), plus the profile's overhead per operator. None where the profile lacks the bandwidth or
    the rate of the operation's class.
    """
    if operation.operator_class == "view":
        return 0.0
    rate = profile.flops_per_second.get(operation.operator_class)
    return _roofline(operation, moved_bytes(operation, graph), rate, profile)


def int8_seconds(
    int8: Int8Prefix, index: int, graph: StepGraph, profile: DeviceProfile
) -> float | None:
    """Duration of the operation of that index in 8 bits: fewer bytes, at the rate of int8 products.

    Where the profile lacks that rate, and for depthwise convolutions, the rate is that of fp32.
    """
    operation = graph.operations[index]
    rate = profile.flops_per_second.get(operation.operator_class)
    if operation.operator_class in ("convolution", "matmul"):
        rate = profile.flops_per_second.get(INT8, rate)
    tensors = (*operation.inputs, *operation.outputs)
    saved = sum(graph.tensor_bytes[n] - int8.bytes_of(n, graph) for n in tensors if n)
    moved = max(moved_bytes(operation, graph) - saved, 0)
    return _roofline(operation, moved, rate, profile)


def _roofline(
    operation: Operation, moved: int, rate: Quantity | None, profile: DeviceProfile
) -> float | None:
    moving = moving_seconds(moved, profile)
    computing: float | None = 0.0
    if operation.operator_class != "elementwise":
        computing = None if rate is None else operation.flops / rate.value
    if moving is None or computing is None:
        return None
    overhead = profile.dispatch_seconds.value if profile.dispatch_seconds else 0.0
    return max(moving, computing) + overhead


def moving_seconds(count: float, profile: DeviceProfile) -> float | None:
    """Duration of reading or writing `count` bytes, None where the bandwidth is unknown."""
    bandwidth = profile.bandwidth_bytes_per_second
    return None if bandwidth is None else count / bandwidth.value


def moved_bytes(operation: Operation, graph: StepGraph) -> int:
    """Bytes an operation reads and writes; a view moves none."""
    if operation.operator_class == "view":
        return 0
    written = sum(graph.tensor_bytes[name] for name in operation.outputs)
    read = [graph.tensor_bytes[name] for name in operation.inputs if name]
    if operation.reads_in_part:
        read[0] = min(read[0], written)
    return sum(read) + written


def step_joules(seconds: float | None, profile: DeviceProfile) -> float | None:
    """Energy of `seconds` of full work, in joules, at the profile's power scope.

    Load power for as long as the device computes; None where the profile lacks it.
    """
    if seconds is None or profile.load_watts is None:
        return None
    return seconds * profile.load_watts.value
