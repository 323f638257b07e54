"""What a selection needs of the dense step, and where the frozen prefix ends.

Every operation of the backward is needed exactly when a selected parameter's gradient lies
downstream of it. Of what is needed, everything that depends on data but on no trainable tensor and
no label is the frozen prefix: an ordinary inference graph.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edgetune.nouns.selection import Selection
from edgetune.nouns.step_graph import Operation, StepGraph

# An operation is light when it costs at most this many FLOPs per byte written: masks, transposes
# and position embeddings are, layers and reductions are not.
_LIGHT_FLOPS_PER_BYTE = 4.0


@dataclass(frozen=True)
class Split:
    """The step of one selection, each part in execution order.

    constants: operations on frozen weights alone, which the runtime computes once at load.
    prefix: operations of the frozen prefix. features: the tensors it hands to the tail.
    tail: everything else, up to loss and gradients. tail_inputs: data inputs that it reads itself.
    """

    constants: tuple[Operation, ...]
    prefix: tuple[Operation, ...]
    features: tuple[str, ...]
    tail: tuple[Operation, ...]
    tail_inputs: tuple[str, ...]


def results_of(graph: StepGraph, selection: Selection) -> tuple[str, ...]:
    """The tensors that a step of `selection` must produce."""
    gradients = [candidate.gradient for candidate in graph.selected(selection)]
    return tuple(name for name in (graph.loss, graph.correct, *gradients) if name)


def needed_operations(graph: StepGraph, results: Iterable[str]) -> tuple[Operation, ...]:
    """The operations that `results` depend on, in execution order."""
    wanted = set(results)
    kept = []
    for operation in reversed(graph.operations):
        if wanted.intersection(operation.outputs):
            kept.append(operation)
            wanted.update(operation.inputs)
    return tuple(reversed(kept))


def reached_from(operations: Iterable[Operation], sources: Iterable[str]) -> set[str]:
    """The tensors that depend on `sources`, themselves included."""
    reached = set(sources)
    for operation in operations:
        if reached.intersection(operation.inputs):
            reached.update(operation.outputs)
    return reached


def split_step(graph: StepGraph, selection: Selection) -> Split:
    """Split the step of `selection` into constants, frozen prefix and tail."""
    operations = needed_operations(graph, results_of(graph, selection))
    on_data = reached_from(operations, graph.inputs)
    on_training = reached_from(operations, (*selection.trainable, *graph.labels))
    constants = tuple(o for o in operations if not _any(o, on_data) and not _any(o, on_training))
    prefix = tuple(o for o in operations if _any(o, on_data) and not _any(o, on_training))
    tail = tuple(o for o in operations if _any(o, on_training))
    again = _repeated_in_tail(graph, prefix, tail)
    tail = tuple(o for o in operations if _any(o, on_training) or o in again)
    features = _crossing(tuple(o for o in prefix if o not in again), tail)
    prefix = tuple(o for o in needed_operations(graph, features) if o in set(prefix))
    read = {name for operation in tail for name in operation.inputs}
    tail_inputs = tuple(name for name in graph.inputs if name in read)
    return Split(constants, prefix, features, tail, tail_inputs)


def _any(operation: Operation, tensors: set[str]) -> bool:
    return any(name in tensors for name in operation.outputs)


def _crossing(prefix: Iterable[Operation], tail: Iterable[Operation]) -> tuple[str, ...]:
    """Tensors made in the prefix and read in the tail, in the order they are made."""
    read = {name for operation in tail for name in operation.inputs}
    return tuple(name for o in prefix for name in o.outputs if name in read)


def _repeated_in_tail(
    graph: StepGraph, prefix: tuple[Operation, ...], tail: tuple[Operation, ...]
) -> set[Operation]:
    """Light operations of the prefix that the tail does itself, so that less is handed over.

    A feature is made in the tail when light operations lead to it from what is there anyway: other
    features, weights, data inputs. So a rearranged copy of a feature, or a mask made of the inputs,
    never crosses.
    """
    makers = {name: operation for operation in prefix for name in operation.outputs}
    chosen: set[Operation] = set()
    # From the last feature to the first, so that a copy gives way to what it is a copy of.
    for feature in reversed(_crossing(prefix, tail)):
        read = {name for operation in (*tail, *chosen) for name in operation.inputs}
        features = {n for n in read if n in makers and makers[n] not in chosen and n != feature}
        path = _light_path(graph, feature, makers, features)
        if path is not None:
            chosen |= path
    return chosen


def _light_path(
    graph: StepGraph, tensor: str, makers: dict[str, Operation], there: set[str]
) -> set[Operation] | None:
    """The light operations that make `tensor` from what is `there`, None when one is not light."""
    path: set[Operation] = set()
    open_tensors = [tensor]
    while open_tensors:
        maker = makers[open_tensors.pop()]
        if not is_light(graph, maker):
            return None
        path.add(maker)
        open_tensors += [n for n in maker.inputs if n in makers and n not in there]
    return path


def is_light(graph: StepGraph, operation: Operation) -> bool:
    """Whether an operation costs no more than a few FLOPs per byte that it writes.

    Rows looked up in a larger weight do not: whoever repeats that loads the whole weight again.
    """
    if operation.operator_class not in ("elementwise", "transpose", "view"):
        return False
    written = sum(graph.tensor_bytes[name] for name in operation.outputs)
    table = operation.inputs[0] if operation.reads_in_part else ""
    if table in graph.parameters and graph.tensor_bytes[table] > written:
        return False
    return operation.flops <= _LIGHT_FLOPS_PER_BYTE * written
