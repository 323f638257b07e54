"""What is known about a device: each number with its unit, kind, source and date."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["measured", "vendor", "derived"]
PowerScope = Literal["module", "board", "wall"]

CONVOLUTIONS = ("convolution", "pointwise", "depthwise")
"""Pointwise: a 1x1 convolution. Depthwise: one with one channel in or out per group."""

OPERATOR_CLASSES = (*CONVOLUTIONS, "matmul", "transpose", "elementwise")
"""Classes of operators that sustain different shares of the peak.

Pointwise convolutions, the 1x1 ones, run at the rate of convolutions where theirs is unknown.
Transpose: what rearranges single elements, an operation on each; it moves its bytes at the
bandwidth where its rate is unknown."""

INT8 = "int8"
"""Key in `flops_per_second` of products of 8-bit integers, with onnxruntime's kernels."""

PREFIX = {name: f"prefix_{name}" for name in CONVOLUTIONS}
"""Keys in `flops_per_second` of a frozen prefix's convolutions, by class, activations included.

The prefix is optimised when it is loaded; what has gradients runs as it is written."""

UPDATE = "update"
"""Key in `flops_per_second` of the optimizer's operators, each an operation on every element.

They go over one tensor after the other, which a cache may hold, and always on all cores."""

PEAK = "peak"
"""Key in `flops_per_second` of the fp32 peak of all cores."""


@dataclass(frozen=True)
class Quantity:
    """One number about a device, and why to believe it.

    value: the number, in `unit`; finite and greater than zero.
    unit: "byte", "byte/s", "flop/s", "s" or "W".
    kind: "measured" on such a device, "vendor" (data sheet), or "derived" by arithmetic.
    source: where the number is from; of a derived number also the arithmetic.
    date: when it was measured or published, else read: YYYY, YYYY-MM or YYYY-MM-DD.
    """

    value: float
    unit: str
    kind: Kind
    source: str
    date: str


@dataclass(frozen=True)
class DeviceProfile:
    """A device as the planner sees it; None, or a missing class, is unknown and never guessed.

    cores: CPU cores that onnxruntime may use.
    total_memory_bytes: memory fitted to the board, in bytes.
    usable_memory_bytes: what the kernel leaves to all processes together, in bytes.
    bandwidth_bytes_per_second: bytes read plus bytes written per second, as the CPU reaches them.
    flops_per_second: fp32 floating-point operations per second on all cores, by operator class
        as onnxruntime sustains them, of a frozen prefix where that differs, and under "peak" the
        highest rate of the CPU; a multiply-accumulate counts as two.
    dispatch_seconds: overhead of one operator, in seconds; known where it was measured only.
    group_seconds: overhead of one group of a depthwise convolution, in seconds; as the former.
    idle_watts: power of the idle device, in watts, at `power_scope`.
    load_watts: power with all cores at work, in watts, at `power_scope`.
    power_scope: where idle_watts and load_watts are taken: the compute module, the board's
        supply input, or the wall (supply losses included).
    meter: name of the meter that reads this device's power, None when it has no sensor.
    peak_bandwidth_bytes_per_second: rate of the memory chips, bus width x transfers per second:
        no program exceeds it, and one core alone reaches a fraction of it.
    """

    id: str
    name: str
    cpu: str
    cores: int
    total_memory_bytes: Quantity | None
    usable_memory_bytes: Quantity | None
    bandwidth_bytes_per_second: Quantity | None
    flops_per_second: Mapping[str, Quantity]
    dispatch_seconds: Quantity | None
    idle_watts: Quantity | None
    load_watts: Quantity | None
    power_scope: PowerScope | None
    meter: str | None
    notes: str
    peak_bandwidth_bytes_per_second: Quantity | None = None
    group_seconds: Quantity | None = None

    def to_dict(self) -> dict[str, Any]:
        """The profile as plain dictionaries, numbers and text, fit for JSON."""
        return asdict(self)
