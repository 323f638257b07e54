"""Seconds and joules of work on a device, from its profile."""

from __future__ import annotations

from collections.abc import Mapping

from edgetune.nouns.profile import INT8, PREFIX, UPDATE, DeviceProfile, Quantity
from edgetune.nouns.step_graph import Operation, StepGraph
from edgetune.planning.int8_prefix import Int8Prefix
from edgetune.planning.needs import Needs

_ELEMENT_BYTES = 4  # what is trained is fp32

Makers = Mapping[str, Operation]
"""The operation that makes each tensor."""

# Operators per tensor in the update graph of each kind of optimizer, and how often they read or
# write as many bytes as the tensor has, leaving out the result of the operator just before, which
# is in a cache: counted in exporters/edgetune_exporters/portable/update_graph.py.
UPDATE_WORK = {"adamw": (14, 23), "sgd": (6, 10), "sgd-momentum": (8, 14), "sgd-nesterov": (10, 17)}


def operation_seconds(
    operation: Operation, graph: StepGraph, profile: DeviceProfile
) -> float | None:
    """Duration of running `operation` once, in seconds.

    The longer of computing and moving its bytes (the roofline: Williams, Waterman and Patterson,
    2009), plus the profile's overheads per operator and per group. None where the profile lacks the
    bandwidth or the rate of the operation's class.
    """
    if operation.operator_class == "view":
        return 0.0
    rate = _rate(operation, profile)
    groups = operation.groups * profile.group_seconds.value if profile.group_seconds else 0.0
    return _roofline(operation, moved_bytes(operation, graph.tensor_bytes), rate, profile, groups)


def prefix_seconds(
    index: int, graph: StepGraph, needs: Needs, makers: Makers, profile: DeviceProfile
) -> float | None:
    """Duration of the operation of that index while it is frozen, in seconds.

    A prefix is optimised when it is loaded: its convolutions have rates of their own, and an
    activation right behind one is part of it. None where that makes no difference that is known.
    """
    operation = graph.operations[index]
    if not needs.is_forward(index):
        return None
    if operation.in_place and operation.operator_class == "elementwise":
        known = any(key in profile.flops_per_second for key in PREFIX.values())
        maker = makers.get(operation.inputs[0])
        fused = maker is not None and maker.operator_class in PREFIX
        return 0.0 if fused and known else None
    rate = profile.flops_per_second.get(PREFIX.get(operation.operator_class, ""))
    if rate is None:
        return None
    return _roofline(operation, moved_bytes(operation, graph.tensor_bytes), rate, profile)


def _rate(operation: Operation, profile: DeviceProfile) -> Quantity | None:
    rates, kind = profile.flops_per_second, operation.operator_class
    return rates.get(kind, rates.get("convolution") if kind == "pointwise" else None)


def int8_seconds(
    int8: Int8Prefix, index: int, graph: StepGraph, profile: DeviceProfile
) -> float | None:
    """Duration of the operation of that index in 8 bits: fewer bytes, at the rate of int8 products.

    Where the profile lacks that rate, and for depthwise convolutions, the rate is that of fp32.
    """
    operation = graph.operations[index]
    rate = _rate(operation, profile)
    if operation.operator_class in ("convolution", "pointwise", "matmul"):
        rate = profile.flops_per_second.get(INT8, rate)
    tensors = (*operation.inputs, *operation.outputs)
    saved = sum(graph.tensor_bytes[n] - int8.bytes_of(n, graph) for n in tensors if n)
    moved = max(moved_bytes(operation, graph.tensor_bytes) - saved, 0)
    return _roofline(operation, moved, rate, profile)


def _roofline(
    operation: Operation,
    moved: int,
    rate: Quantity | None,
    profile: DeviceProfile,
    groups_seconds: float = 0.0,
) -> float | None:
    moving = moving_seconds(moved, profile)
    computing: float | None = 0.0
    if operation.operator_class != "elementwise":
        unknown = 0.0 if operation.operator_class == "transpose" else None
        computing = unknown if rate is None else operation.flops / rate.value
    if moving is None or computing is None:
        return None
    overhead = profile.dispatch_seconds.value if profile.dispatch_seconds else 0.0
    return max(moving, computing + groups_seconds) + overhead


def update_seconds(
    size_bytes: int, micro_batches: int, kind: str, profile: DeviceProfile
) -> float | None:
    """Duration of adding up the gradients of a tensor of that size, and of updating it.

    The sum of the gradients is cleared, each micro-batch adds to it, its norm is taken; then come
    the update graph's operators. kind: that of the optimizer. Where the rate of the optimizer's
    operators is unknown, they move their bytes at the bandwidth.
    """
    operators, accesses = UPDATE_WORK[kind]
    rate = profile.flops_per_second.get(UPDATE)
    if rate is None:
        moving = moving_seconds((2 * micro_batches + 2 + accesses) * size_bytes, profile)
    else:
        moving = (operators + micro_batches + 1) * (size_bytes / _ELEMENT_BYTES) / rate.value
    overhead = profile.dispatch_seconds.value if profile.dispatch_seconds else 0.0
    return None if moving is None else moving + (operators + micro_batches) * overhead


def moving_seconds(count: float, profile: DeviceProfile) -> float | None:
    """Duration of reading or writing `count` bytes, None where the bandwidth is unknown."""
    bandwidth = profile.bandwidth_bytes_per_second
    return None if bandwidth is None else count / bandwidth.value


def moved_bytes(operation: Operation, tensor_bytes: Mapping[str, int]) -> int:
    """Bytes an operation reads and writes; a view moves none."""
    if operation.operator_class == "view":
        return 0
    written = sum(tensor_bytes[name] for name in operation.outputs)
    read = [tensor_bytes[name] for name in operation.inputs if name]
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
