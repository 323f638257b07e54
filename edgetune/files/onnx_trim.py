"""Parts of an ONNX model: cut off, and put together, without the onnx package.

The model's bytes are taken apart down to its nodes, initializers, inputs and outputs. What stays
keeps its bytes, external data as well, and its order: all there is of one kind follows all there is
of the kind before, which is how protobuf writes it. Field numbers are those of onnx.proto3.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from edgetune.errors import BundleError, raise_all
from edgetune.files.onnx_model import value_info
from edgetune.files.onnx_tensor import read_head
from edgetune.files.protobuf_wire import (
    BYTES,
    Chunks,
    Field,
    bytes_field,
    last_text,
    read_bytes,
    read_fields,
    read_text,
)
from edgetune.nouns.loss import Array

_MODEL_GRAPH = 7
_NODE, _INITIALIZER, _INPUT, _OUTPUT, _VALUE_INFO = 1, 5, 11, 12, 13  # of GraphProto
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _OPERATOR, _ATTRIBUTE = 1, 2, 3, 4, 5  # of NodeProto
_SUBGRAPHS = (6, 11)  # of AttributeProto
_ANY_NUMBER_OF_TERMS = "Sum"

_NOTHING_GIVEN: Mapping[str, Array] = MappingProxyType({})


@dataclass(frozen=True)
class _Part:
    """A node, initializer, input or output; for any other field of a graph the name is "".

    reads: the tensors that a node's operator, or the graphs inside of it, may take from outside.
    """

    number: int
    whole: memoryview
    name: str = ""
    operator: str = ""
    reads: tuple[str, ...] = ()
    results: tuple[str, ...] = ()


def trim_model(
    model: bytes,
    outputs: Collection[str],
    given: Mapping[str, Array] = _NOTHING_GIVEN,
    inputs: Collection[str] = (),
) -> bytes:
    """`model` with these `outputs` alone, and with nothing that they do not need.

    Nodes, initializers and inputs that no output depends on go, and so do a node's last results
    where nobody reads them. outputs: those that are none yet come last, of a type that the runtime
    infers, or like the array of that name in `given`. given: any other tensor in it is not computed
    any more, but an input like its array. inputs: those that stay though nothing reads them.
    Raises BundleError for a damaged model, and naming the outputs that nothing makes.
    """
    parts = _parts(model)
    made = {name for part in parts for name in part.results}
    raise_all(
        BundleError,
        "cannot trim the model to these outputs",
        [f"no node makes {name!r}" for name in outputs if name not in made],
    )
    fed = {name for name in given if name not in outputs}
    wanted = set(outputs)
    nodes: list[_Part] = []
    for part in reversed([part for part in parts if part.number == _NODE]):
        if any(name in wanted and name not in fed for name in part.results):
            nodes.append(part)
            wanted.update(part.reads)
    kept = [_without_unread(node, wanted) for node in reversed(nodes)]
    there = wanted | {name for node in kept for name in node.results}
    expected = {
        _INITIALIZER: wanted - fed,
        _INPUT: {*wanted, *inputs},
        _OUTPUT: outputs,
        _VALUE_INFO: there,
    }
    kept += [
        part
        for part in parts
        if part.number != _NODE and (part.number not in expected or _is_in(part, expected))
    ]
    declared = {number: _names(kept, number) for number in (_INPUT, _OUTPUT)}
    kept += [
        _value(_INPUT, name, given[name])
        for name in given
        if name in fed & wanted and name not in declared[_INPUT]
    ]
    kept += [
        _value(_OUTPUT, name, given.get(name)) for name in outputs if name not in declared[_OUTPUT]
    ]
    return _written(model, kept)


def join_models(first: bytes, second: bytes, order: Sequence[str]) -> bytes:
    """`second` with the nodes, initializers and inputs of `first` that it lacks.

    What both have is the same tensor or node under the same name: an input of one that the other
    computes, or holds, is no input any more. order: names of nodes in the order in which they shall
    run; one that is not in it stays right behind the one before it. Raises BundleError.
    """
    ours, theirs = _parts(first), _parts(second)
    place = {name: index for index, name in enumerate(order)}
    placed = [*_placed(ours, place), *_placed(theirs, place)]
    nodes: dict[str, tuple[int, _Part]] = {}
    for where, part in placed:  # of one that is in both, the one with more results
        present = nodes.get(part.results[0])
        if present is None or len(present[1].results) < len(part.results):
            nodes[part.results[0]] = (where, part)
    joined = [part for _, part in sorted(nodes.values(), key=lambda item: item[0])]
    made = {name for part in joined for name in part.results}
    held = made | set(_names(ours, _INITIALIZER)) | set(_names(theirs, _INITIALIZER))
    for number in (_INITIALIZER, _INPUT):
        # A dictionary keeps the place of the first and the value of the last.
        named = {part.name: part for part in (*ours, *theirs) if part.number == number}
        joined += [p for name, p in named.items() if number == _INITIALIZER or name not in held]
    joined += [part for part in theirs if part.number not in (_NODE, _INITIALIZER, _INPUT)]
    return _written(second, joined)


def without_inputs(model: bytes, names: Collection[str]) -> bytes:
    """`model` without the inputs `names` and all that depends on them, outputs too.

    A Sum loses these terms alone, and goes only where none is left. Raises BundleError.
    """
    gone = set(names)
    kept: list[_Part] = []
    for part in _parts(model):
        if part.number == _NODE and not gone.isdisjoint(part.reads):
            terms = [name for name in part.reads if name not in gone]
            if part.operator == _ANY_NUMBER_OF_TERMS and terms:
                kept.append(_rewritten(part, _NODE_INPUT, terms))
            else:
                gone.update(part.results)
        elif part.number not in (_INPUT, _OUTPUT, _VALUE_INFO) or part.name not in gone:
            kept.append(part)
    # What only they needed is dead now; whoever feeds the other inputs finds them there still.
    outputs, inputs = _names(kept, _OUTPUT), _names(kept, _INPUT)
    return trim_model(_written(model, kept), outputs, inputs=inputs)


def freeze_inputs(model: bytes, tensors: Mapping[str, bytes]) -> bytes:
    """`model` with each input of a name in `tensors` as an initializer, that TensorProto.

    Names that are no inputs are left out. Raises BundleError.
    """
    parts = _parts(model)
    inputs = _names(parts, _INPUT)
    kept = [part for part in parts if part.number != _INPUT or part.name not in tensors]
    frozen = [
        _Part(_INITIALIZER, _joined(bytes_field(_INITIALIZER, [memoryview(tensor)])), name)
        for name, tensor in tensors.items()
        if name in inputs
    ]
    return _written(model, [*kept, *frozen])


def _is_in(part: _Part, expected: Mapping[int, Collection[str]]) -> bool:
    return part.name in expected[part.number]


def _names(parts: Iterable[_Part], number: int) -> tuple[str, ...]:
    return tuple(part.name for part in parts if part.number == number)


def _placed(parts: Iterable[_Part], place: Mapping[str, int]) -> list[tuple[int, _Part]]:
    """The nodes, each with its place; one that has none has that of the node before it."""
    placed: list[tuple[int, _Part]] = []
    last = -1
    for part in parts:
        if part.number == _NODE:
            last = place.get(part.name, last)
            placed.append((last, part))
    return placed


def _parts(model: bytes) -> list[_Part]:
    graphs = [read_bytes(f) for f in read_fields(memoryview(model)) if f.number == _MODEL_GRAPH]
    if len(graphs) != 1:
        raise BundleError(f"not an ONNX model: {len(graphs)} graphs, expected one")
    return [_part(field) for field in read_fields(graphs[0])]


def _part(field: Field) -> _Part:
    if field.number == _NODE:
        return _node(field.whole, read_bytes(field))
    if field.number == _INITIALIZER:
        return _Part(field.number, field.whole, read_head(read_bytes(field)).name)
    if field.number in (_INPUT, _OUTPUT, _VALUE_INFO):
        name = last_text(list(read_fields(read_bytes(field))), 1)
        return _Part(field.number, field.whole, name)
    return _Part(field.number, field.whole)


def _node(whole: memoryview, message: memoryview) -> _Part:
    fields = list(read_fields(message))
    reads = [read_text(f) for f in fields if f.number == _NODE_INPUT]
    for attribute in [read_bytes(f) for f in fields if f.number == _ATTRIBUTE]:
        for graph in [read_bytes(f) for f in read_fields(attribute) if f.number in _SUBGRAPHS]:
            inner = [_part(f) for f in read_fields(graph)]
            reads += [name for part in inner for name in part.reads]
            reads += _names(inner, _OUTPUT)  # which may be a tensor from outside
    return _Part(
        _NODE,
        whole,
        last_text(fields, _NODE_NAME),
        last_text(fields, _OPERATOR),
        tuple(name for name in reads if name),  # "" stands for an input that is left out
        tuple(read_text(f) for f in fields if f.number == _NODE_OUTPUT),
    )


def _without_unread(node: _Part, read: Collection[str]) -> _Part:
    """The node without its last results that nobody reads: a MaxPool has a faster kernel then."""
    count = len(node.results)
    while count > 1 and node.results[count - 1] not in read:
        count -= 1
    if count == len(node.results):
        return node
    return _rewritten(node, _NODE_OUTPUT, node.results[:count])


def _rewritten(node: _Part, number: int, names: Sequence[str]) -> _Part:
    """The node with those of the names in its fields `number` alone that are in `names`."""
    (field,) = read_fields(node.whole)
    kept = [
        inner.whole
        for inner in read_fields(read_bytes(field))
        if inner.number != number or inner.wire_type != BYTES or read_text(inner) in names
    ]
    whole = _joined(bytes_field(_NODE, kept))
    return _node(whole, _joined(kept))


def _value(number: int, name: str, like: Array | None) -> _Part:
    return _Part(number, _joined(bytes_field(number, value_info(name, like))), name)


def _joined(chunks: Chunks) -> memoryview:
    return memoryview(b"".join(chunks))


def _written(model: bytes, parts: Sequence[_Part]) -> bytes:
    """`model` with a graph of `parts`."""
    graph = [part.whole for part in sorted(parts, key=lambda part: part.number)]
    result: Chunks = []
    for field in read_fields(memoryview(model)):
        is_graph = field.number == _MODEL_GRAPH
        result += bytes_field(_MODEL_GRAPH, graph) if is_graph else [field.whole]
    return b"".join(result)
