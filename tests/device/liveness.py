"""Which tensors are alive at each moment of an execution, and the most bytes at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgetune.nouns.step_graph import Operation


@dataclass(frozen=True)
class Peak:
    """bytes: the largest sum of live tensors; at: the operation running then, "" when none runs."""

    bytes: int
    at: str


def simulate_peak(
    operations: Sequence[Operation],
    tensor_bytes: Mapping[str, int],
    results: Iterable[str],
) -> Peak:
    """The exact peak of running `operations` in order.

    A tensor is allocated when its operation starts and freed after its last reader, as onnxruntime
    does; `results` stay alive to the end. Views share their input's buffer; an in-place operation
    writes over an input of the same size that nobody reads again. Tensors that no operation makes
    (weights, feeds) belong to someone else and are not counted.
    """
    last_use = {name: i for i, operation in enumerate(operations) for name in operation.inputs}
    last_use.update(dict.fromkeys(results, len(operations)))
    buffer_of: dict[str, str] = {}  # the buffers alive, by the tensors that lie in them
    freed_after: dict[str, int] = {}
    buffer_bytes: dict[str, int] = {}
    live, peak = 0, Peak(0, "")
    for index, operation in enumerate(operations):
        for name in operation.outputs:
            last = last_use.get(name, index)
            buffer = _shared_buffer(operation, name, index, buffer_of, freed_after, tensor_bytes)
            if buffer is None:
                if operation.operator_class == "view":
                    continue  # a view of a weight or a feed
                buffer, buffer_bytes[name] = name, tensor_bytes[name]
                live += tensor_bytes[name]
            buffer_of[name] = buffer
            freed_after[buffer] = max(freed_after.get(buffer, index), last)
        if live > peak.bytes:
            peak = Peak(live, operation.name)
        for name in (*operation.inputs, *operation.outputs):
            buffer = buffer_of.get(name)
            if buffer is not None and buffer in buffer_bytes and freed_after[buffer] <= index:
                live -= buffer_bytes.pop(buffer)
    return peak


def _shared_buffer(
    operation: Operation,
    output: str,
    index: int,
    buffer_of: Mapping[str, str],
    freed_after: Mapping[str, int],
    tensor_bytes: Mapping[str, int],
) -> str | None:
    """The buffer of an input that `output` lies in, None when it needs its own."""
    if operation.operator_class == "view":
        return buffer_of.get(operation.inputs[0])
    if not operation.in_place:
        return None
    for name in operation.inputs[:1]:
        buffer = buffer_of.get(name)
        if (
            buffer is not None
            and freed_after[buffer] == index
            and tensor_bytes[buffer] == tensor_bytes[output]
        ):
            return buffer
    return None
