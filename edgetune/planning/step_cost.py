"""The predicted cost of a selection: what is emitted, simulated.

Every part of a cost is a coverage function of the selection: amounts that count when any of some
candidates is selected, or the largest of such sums. Three laws follow: a larger selection never
costs less, `cost(A or B) <= cost(A) + cost(B)`, and the cheapest selection is a single candidate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgetune.nouns.cost import StepCost
from edgetune.nouns.optimizer import Optimizer
from edgetune.nouns.precision import Precision
from edgetune.nouns.profile import CONVOLUTIONS, DeviceProfile
from edgetune.nouns.selection import Selection
from edgetune.nouns.step_graph import StepGraph
from edgetune.planning.buffers import buffers_of
from edgetune.planning.device_time import (
    int8_seconds,
    moved_bytes,
    operation_seconds,
    prefix_seconds,
    step_joules,
    update_seconds,
)
from edgetune.planning.held_features import boundaries_of
from edgetune.planning.int8_prefix import NODES_AROUND, NOTHING_IN_INT8, int8_prefix
from edgetune.planning.moments import Moments, selection_level
from edgetune.planning.needs import needs_of
from edgetune.planning.process_memory import (
    ALLOCATOR_OVERHEAD,
    BASE_PROCESS_BYTES,
    BYTES_PER_OPERATION,
    BYTES_PER_UPDATE,
    LOADING_COPIES,
    SAVED_COPIES,
    update_bytes,
)

# Sums of floating-point bytes in another order differ by less.
ROUNDING_BYTES = 1e-3

Amounts = list[tuple[float, int]]  # (amount, the candidates any of which it takes)


class StepCosts:
    """The costs of every selection of one dense step, as a batch of `batch` samples.

    Selections are bitmasks over `graph.candidates` (see edgetune.planning.needs).
    precision: of the frozen prefix. seconds: amounts of one step, None where the profile cannot
    tell.
    """

    def __init__(
        self,
        graph: StepGraph,
        batch: int,
        optimizer: Optimizer,
        profile: DeviceProfile,
        precision: Precision = "fp32",
    ) -> None:
        self.graph, self.profile, self.precision = graph, profile, precision
        self.needs = needs_of(graph)
        self._int8 = int8_prefix(graph, self.needs) if precision == "int8" else NOTHING_IN_INT8
        self._micro_batches = -(-batch // graph.batch)
        self._slots, self._kind = len(optimizer.slots), optimizer.kind
        self._sizes = [graph.tensor_bytes[c.gradient] for c in graph.candidates]
        self.seconds = self._seconds()
        buffers = buffers_of(graph, self.needs, self._int8)
        self.moments = Moments(
            len(graph.operations), buffers, boundaries_of(graph, self.needs, buffers)
        )
        self._parameters = set(graph.parameters)
        self.feeds = sum(graph.tensor_bytes[name] for name in (*graph.inputs, *graph.labels))
        self.weights = self._weights()

    def state_bytes(self, candidate: int) -> int:
        """Accumulated gradient and optimizer state of the candidate of that number."""
        return (1 + self._slots) * self._sizes[candidate]

    def states(self) -> Amounts:
        """Accumulated gradients and optimizer state."""
        return [(self.state_bytes(i), 1 << i) for i in range(len(self._sizes))]

    def checkpoint_bytes(self, candidate: int) -> float:
        """What writing checkpoints and the delta holds besides: whole tensors are written in place,
        shares are taken out of theirs.
        """
        whole = self.graph.candidates[candidate].share is None
        return 0 if whole else SAVED_COPIES * self._sizes[candidate]

    def update_bytes(self, candidate: int) -> float:
        """Temporaries of the update graph; it updates one tensor after the other."""
        is_share = self.graph.candidates[candidate].share is not None
        return update_bytes(self._sizes[candidate], is_share)

    def workspaces(self) -> Amounts:
        """What each kernel allocates while it runs; the largest counts."""
        found: Amounts = []
        for index, users in enumerate(self.needs.needed_by):
            size = self.graph.operations[index].workspace_bytes
            size += self._int8.workspace_bytes(index, self.graph)
            if size:
                found.append((size, users))
        return found

    def loading_bytes(self) -> int:
        """What rearranging the largest convolution's weight takes when the prefix is loaded."""
        weights = [
            self.graph.tensor_bytes[operation.inputs[1]]
            for operation in self.graph.operations
            if operation.operator_class in CONVOLUTIONS and operation.inputs[1] in self._parameters
        ]
        return LOADING_COPIES * max(weights, default=0)

    def operations_bytes(self) -> Amounts:
        """The runtime's own objects per operation, and per tensor in the update graph."""
        updates = [(float(BYTES_PER_UPDATE), 1 << i) for i in range(len(self._sizes))]
        around = [
            (NODES_AROUND * BYTES_PER_OPERATION, self.needs.always) for _ in self._int8.leaving
        ]
        in_step = [(BYTES_PER_OPERATION, users) for users in self.needs.needed_by]
        return [*in_step, *updates, *around]

    def operation_flops(self) -> Amounts:
        """FLOPs of one step."""
        return [
            (operation.flops * self._micro_batches, users)
            for operation, users in zip(self.graph.operations, self.needs.needed_by, strict=True)
        ]

    def bits_of(self, selection: Selection) -> int:
        """The bitmask of `selection`. Raises SelectionError for what has no gradient here."""
        chosen = self.graph.selected(selection)
        place = {candidate.name: index for index, candidate in enumerate(self.graph.candidates)}
        return sum(1 << place[candidate.name] for candidate in chosen)

    def cost(self, selected: int) -> StepCost:
        """The cost of the selection with that bitmask; of 0 the forward pass alone."""
        bits = selected | self.needs.always
        chosen = list(_bits(selected))
        base = BASE_PROCESS_BYTES + int(_total(self.operations_bytes(), bits))
        weights = int(_total(self.weights, bits))
        state = sum(self.state_bytes(index) for index in chosen)
        worst, at = max(self._phases(bits, chosen))
        largest = math.ceil(worst - ROUNDING_BYTES)
        seconds = None if self.seconds is None else _total(self.seconds, bits)
        runs = [
            o for o, u in zip(self.graph.operations, self.needs.needed_by, strict=True) if u & bits
        ]
        return StepCost(
            peak_bytes=base + weights + state + largest,
            base_bytes=base,
            weight_bytes=weights,
            state_bytes=state,
            activation_bytes=largest,
            peak_at=at,
            flops=_total(self.operation_flops(), bits),
            moved_bytes=sum(moved_bytes(o, self.graph.tensor_bytes) for o in runs)
            * self._micro_batches,
            seconds=seconds,
            joules=step_joules(seconds, self.profile),
        )

    def _phases(self, bits: int, chosen: Sequence[int]) -> list[tuple[float, str]]:
        """Bytes and names of the moments that may be the worst of a step."""
        worst = max(self.moments.worst(selection_level(bits)), key=lambda m: m.bytes)
        workspace = max((b for b, users in self.workspaces() if users & bits), default=0)
        return [
            (
                ALLOCATOR_OVERHEAD * (worst.bytes + self.feeds) + workspace,
                self.graph.operations[worst.operation].name,
            ),
            (self.loading_bytes(), "loading"),
            (max((self.update_bytes(index) for index in chosen), default=0), "update"),
            (sum(self.checkpoint_bytes(index) for index in chosen), "checkpoint"),
        ]

    def _weights(self) -> Amounts:
        """Every weight once, for as long as an operation that reads it is needed."""
        made = {name for operation in self.graph.operations for name in operation.outputs}
        others = made.union(self.graph.inputs, self.graph.labels)
        users: dict[str, int] = {}
        for index, operation in enumerate(self.graph.operations):
            for name in operation.inputs:
                if name not in others:
                    in_int8 = index in self._int8.weights.get(name, ())
                    mask = self._int8.leaving[index] if in_int8 else self.needs.needed_by[index]
                    users[name] = users.get(name, 0) | mask
        small = {name: self._int8.bytes_of(name, self.graph) for name in self._int8.weights}
        return [
            *((size, self.needs.always) for size in small.values()),
            *((self.graph.tensor_bytes[n] - small.get(n, 0), mask) for n, mask in users.items()),
        ]

    def _seconds(self) -> Amounts | None:
        amounts: Amounts = []
        makers = {name: made for made in self.graph.operations for name in made.outputs}
        for index, users in enumerate(self.needs.needed_by):
            seconds = operation_seconds(self.graph.operations[index], self.graph, self.profile)
            if seconds is None:
                return None
            ways = [prefix_seconds(index, self.graph, self.needs, makers, self.profile)]
            if index in self._int8.leaving:  # never slower than fp32, so that it is tried first
                ways.append(int8_seconds(self._int8, index, self.graph, self.profile))
            frozen = min((way for way in ways if way is not None), default=seconds)
            if frozen < seconds:
                more = (seconds - frozen) * self._micro_batches
                amounts.append((more, self.needs.trained_by(index)))
                seconds = frozen
            amounts.append((seconds * self._micro_batches, users))
        for index, size in enumerate(self._sizes):
            seconds = update_seconds(size, self._micro_batches, self._kind, self.profile)
            if seconds is None:
                return None
            amounts.append((seconds, 1 << index))
        return amounts


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
    and optimizer state are updated in place. Raises SelectionError.
    """
    costs = StepCosts(graph, batch, optimizer, profile)
    return costs.cost(costs.bits_of(selection))


def _bits(mask: int) -> list[int]:
    return [index for index in range(mask.bit_length()) if mask >> index & 1]


def _total(amounts: Amounts, bits: int) -> float:
    return sum(amount for amount, users in amounts if users & bits)
