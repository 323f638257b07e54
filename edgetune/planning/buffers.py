"""When each buffer of the dense step is alive, as a function of what is selected.

A buffer lives from the operation that makes it to its last reader among the operations that the
selection needs. Which one that is follows from sets of candidates alone, so that the memory of
every selection at every moment is known at once: `bytes` at moment t count when any of some
candidates is selected. Nothing is simulated twice and nothing is estimated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from edgetune.nouns.step_graph import Operation, StepGraph
from edgetune.planning.int8_prefix import NOTHING_IN_INT8, Int8Prefix
from edgetune.planning.needs import Needs


@dataclass(frozen=True)
class Segment:
    """Part of a buffer's life: moments `start` to `stop`, `stop` excluded.

    A moment is the index of the operation that runs. bytes: size of the buffer. users: the
    candidates any of which keeps it alive then.
    """

    start: int
    stop: int
    bytes: int
    users: int


@dataclass(frozen=True)
class Use:
    """A reader of a buffer: the operation's index, and the first moment at which it has read."""

    operation: int
    stop: int


@dataclass(frozen=True)
class Buffer:
    """Memory that an operation makes, and views of it.

    made_at: index of the operation. life: in order of time. uses: in order of the operations.
    """

    name: str
    made_at: int
    bytes: int
    life: tuple[Segment, ...]
    uses: tuple[Use, ...]


def buffers_of(
    graph: StepGraph, needs: Needs, int8: Int8Prefix = NOTHING_IN_INT8
) -> tuple[Buffer, ...]:
    """The buffers that a step allocates, in the order they are made.

    Views share their input's buffer. An in-place operation writes over its first input if
    that has the same size and nobody reads it later, as in onnxruntime. What nobody needs is left
    out. A result in 8 bits is two buffers: what it takes in any case, and what it takes more when
    it is fp32, because the operation is trained or the backward reads it.
    """
    drafts: dict[str, _Draft] = {}  # by every tensor that lies in them
    found: list[_Draft] = []
    for index, operation in enumerate(graph.operations):
        users = needs.needed_by[index]
        if not users:
            continue
        overwritten = _overwritten(graph, operation, drafts)
        for name in operation.inputs:
            if name in drafts:
                draft = drafts[name]
                stop = index if draft is overwritten else index + 1
                draft.uses.append((Use(index, stop), users))
        if operation.operator_class == "view":
            if operation.inputs[0] in drafts:
                drafts[operation.outputs[0]] = drafts[operation.inputs[0]]
            continue
        for name in operation.outputs:
            drafts[name] = _Draft(name, index, graph.tensor_bytes[name], users)
            found.append(drafts[name])
    end = len(graph.operations)
    for name in (graph.loss, graph.correct):
        if name in drafts:  # results stay to the end
            drafts[name].uses.append((Use(end - 1, end), needs.always))
    return tuple(buffer for draft in found for buffer in _finished(draft, graph, needs, int8))


def _finished(draft: _Draft, graph: StepGraph, needs: Needs, int8: Int8Prefix) -> Sequence[Buffer]:
    whole = draft.finished()
    small = int8.bytes_of(draft.name, graph)
    if small == whole.bytes:
        return [whole]
    rest, leaving = whole.bytes - small, int8.leaving[draft.made_at]
    in_fp32 = tuple(
        replace(part, bytes=rest, users=leaving if part.users & needs.always else part.users)
        for part in whole.life
    )
    in_any_case = tuple(replace(part, bytes=small) for part in whole.life)
    return [
        replace(whole, bytes=small, life=in_any_case),
        replace(whole, name=f"{whole.name} in fp32", bytes=rest, life=in_fp32),
    ]


@dataclass(eq=False)
class _Draft:
    name: str
    made_at: int
    bytes: int
    users: int
    uses: list[tuple[Use, int]] = field(default_factory=list)

    def finished(self) -> Buffer:
        return Buffer(
            self.name, self.made_at, self.bytes, self._life(), tuple(use for use, _ in self.uses)
        )

    def _life(self) -> tuple[Segment, ...]:
        """From the last reader backwards: whoever needs a later one keeps the buffer till then."""
        by_stop = {self.made_at + 1: self.users}
        for use, users in self.uses:
            by_stop[use.stop] = by_stop.get(use.stop, 0) | users
        stops = sorted(by_stop)
        segments = []
        users = 0
        for position in range(len(stops) - 1, -1, -1):
            users |= by_stop[stops[position]]
            start = stops[position - 1] if position else self.made_at
            segments.append(Segment(start, stops[position], self.bytes, users))
        return tuple(reversed(segments))


def _overwritten(
    graph: StepGraph, operation: Operation, drafts: dict[str, _Draft]
) -> _Draft | None:
    """The buffer that an in-place operation writes over where nobody needs it any more."""
    if not operation.in_place or operation.inputs[0] not in drafts:
        return None
    draft = drafts[operation.inputs[0]]
    return draft if draft.bytes == graph.tensor_bytes[operation.outputs[0]] else None
