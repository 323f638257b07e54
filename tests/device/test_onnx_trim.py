from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgetune.errors import BundleError
from edgetune.files.onnx_model import Node, onnx_model
from edgetune.files.onnx_tensor import external_tensor, new_tensor
from edgetune.files.onnx_trim import freeze_inputs, join_models, trim_model, without_inputs
from edgetune.files.onnx_weights import initializer_names
from edgetune.files.protobuf_wire import bytes_field, read_bytes, read_fields
from edgetune.runtime.onnxruntime_packages import import_onnxruntime

X = np.arange(1, 7, dtype=np.float32).reshape(2, 3)
W, V = X + 0.5, -X

NODES = [
    Node("Mul", ("x", "w"), ("a",)),
    Node("Neg", ("a",), ("b",)),
    Node("Add", ("x", "v"), ("c",)),
    Node("Split", ("a", "sizes"), ("d", "e", "f"), {"axis": 1}),
]
CONSTANTS = {"v": V, "unread": W, "sizes": np.array([1, 1, 1], np.int64)}
MODEL = onnx_model(NODES, {"x": X, "w": W}, ("b", "c", "d"), CONSTANTS)


def session_of(model: bytes) -> Any:
    onnxruntime = import_onnxruntime()
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def run(model: bytes, **feeds: Any) -> dict[str, Any]:
    session = session_of(model)
    names = [result.name for result in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def inputs(model: bytes) -> list[str]:
    return [i.name for i in session_of(model).get_inputs()]


def graph_fields(model: bytes) -> list[bytes]:
    (graph,) = [read_bytes(f) for f in read_fields(memoryview(model)) if f.number == 7]
    return [bytes(field.whole) for field in read_fields(graph)]


# trim_model -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outputs", "read", "held", "nodes"),
    [
        pytest.param(["b"], ["x", "w"], (), 2, id="one-output"),
        pytest.param(["c"], ["x"], ("v",), 1, id="an-input-and-constants-go"),
        pytest.param(["c", "b"], ["x", "w"], ("v",), 3, id="two-in-the-models-order"),
        pytest.param(["a", "b"], ["x", "w"], (), 2, id="a-tensor-that-was-no-output"),
    ],
)
def test_what_no_output_needs_goes_and_the_rest_keeps_bytes_and_order(
    outputs: list[str], read: list[str], held: tuple[str, ...], nodes: int
) -> None:
    trimmed = trim_model(MODEL, outputs)
    whole = run(MODEL, x=X, w=W) | {"a": X * W}
    found = run(trimmed, **{name: {"x": X, "w": W}[name] for name in read})
    assert set(found) == set(outputs)
    assert list(found)[: len(outputs)] == sorted(outputs, key=["b", "c", "a"].index)
    for name in outputs:
        np.testing.assert_array_equal(found[name], whole[name])
    assert inputs(trimmed) == read
    assert initializer_names(trimmed) == held
    before, after = graph_fields(MODEL), graph_fields(trimmed)
    kept = [field for field in after if field in before]
    assert kept == [field for field in before if field in after]
    assert len(after) - len(kept) == len({"a"} & set(outputs))  # what was no output before
    assert sum(field[0] == 1 << 3 | 2 for field in after) == nodes


def test_nothing_to_trim_leaves_the_bytes() -> None:
    model = onnx_model(NODES[:3], {"x": X, "w": W}, ("b", "c"), {"v": V})
    assert trim_model(model, ["b", "c"]) == model


def test_last_results_that_nobody_reads_go_and_those_before_one_that_is_read_stay() -> None:
    few = onnx_model(
        [Node("TopK", ("x", "k"), ("y", "places"))],
        {"x": X},
        ("y",),
        {"k": np.array([1], np.int64)},
    )
    assert b"places" in few and b"places" not in trim_model(few, ["y"])
    assert b"y" in trim_model(few, ["places"])
    assert run(trim_model(few, ["places"]), x=X)["places"].tolist() == [[2], [2]]


def test_a_given_tensor_is_an_input_and_what_made_it_goes() -> None:
    trimmed = trim_model(MODEL, ["b"], {"a": X})
    assert inputs(trimmed) == ["a"]
    np.testing.assert_array_equal(run(trimmed, a=X)["b"], -X)
    assert inputs(trim_model(MODEL, ["c"], {"a": X})) == ["x"]  # one that nobody reads is none


def test_an_output_has_the_type_of_its_array() -> None:
    (output,) = session_of(trim_model(MODEL, ["a"], {"a": X})).get_outputs()
    assert (output.name, output.type, output.shape) == ("a", "tensor(float)", [2, 3])


def test_what_is_read_inside_of_a_subgraph_is_kept() -> None:
    inner = graph_of(onnx_model([Node("Neg", ("c",), ("n",))], {}, ("n",), {}))
    branch = b"".join(bytes(c) for name in (b"then_branch", b"else_branch") for c in
                      bytes_field(5, [memoryview(attribute(name, inner))]))  # fmt: skip
    names = b"".join(bytes(c) for number, text in ((1, b"yes"), (2, b"y"), (4, b"If"))
                     for c in bytes_field(number, [memoryview(text)]))  # fmt: skip
    plain = onnx_model(NODES, {"x": X, "w": W}, ("y",), {**CONSTANTS, "yes": np.array(True)})
    node = b"".join(bytes(c) for c in bytes_field(1, [memoryview(names + branch)]))
    fields = graph_fields(plain)
    graph = b"".join([*fields[: len(NODES)], node, *fields[len(NODES) :]])
    model = with_graph(plain, graph)
    trimmed = trim_model(model, ["y"])
    assert initializer_names(trimmed) == ("v", "yes")
    np.testing.assert_array_equal(run(trimmed, x=X)["y"], -(X + V))


def graph_of(model: bytes) -> bytes:
    return b"".join(graph_fields(model))


def attribute(name: bytes, graph: bytes) -> bytes:
    chunks = [*bytes_field(1, [memoryview(name)]), *bytes_field(6, [memoryview(graph)])]
    return b"".join([*chunks, bytes([20 << 3 & 0x7F | 0x80, 1, 5])])  # type: GRAPH


def with_graph(model: bytes, graph: bytes) -> bytes:
    chunks = []
    for field in read_fields(memoryview(model)):
        chunks += bytes_field(7, [memoryview(graph)]) if field.number == 7 else [field.whole]
    return b"".join(chunks)


@pytest.mark.parametrize(
    ("model", "outputs", "part"),
    [
        pytest.param(MODEL, ["b", "z"], "no node makes 'z'", id="output"),
        pytest.param(b"", ["b"], "0 graphs, expected one", id="no-model"),
        pytest.param(MODEL[:-20], ["b"], "damaged protobuf message", id="cut-off"),
    ],
)
def test_what_cannot_be_trimmed_is_refused(model: bytes, outputs: list[str], part: str) -> None:
    with pytest.raises(BundleError, match=part):
        trim_model(model, outputs)


# join_models ----------------------------------------------------------------------------------

FIRST = onnx_model(NODES[:1], {"x": X, "w": W}, ("a",), {})
SECOND = onnx_model(
    [Node("Neg", ("a",), ("b",)), Node("Add", ("x", "v"), ("c",))],
    {"a": X, "x": X},
    ("b", "c"),
    {"v": V},
)


def test_joined_models_compute_what_they_compute_one_after_the_other() -> None:
    joined = join_models(FIRST, SECOND, ["a", "b", "c"])
    expected = run(SECOND, x=X, **run(FIRST, x=X, w=W))
    found = run(joined, x=X, w=W)
    assert set(found) == set(expected) and set(inputs(joined)) == {"x", "w"}
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
    assert join_models(SECOND, joined, ["a", "b", "c"]) == joined  # both have all of it


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        pytest.param(["a", "b", "c"], ["Mul", "Neg", "Add"], id="as-they-are"),
        pytest.param(["c", "a", "b"], ["Add", "Mul", "Neg"], id="another"),
        pytest.param(["a", "b"], ["Mul", "Neg", "Add"], id="behind-the-one-before"),
    ],
)
def test_joined_nodes_run_in_the_order_that_is_asked_for(
    order: list[str], expected: list[str]
) -> None:
    nodes = graph_fields(join_models(FIRST, SECOND, order))[:3]
    assert [next(kind for kind in expected if kind.encode() in n) for n in nodes] == expected


# without_inputs -------------------------------------------------------------------------------

SUM = onnx_model(
    [
        Node("Neg", ("x",), ("a",)),
        Node("Neg", ("w",), ("b",)),
        Node("Sum", ("a", "b"), ("s",)),
        Node("Mul", ("s", "x"), ("p",)),
        Node("Mul", ("s", "w"), ("q",)),
        Node("Add", ("q", "v"), ("r",)),
    ],
    {"x": X, "w": W},
    ("s", "p", "q", "r"),
    {"v": V},
)


def test_without_an_input_a_sum_loses_its_term_and_all_that_depends_on_it_goes() -> None:
    left = without_inputs(SUM, ["w"])
    assert inputs(left) == ["x"] and initializer_names(left) == ()
    found = run(left, x=X)
    np.testing.assert_array_equal(found.pop("s"), -X)
    np.testing.assert_array_equal(found.pop("p"), -X * X)
    assert not found


def test_without_no_input_the_bytes_stay_also_of_an_input_that_nobody_reads() -> None:
    assert without_inputs(SUM, []) == SUM
    unread = onnx_model(NODES[1:2], {"a": X, "step": X}, ("b",), {})
    assert without_inputs(unread, []) == unread != trim_model(unread, ["b"])


def test_a_sum_without_terms_goes() -> None:
    assert graph_fields(without_inputs(SUM, ["x", "w"])) == [b"\x12\x05graph"]


# freeze_inputs --------------------------------------------------------------------------------


def test_a_frozen_input_is_an_initializer_and_other_names_are_left_out() -> None:
    tensors = {"w": b"".join(new_tensor("w", W)), "none": b"".join(new_tensor("none", W))}
    frozen = freeze_inputs(MODEL, tensors)
    assert inputs(frozen) == ["x"]
    assert set(initializer_names(frozen)) == {"v", "unread", "sizes", "w"}
    np.testing.assert_array_equal(run(frozen, x=X)["b"], -X * W)
    assert freeze_inputs(MODEL, {}) == MODEL


def test_a_frozen_input_may_lie_in_another_file(tmp_path: Any) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(64) + W.tobytes())
    frozen = freeze_inputs(MODEL, {"w": b"".join(external_tensor("w", W, "w.bin", 64))})
    (tmp_path / "m.onnx").write_bytes(trim_model(frozen, ["b"]))
    np.testing.assert_array_equal(run(str(tmp_path / "m.onnx"), x=X)["b"], -X * W)
