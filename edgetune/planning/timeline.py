"""What is alive when in the step of a selection, and what holds the peak.

The same simulation that the plan's cost is made of, written out: the peak is the plan's own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from edgetune.nouns.cost import StepCost
from edgetune.nouns.selection import Selection
from edgetune.nouns.step_graph import Operation
from edgetune.nouns.timeline import (
    END_OF_STEP,
    THE_BATCH,
    Holder,
    Phase,
    Timeline,
    TimelineMoment,
)
from edgetune.planning.buffers import Buffer
from edgetune.planning.moments import Loads, Moment, selection_level
from edgetune.planning.process_memory import ALLOCATOR_OVERHEAD
from edgetune.planning.program import members
from edgetune.planning.split import split_step
from edgetune.planning.step_cost import ROUNDING_BYTES, StepCosts


def timeline_of(costs: StepCosts, selected: int) -> Timeline:
    """The timeline of the selection with that bitmask, which is not empty."""
    return _Step(costs, selected).timeline()


class _Step:
    def __init__(self, costs: StepCosts, selected: int) -> None:
        self._costs, self._graph, self._needs = costs, costs.graph, costs.needs
        self._chosen = members(selected)
        self._bits = selected | costs.needs.always
        chosen = Selection.of([costs.graph.candidates[i] for i in self._chosen])
        self._split = split_step(costs.graph, chosen)
        self._runs = [i for i, users in enumerate(costs.needs.needed_by) if users & self._bits]
        self._phases = self._phase_of_each()

    def timeline(self) -> Timeline:
        cost = self._costs.cost(self._bits & ~self._needs.always)
        worst, loads = self._worst()
        workspace = max(
            (b for b, users in self._costs.workspaces() if users & self._bits), default=0
        )
        live = ALLOCATOR_OVERHEAD * (loads + self._costs.feeds) + workspace
        operations = self._graph.operations
        update = max(self._costs.update_bytes(i) for i in self._chosen)
        copies = sum(self._costs.checkpoint_bytes(i) for i in self._chosen)
        moments = [
            _phase("loading", self._costs.loading_bytes()),
            *(_moment(self._phases[i], operations[i], live[i]) for i in self._runs),
            _phase("update", update),
            _phase("checkpoint", copies),
        ]
        peak = [moment.operator for moment in moments].index(cost.peak_at)
        in_step = moments[peak].phase in ("prefix", "forward", "backward")
        holders = self._holders(worst) if in_step else self._around_the_step(cost)
        return Timeline(
            cost,
            tuple(moments),
            peak,
            tuple(sorted(holders, key=lambda h: (-h.bytes, h.tensor))),
            ALLOCATOR_OVERHEAD if in_step else 1.0,
            int(workspace) if in_step else 0,
        )

    def _worst(self) -> tuple[Moment, Loads]:
        """The worst moment of the step's graphs, and the load at every moment.

        Of the places where the trained part may begin, the cost is that of the worst; of equal ones
        the one that holds most nearly what the prefix really hands over.
        """
        level = selection_level(self._bits)
        loads = dict(self._costs.moments.loads(level))
        worst = max(self._costs.moments.worst(level), key=lambda m: m.bytes)
        equal = [place for place, load in loads.items() if load[worst.operation] == worst.bytes]
        features = set(self._split.features)
        place = min(equal, key=lambda p: len(features ^ {b.name for b in self._at_the_end(p)}))
        return replace(worst, boundary=place), loads[place]

    def _at_the_end(self, place: int) -> list[Buffer]:
        last = Moment(place, len(self._graph.operations) - 1, 0.0)
        return self._costs.moments.alive_at(last, self._bits)

    def _phase_of_each(self) -> list[Phase]:
        """Of every operation of the dense step; the backward begins with the loss."""
        prefix = {operation.name for operation in self._split.prefix}
        phases: list[Phase] = []
        phase: Phase = "forward"
        for operation in self._graph.operations:
            if not set(self._graph.labels).isdisjoint(operation.inputs):
                phase = "backward"
            phases.append("prefix" if operation.name in prefix else phase)
        return phases

    def _holders(self, worst: Moment) -> Iterable[Holder]:
        for name in (*self._graph.inputs, *self._graph.labels):
            yield Holder(name, self._graph.tensor_bytes[name], THE_BATCH, END_OF_STEP)
        at_the_end = set(self._at_the_end(worst.boundary))
        for buffer in self._costs.moments.alive_at(worst, self._bits):
            maker, reader = self._graph.operations[buffer.made_at], self._last_reader(buffer)
            # What nobody needs at the worst moment is there as a result of the prefix, or counts as
            # if it were: the cost is that of the worst place where the trained part may begin.
            of_prefix = buffer in at_the_end and self._phases[buffer.made_at] == "prefix"
            is_result = buffer.name in (self._graph.loss, self._graph.correct)
            held = of_prefix or is_result or not self._needed(buffer, worst.operation)
            until = (END_OF_STEP, "") if held else (reader.name, reader.module)
            yield Holder(buffer.name, buffer.bytes, maker.name, until[0], maker.module, until[1])

    def _needed(self, buffer: Buffer, operation: int) -> bool:
        return any(
            segment.start <= operation < segment.stop and segment.users & self._bits
            for segment in buffer.life
        )

    def _last_reader(self, buffer: Buffer) -> Operation:
        ran = set(self._runs)
        readers = [use.operation for use in buffer.uses if use.operation in ran]
        return self._graph.operations[max(readers, default=buffer.made_at)]

    def _around_the_step(self, cost: StepCost) -> Iterable[Holder]:
        """Copies of the largest weight that is loaded, or of what is trained of some."""
        at, candidates = cost.peak_at, self._graph.candidates
        if at == "loading":
            yield Holder("copies of the largest convolution", cost.activation_bytes, at, at)
        elif at == "update":
            largest = max(self._chosen, key=self._costs.update_bytes)
            name = candidates[largest].name
            yield Holder(f"temporaries of {name}", cost.activation_bytes, at, at)
        else:
            for i in self._chosen:
                copies = int(self._costs.checkpoint_bytes(i))
                if copies:
                    yield Holder(f"copies of {candidates[i].name}", copies, at, at)


def _phase(phase: Phase, live: float) -> TimelineMoment:
    return TimelineMoment(phase, phase, "", "", _whole(live))


def _moment(phase: Phase, operation: Operation, live: float) -> TimelineMoment:
    kind, module = operation.operator_class, operation.module
    return TimelineMoment(phase, operation.name, module, kind, _whole(live))


def _whole(count: float) -> int:
    return max(math.ceil(count - ROUNDING_BYTES), 0)
