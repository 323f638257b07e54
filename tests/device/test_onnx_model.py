from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetune.calibration.workloads import workloads
from edgetune.files.onnx_model import Node, onnx_model
from edgetune.nouns.bundle_names import FEATURES, GRADIENTS
from edgetune.nouns.profile import INT8, OPERATOR_CLASSES, PREFIX, UPDATE
from edgetune.runtime.onnx_session import adds_bytes_exactly, session_options
from edgetune.runtime.onnxruntime_packages import import_onnxruntime

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def run(nodes: list[Node], constants: dict[str, Any], output: str) -> Any:
    onnxruntime = import_onnxruntime()
    model = onnx_model(nodes, {"x": X}, (output,), constants)
    options = session_options(onnxruntime, GRADIENTS)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run([output], {"x": X})[0]


@pytest.mark.parametrize(
    ("node", "constants", "expected"),
    [
        pytest.param(Node("Neg", ("x",), ("y",)), {}, -X, id="no-attributes"),
        pytest.param(
            Node("Transpose", ("x",), ("y",), {"perm": (1, 0)}), {}, X.T, id="whole-numbers"
        ),
        pytest.param(Node("LeakyRelu", ("x",), ("y",), {"alpha": -2.0}), {}, X, id="a-real-number"),
        pytest.param(
            Node("Gemm", ("x", "w"), ("y",), {"transB": 1}),
            {"w": X},
            X @ X.T,
            id="a-whole-number-and-a-constant",
        ),
        pytest.param(
            Node("ReduceSum", ("x", "axes"), ("y",), {"keepdims": 0}),
            {"axes": np.array([-1], np.int64)},
            X.sum(-1),
            id="a-negative-constant",
        ),
    ],
)
def test_a_model_written_by_hand_computes(
    node: Node, constants: dict[str, Any], expected: Any
) -> None:
    np.testing.assert_allclose(run([node], constants, "y"), expected)


def test_nodes_run_one_after_the_other() -> None:
    nodes = [Node("Neg", ("x",), ("a",)), Node("Add", ("a", "x"), ("y",))]
    np.testing.assert_array_equal(run(nodes, {}, "y"), np.zeros_like(X))


def test_the_same_model_has_the_same_bytes() -> None:
    first, second = workloads(), workloads()
    assert [w.model for w in first] == [w.model for w in second]


def test_every_class_that_the_planner_has_a_rate_for_is_measured() -> None:
    measured = {workload.measures for workload in workloads()}
    bound_by_memory = {"elementwise"}
    assert {*OPERATOR_CLASSES, *PREFIX.values(), INT8, UPDATE} - bound_by_memory <= measured


def test_a_prefix_and_what_has_gradients_run_with_the_options_of_training() -> None:
    onnxruntime = import_onnxruntime()
    plain = session_options(onnxruntime, GRADIENTS).graph_optimization_level
    assert plain == onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    assert session_options(onnxruntime, FEATURES).graph_optimization_level != plain
    for workload in workloads():
        frozen = workload.measures in (*PREFIX.values(), INT8)
        assert workload.graph == (FEATURES if frozen else GRADIENTS), workload.name


@pytest.mark.parametrize(
    ("cpuinfo", "exactly"),
    [
        pytest.param("flags\t\t: fpu avx512f avx512_vnni\n", True, id="VNNI of AVX-512"),
        pytest.param("flags\t\t: fpu avx2 avx_vnni\n", True, id="VNNI of AVX"),
        pytest.param("flags\t\t: fpu avx2 avx512f\n", False, id="x86 before"),
        pytest.param("Features\t: fp asimd asimddp\n", False, id="ARM, where it means nothing"),
        pytest.param(None, False, id="no /proc"),
    ],
)
def test_products_of_bytes_are_unsigned_only_where_they_could_overflow(
    tmp_path: Path, cpuinfo: str | None, exactly: bool
) -> None:
    if cpuinfo is not None:
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/cpuinfo").write_text(cpuinfo)
    assert adds_bytes_exactly(tmp_path) is exactly
