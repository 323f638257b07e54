"""The weights of an ONNX model, read and replaced without the onnx package.

A device has neither onnx nor protobuf, and needs little of them: the model's bytes are taken apart
down to the initializers and put together again; everything else keeps its bytes. Field numbers are
those of onnx.proto3.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgetune.errors import BundleError, ExportError, nearest, raise_all
from edgetune.files.atomic import write_atomically
from edgetune.files.onnx_tensor import (
    DTYPES,
    TensorHead,
    dtype_name,
    external_bytes,
    new_tensor,
    raw_bytes,
    read_array,
    read_head,
    with_raw_data,
)
from edgetune.files.protobuf_wire import (
    Chunks,
    Field,
    bytes_field,
    last_integer,
    last_text,
    read_bytes,
    read_fields,
    read_integer,
)
from edgetune.nouns.loss import Array

_IR_VERSION, _GRAPH = 1, 7  # of ModelProto
_INITIALIZER, _INPUT = 5, 11  # of GraphProto
_NO_TENSOR = 0  # TensorProto.DataType.UNDEFINED
_FIRST_IR_WITHOUT_INPUTS = 4  # before, every initializer had to be a graph input as well
_PROTOBUF_LIMIT = 2**31 - 1  # bytes of a serialised message

# Where tensors are: for each message, its fields that hold messages with tensors in them.
_HOLDERS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "node": {5: "attribute"},
    "attribute": {
        **{5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
        **{22: "sparse tensor", 23: "sparse tensor"},
    },
    "sparse tensor": {1: "tensor", 2: "tensor"},
}


@dataclass(frozen=True)
class _Slot:
    """A place for a value. shape: None where the size is free; all of it None where unstated."""

    data_type: int
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        if self.data_type == _NO_TENSOR:
            return "something that is no tensor"
        if self.shape is None:
            return f"{dtype_name(self.data_type)} of any shape"
        sizes = ["?" if size is None else str(size) for size in self.shape]
        return f"{dtype_name(self.data_type)}[{', '.join(sizes)}]"

    def takes(self, value: Array) -> bool:
        if dtype_name(self.data_type) != value.dtype.name:
            return False
        if self.shape is None:
            return True
        return len(self.shape) == value.ndim and all(
            size in (None, found) for size, found in zip(self.shape, value.shape, strict=True)
        )


def initializer_names(model: bytes) -> tuple[str, ...]:
    """Names of the main graph's initializers, in the model's order. Raises BundleError."""
    return tuple(head.name for head, _ in _initializers(_graph(model)))


def read_initializers(
    model: bytes, folder: Path, names: Collection[str] | None = None
) -> dict[str, Array]:
    """The main graph's initializers by name, read-only, in the model's order.

    folder: where the model lies, for its external data. names: which ones, all of them without; a
    name the model lacks is left out. Raises BundleError for a damaged model or external file, and
    for an element type that numpy lacks.
    """
    return {
        head.name: read_array(tensor, folder)
        for head, tensor in _initializers(_graph(model))
        if names is None or head.name in names
    }


def with_initializers(model: bytes, values: Mapping[str, Array], folder: Path) -> bytes:
    """The model with `values` as its initializers, and no external data left.

    A graph input of such a name becomes an initializer; an initializer of such a name gets the
    value. External data of everything else, read from `folder`, is embedded. What is not touched
    keeps its bytes, and the same arguments give the same bytes.

    Raises BundleError for names the graph does not have, other shapes or types, and damaged files;
    ExportError where the result would exceed the 2 GiB that an ONNX file can have.
    """
    data = memoryview(model)
    fields = list(read_fields(data))
    graph = _graph(model)
    _check(values, _slots(graph))
    keep_inputs = last_integer(fields, _IR_VERSION) < _FIRST_IR_WITHOUT_INPUTS
    result: Chunks = []
    for field in fields:
        if field.number == _GRAPH:
            result += bytes_field(_GRAPH, _edit_graph(graph, values, folder, keep_inputs))
        else:
            result += _embed_field(field, "model", folder)
    size = sum(len(chunk) for chunk in result)
    if size > _PROTOBUF_LIMIT:
        raise ExportError(
            f"cannot make one ONNX file of the model: {size} bytes, at most {_PROTOBUF_LIMIT} "
            "are possible"
        )
    return b"".join(result)


def write_with_initializers(source: Path, values: Mapping[str, Array], out: Path) -> None:
    """Write the model at `source` with `values` as its initializers to `out`, atomically.

    Raises what `with_initializers` raises, naming `source`, and StorageError.
    """
    try:
        result = with_initializers(read_model(source), values, source.parent)
    except BundleError as error:
        raise BundleError(f"{source}: {error}") from None
    write_atomically(out, result)


def read_model(path: Path) -> bytes:
    """The bytes of the model at `path`. Raises BundleError when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"cannot read the model: {error.strerror}") from error


def _graph(model: bytes) -> memoryview:
    graphs = _children(memoryview(model), _GRAPH)
    if len(graphs) != 1:
        raise BundleError(f"not an ONNX model: {len(graphs)} graphs, expected one")
    return graphs[0]


def _initializers(graph: memoryview) -> list[tuple[TensorHead, memoryview]]:
    return [(read_head(tensor), tensor) for tensor in _children(graph, _INITIALIZER)]


def _slots(graph: memoryview) -> dict[str, _Slot]:
    """Every place of the graph that can take a value, by name."""
    inputs = dict(_input(value_info) for value_info in _children(graph, _INPUT))
    heads = [head for head, _ in _initializers(graph)]
    return inputs | {head.name: _Slot(head.data_type, head.shape) for head in heads}


def _input(value_info: memoryview) -> tuple[str, _Slot]:
    """Name and tensor type of a ValueInfoProto; a type that is no tensor takes no value."""
    name = last_text(list(read_fields(value_info)), 1)
    tensor_types = [t for type_ in _children(value_info, 2) for t in _children(type_, 1)]
    if not tensor_types:
        return name, _Slot(_NO_TENSOR, None)
    data_type = last_integer(list(read_fields(tensor_types[-1])), 1)
    shapes = _children(tensor_types[-1], 2)
    if not shapes:
        return name, _Slot(data_type, None)
    return name, _Slot(data_type, tuple(_size(dim) for dim in _children(shapes[-1], 1)))


def _size(dimension: memoryview) -> int | None:
    """The fixed size of a TensorShapeProto.Dimension, None where it is free."""
    sizes = [read_integer(field) for field in read_fields(dimension) if field.number == 1]
    return sizes[-1] if sizes else None


def _children(message: memoryview, number: int) -> list[memoryview]:
    return [read_bytes(field) for field in read_fields(message) if field.number == number]


def _check(values: Mapping[str, Array], slots: Mapping[str, _Slot]) -> None:
    problems = []
    for name, value in values.items():
        if name not in slots:
            problems.append(f"no graph input or initializer {name!r}{nearest(name, slots)}")
        elif not slots[name].takes(value):
            found = f"{value.dtype.name}{list(value.shape)}"
            problems.append(f"{name}: found {found}, expected {slots[name]}")
    raise_all(BundleError, "the values do not fit the model", problems)


def _edit_graph(
    graph: memoryview, values: Mapping[str, Array], folder: Path, keep_inputs: bool
) -> Chunks:
    """The GraphProto with `values` as initializers; new ones last, in the order of the inputs."""
    present = {head.name for head, _ in _initializers(graph)}
    result: Chunks = []
    added: Chunks = []
    for field in read_fields(graph):
        name = _name(field)
        if name is None or name not in values:
            result += _embed_field(field, "graph", folder)
        elif field.number == _INITIALIZER:
            data = raw_bytes(values[name])
            result += bytes_field(_INITIALIZER, with_raw_data(field.payload, data))
        else:
            if keep_inputs:
                result.append(field.whole)
            if name not in present:
                added += bytes_field(_INITIALIZER, new_tensor(name, values[name]))
    return [*result, *added]


def _name(field: Field) -> str | None:
    """The name of an initializer or graph input, None for any other field of a graph."""
    if field.number == _INITIALIZER:
        return read_head(read_bytes(field)).name
    return _input(read_bytes(field))[0] if field.number == _INPUT else None


def _embed_field(field: Field, holder: str, folder: Path) -> Chunks:
    """A field of a `holder` message, with the external data inside of it embedded."""
    kind = _HOLDERS[holder].get(field.number)
    if kind is None:
        return [field.whole]
    old = read_bytes(field)
    new = _embed_tensor(old, folder) if kind == "tensor" else _embed_message(old, kind, folder)
    return [field.whole] if _same(new, old) else bytes_field(field.number, new)


def _embed_message(message: memoryview, kind: str, folder: Path) -> Chunks:
    parts = [(field, _embed_field(field, kind, folder)) for field in read_fields(message)]
    if all(_same(new, field.whole) for field, new in parts):
        return [message]
    return [chunk for _, new in parts for chunk in new]


def _embed_tensor(tensor: memoryview, folder: Path) -> Chunks:
    head = read_head(tensor)
    if not head.is_external:
        return [tensor]
    if head.data_type in DTYPES:  # the size is then known, and checked
        data = raw_bytes(read_array(tensor, folder))
    else:
        data = external_bytes(tensor, folder)
    return with_raw_data(tensor, data)


def _same(chunks: Sequence[memoryview], whole: memoryview) -> bool:
    return len(chunks) == 1 and chunks[0] is whole
