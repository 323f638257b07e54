from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgetune.calibration.bundle_steps import MeasuredStep, Memory
from edgetune.calibration.heat import Heat, read_heat
from edgetune.calibration.operator_times import NodeTime, by_module, by_operator, read_node_times
from edgetune.calibration.verdicts import verdicts
from edgetune.nouns.budget import Budget
from edgetune.runtime.process_memory import cgroup_peak_bytes
from tests.device.test_split import by_hand


@pytest.mark.parametrize(
    ("budget", "measured", "texts"),
    [
        pytest.param(Budget(), (1, 1.0, 1.0), [], id="none"),
        pytest.param(
            Budget(memory_bytes=100, step_seconds=2.0),
            (90, None, 3.0),
            ["memory within, 10.0% left", "step exceeded by 50.0%"],
            id="one-kept-one-not",
        ),
        pytest.param(
            Budget(memory_bytes=100, energy_joules=1.0),
            (None, None, 1.0),
            ["memory not measured", "energy per step not measured"],
            id="nothing-told",
        ),
        pytest.param(
            Budget(run_energy_joules=10.0, run_steps=4),
            (1, 3.0, 1.0),
            ["energy of 4 steps exceeded by 20.0%"],
            id="of-a-run",
        ),
        pytest.param(
            Budget(step_seconds=1.0), (1, None, 1.0), ["step within, 0.0% left"], id="just-kept"
        ),
    ],
)
def test_each_budget_has_a_verdict(
    budget: Budget, measured: tuple[Any, Any, Any], texts: list[str]
) -> None:
    found = list(verdicts(budget, *measured))
    assert [f"{verdict.budget} {verdict.text}" for verdict in found] == texts
    assert [verdict.exceeded for verdict in found] == ["exceeded" in text for text in texts]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        pytest.param("throttled=0x0\n", (), id="nothing"),
        pytest.param(
            "throttled=0x50005\n",
            (
                "under-voltage",
                "throttled",
                "under-voltage since boot",
                "throttled since boot",
            ),
            id="now-and-before",
        ),
        pytest.param("error", None, id="something-else"),
        pytest.param(None, None, id="no-such-command"),
    ],
)
def test_throttling_is_what_the_firmware_says(
    tmp_path: Path, said: str | None, expected: tuple[str, ...] | None
) -> None:
    assert read_heat(tmp_path, lambda: said) == Heat(None, expected)


def test_the_hottest_zone_counts_and_one_that_is_off_does_not(tmp_path: Path) -> None:
    for number, text in enumerate(["45000\n", "61500\n", "off\n"]):
        zone = tmp_path / "sys" / "class" / "thermal" / f"thermal_zone{number}"
        zone.mkdir(parents=True)
        (zone / "temp").write_text(text)
    assert read_heat(tmp_path, lambda: None).celsius == 61.5


NODES = [
    NodeTime("gradients.onnx", "first", "MatMul", 3.0),
    NodeTime("features.onnx", "second_nchwc", "Conv", 5.0),
    NodeTime("gradients.onnx", "grad2", "MatMul", 1.0),
    NodeTime("update.onnx", "Mul_1", "Mul", 2.0),
]


def test_time_is_summed_by_operator_and_by_module() -> None:
    graph = by_hand()
    modules = {"first": "body", "second": "body", "grad2": "head"}
    operations = tuple(
        replace(operation, module=modules.get(operation.name, "")) for operation in graph.operations
    )
    named = [(item.name, item.seconds, item.nodes) for item in by_operator(NODES)]
    assert named == [("Conv", 5.0, 1), ("MatMul", 4.0, 2), ("Mul", 2.0, 1)]
    found = by_module(NODES, replace(graph, operations=operations))
    assert [(item.name, item.seconds) for item in found] == [
        ("body", 8.0),
        ("(update.onnx)", 2.0),
        ("head", 1.0),
    ]


def test_a_node_takes_the_median_of_its_runs_without_the_first(tmp_path: Path) -> None:
    def event(name: str, duration: int, cat: str = "Node") -> dict[str, Any]:
        return {"cat": cat, "name": name, "dur": duration, "args": {"op_name": "Conv"}}

    events = [
        {"cat": "Session", "name": "model_run", "dur": 9999},
        *(event("conv_kernel_time", duration) for duration in (500, 10, 30, 20)),
        event("conv_fence_before", 700),
    ]
    path = tmp_path / "record.json"
    path.write_text(json.dumps(events))
    (found,) = read_node_times({"gradients.onnx": path})
    assert found == NodeTime("gradients.onnx", "conv", "Conv", pytest.approx(20e-6))


def test_the_95th_percentile_is_a_step_that_was_measured() -> None:
    step = MeasuredStep(
        tuple(float(n) for n in range(20, 0, -1)), Memory(None, None), None, Heat(None, None), None
    )
    assert step.p95_seconds == 19.0
    assert step.median_seconds == 10.5
    assert step.joules is None


MOUNTS = {
    2: "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
    1: "31 23 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
}


@pytest.mark.parametrize(
    ("version", "groups", "files", "expected"),
    [
        pytest.param(2, "0::/job\n", {"job/memory.peak": "123\n"}, 123, id="version-2"),
        pytest.param(
            1,
            "5:cpu:/\n4:memory:/job\n",
            {"memory/job/memory.max_usage_in_bytes": "456\n"},
            456,
            id="version-1",
        ),
        pytest.param(2, "0::/job\n", {}, None, id="a-kernel-that-does-not-tell"),
        pytest.param(2, "", {}, None, id="no-cgroups"),
    ],
)
def test_the_peak_of_a_cgroup_is_read_where_there_is_a_controller(
    tmp_path: Path, version: int, groups: str, files: dict[str, str], expected: int | None
) -> None:
    process = tmp_path / "proc" / "self"
    process.mkdir(parents=True)
    (process / "cgroup").write_text(groups)
    (process / "mountinfo").write_text(MOUNTS[version])
    for name, text in files.items():
        path = tmp_path / "sys" / "fs" / "cgroup" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    assert cgroup_peak_bytes(tmp_path) == expected
