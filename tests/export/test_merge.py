from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgetune.errors import BundleError, StorageError
from edgetune.files.delta import apply_delta_to_model, read_delta, write_delta
from edgetune.runtime.merge import merge

Arrays = dict[str, npt.NDArray[Any]]


def random(*shape: int, seed: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


FROZEN: Arrays = {
    "conv.weight": random(8, 3, 3, 3, seed=1),
    "conv.bias": random(8, seed=2),
    "flat": np.array([0, -1], np.int64),
}
TRAINABLE: Arrays = {"head.weight": random(5, 8 * 6 * 6, seed=3), "head.bias": random(5, seed=4)}
TUNED: Arrays = {**TRAINABLE, "head.weight": TRAINABLE["head.weight"] * np.float32(1.1)}
IMAGES = random(4, 3, 8, 8, seed=5)


def classifier() -> list[NodeProto]:
    return [
        helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Reshape", ["r", "flat"], ["f"]),
        helper.make_node("Gemm", ["f", "head.weight", "head.bias"], ["y"], transB=1),
    ]


def branching() -> list[NodeProto]:
    """A branch that reads the trainable tensors from the graph around it."""
    output = helper.make_tensor_value_info("b", TensorProto.FLOAT, None)
    node = helper.make_node("Gemm", ["f", "head.weight", "head.bias"], ["b"], transB=1)
    branch = helper.make_graph([node], "branch", [], [output])
    zero = numpy_helper.from_array(np.zeros((), np.float32))
    return [
        *classifier()[:3],
        helper.make_node("Constant", [], ["zero"], value=zero),
        helper.make_node("ReduceMax", ["f"], ["largest"], keepdims=0),
        helper.make_node("Greater", ["largest", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["y"], then_branch=branch, else_branch=branch),
    ]


GRAPHS: dict[str, Callable[[], list[NodeProto]]] = {"classifier": classifier, "branch": branching}


def predict_graph(nodes: list[NodeProto]) -> ModelProto:
    """An inference graph as in a portable bundle, its frozen weights still inside."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])]
    inputs += [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape)
        for name, array in TRAINABLE.items()
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5])
    weights = [numpy_helper.from_array(array, name) for name, array in FROZEN.items()]
    graph = helper.make_graph(nodes, "predict", inputs, [output], weights)
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, ir_version=8, opset_imports=[opset])


def write_bundle(folder: Path, nodes: list[NodeProto]) -> Path:
    folder.mkdir(parents=True)
    onnx.save_model(
        predict_graph(nodes),
        folder / "predict.onnx",
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location="frozen.bin",
        size_threshold=64,  # onnxruntime reads shapes from inside of the graph only
    )
    return folder / "predict.onnx"


@pytest.fixture
def predict(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle", classifier())


def run(model: Path, feeds: Arrays, prepacking: bool = False) -> npt.NDArray[np.float32]:
    """The predictions. prepacking: lay constant weights out anew, as onnxruntime does by default.

    Then a Gemm adds up in another order when its weights are constant than when they are fed, and
    the last bit differs: that is onnxruntime's doing, so what merge did is compared without it.
    """
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_prepacking", "0" if prepacking else "1")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    assert {value.name for value in session.get_inputs()} == set(feeds)
    result: npt.NDArray[np.float32] = session.run(None, feeds)[0]
    return result


@pytest.mark.parametrize("graph", GRAPHS)
def test_the_merged_model_predicts_as_the_fed_graph_bit_for_bit(tmp_path: Path, graph: str) -> None:
    source = write_bundle(tmp_path / "bundle", GRAPHS[graph]())
    out = tmp_path / "alone" / "model.onnx"
    merge(source, TUNED, out)
    onnx.checker.check_model(out, full_check=True)
    expected = run(source, {"x": IMAGES, **TUNED})
    by_default = run(source, {"x": IMAGES, **TUNED}, prepacking=True)
    (source.parent / "frozen.bin").unlink()  # the merged model must need nothing else
    assert run(out, {"x": IMAGES}).tobytes() == expected.tobytes()
    rounded = run(out, {"x": IMAGES}, prepacking=True)
    np.testing.assert_allclose(rounded, by_default, rtol=1e-5, atol=1e-5)
    assert np.abs(expected).max() > 0.1


def test_all_weights_are_in_the_merged_model(predict: Path, tmp_path: Path) -> None:
    merge(predict, TUNED, tmp_path / "model.onnx")
    graph = onnx.load(tmp_path / "model.onnx", load_external_data=False).graph
    assert not any(onnx.external_data_helper.uses_external_data(t) for t in graph.initializer)
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    assert list(found) == [*FROZEN, *TRAINABLE]
    for name, array in {**FROZEN, **TUNED}.items():
        assert found[name].tobytes() == array.tobytes()


def test_a_model_may_be_merged_again(predict: Path, tmp_path: Path) -> None:
    merge(predict, TRAINABLE, tmp_path / "base.onnx")
    merge(tmp_path / "base.onnx", TUNED, tmp_path / "again.onnx")
    merge(predict, TUNED, tmp_path / "tuned.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "tuned.onnx").read_bytes()


def test_a_delta_on_the_merged_base_is_the_merged_tuned_model(
    predict: Path, tmp_path: Path
) -> None:
    merge(predict, TRAINABLE, tmp_path / "base.onnx")
    merge(predict, TUNED, tmp_path / "tuned.onnx")
    write_delta(tmp_path / "delta", TRAINABLE, TUNED, "abc")
    delta = read_delta(tmp_path / "delta")
    assert list(delta.tensors) == ["head.weight"]
    apply_delta_to_model(delta, tmp_path / "base.onnx", tmp_path / "applied.onnx")
    assert (tmp_path / "applied.onnx").read_bytes() == (tmp_path / "tuned.onnx").read_bytes()
    with pytest.raises(BundleError, match=r"tuned.onnx: .*head.weight: holds other values"):
        apply_delta_to_model(delta, tmp_path / "tuned.onnx", tmp_path / "twice.onnx")
    # In predict.onnx they are inputs: no values there to compare, so nothing to apply to.
    with pytest.raises(BundleError, match=r"head.weight: not among the base values"):
        apply_delta_to_model(delta, predict, tmp_path / "wrong.onnx")


def damage(file: str, size: int | None) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / file
        data = path.read_bytes()
        path.unlink()
        if size is not None:
            path.write_bytes(data[:size])

    return apply


def nothing(folder: Path) -> None:
    """Damage no file."""


CASES: dict[str, tuple[Callable[[Path], None], Arrays, str]] = {
    "no graph": (damage("predict.onnx", None), TUNED, "cannot read the model: No such file"),
    "graph cut": (damage("predict.onnx", -5), TUNED, "damaged protobuf message"),
    "no weights": (damage("frozen.bin", None), TUNED, "conv.weight: cannot read .*frozen.bin"),
    "weights cut": (damage("frozen.bin", 64), TUNED, "which has 64 bytes: the file is damaged"),
    "unknown name": (
        nothing,
        {**TUNED, "haed.bias": TUNED["head.bias"]},
        "no graph input or initializer 'haed.bias'; the nearest names are head.bias",
    ),
    "shape": (
        nothing,
        {"head.bias": np.zeros(6, np.float32)},
        r"head.bias: found float32\[6\], expected float32\[5\]",
    ),
    "dtype": (
        nothing,
        {"head.bias": np.zeros(5)},
        r"head.bias: found float64\[5\], expected float32\[5\]",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_merged_leaves_the_old_model(
    predict: Path, tmp_path: Path, case: str
) -> None:
    damaging, values, message = CASES[case]
    damaging(predict.parent)
    out = tmp_path / "model.onnx"
    out.write_bytes(b"before")
    with pytest.raises(BundleError, match=rf"predict.onnx: .*{message}"):
        merge(predict, values, out)
    assert out.read_bytes() == b"before"
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "model.onnx"}


def test_a_place_that_cannot_be_written_is_a_storage_error(predict: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"cannot write .*model.onnx"):
        merge(predict, TUNED, tmp_path / "file" / "model.onnx")
