"""What `edgetune doctor` finds in an installation and for a bundle, and what the command says."""

from __future__ import annotations

import dataclasses
import json
from importlib import metadata
from pathlib import Path

import pytest

from edgetune.cli import doctor_command
from edgetune.cli.doctor_command import described
from edgetune.cli.main import main
from edgetune.doctor.board import Match
from edgetune.doctor.bundle import (
    bundle_findings,
    disk_bytes,
    disk_finding,
    memory_finding,
    profile_finding,
)
from edgetune.doctor.examine import examine
from edgetune.doctor.finding import Finding, Verdict
from edgetune.doctor.installation import (
    CPU,
    OLDEST_ONNXRUNTIME,
    OLDEST_PYTHON,
    Installation,
    installation_findings,
    read_installation,
)
from edgetune.guards.memory_room import memory_files
from edgetune.nouns.manifest import Manifest
from tests.conftest import ROOT
from tests.device import sensor_trees as trees
from tests.device.doctor_cases import limited, one
from tests.device.fake_session import make_manifest
from tests.device.guard_cases import MIB, memory_tree

GOOD = Installation((3, 11, 2), "aarch64", 64, {"onnxruntime": "1.23.2"}, "1.23.2", (CPU,))
BOTH = {"onnxruntime": "1.23.2", "onnxruntime-training-cpu": "1.19.2"}
TRAINING = {"onnxruntime-training-cpu": "1.19.2"}


@pytest.mark.parametrize(
    ("topic", "changes", "verdict", "advice"),
    [
        pytest.param("python", {}, "ok", "", id="python"),
        pytest.param("python", {"python": (3, 8, 10)}, "problem", "3.10 or later", id="jetpack-5"),
        pytest.param("python", {"python": (3, 10, 0)}, "ok", "", id="jetpack-6"),
        pytest.param("architecture", {}, "ok", "", id="arm-64"),
        pytest.param(
            "architecture", {"architecture": "armv7l"}, "problem", "64-bit system", id="arm-32"
        ),
        pytest.param(
            "architecture", {"pointer_bits": 32}, "problem", "64-bit", id="arm-64-kernel-alone"
        ),
        pytest.param("packages", {}, "ok", "", id="one-package"),
        pytest.param("packages", {"packages": TRAINING}, "ok", "", id="training-alone"),
        pytest.param(
            "packages",
            {"packages": BOTH},
            "problem",
            "pip uninstall -y onnxruntime onnxruntime-training-cpu, then pip install onnxruntime",
            id="both-packages",
        ),
        pytest.param(
            "packages",
            {"packages": {}, "version": None},
            "problem",
            "pip install 'edgetune[device]'",
            id="no-package",
        ),
        pytest.param("onnxruntime", {}, "ok", "", id="runs"),
        pytest.param("onnxruntime", {"version": "1.18.0"}, "ok", "", id="oldest"),
        pytest.param(
            "onnxruntime", {"version": "1.17.3+cpu"}, "problem", "1.18 or later", id="too-old"
        ),
        pytest.param("onnxruntime", {"version": "2.0.0"}, "ok", "", id="newer"),
        pytest.param(
            "onnxruntime", {"providers": ("Azure",)}, "problem", "CPUExecution", id="no-cpu"
        ),
        pytest.param(
            "onnxruntime",
            {"version": None, "refusal": "it is broken, so mend it"},
            "problem",
            "it is broken, so mend it",
            id="no-import",
        ),
    ],
)
def test_an_installation(
    topic: str, changes: dict[str, object], verdict: Verdict, advice: str
) -> None:
    here = dataclasses.replace(GOOD, **changes)  # type: ignore[arg-type]
    found = one(installation_findings(here), topic)
    assert found.verdict == verdict
    assert advice in found.advice


def test_a_module_without_a_package_is_a_note() -> None:
    (found,) = [
        f
        for f in installation_findings(dataclasses.replace(GOOD, packages={}))
        if f.topic == "packages"
    ]
    assert found.verdict == "note"


def test_two_packages_of_one_module_are_a_problem_of_this_installation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(metadata, "version", lambda package: "1.19.2")
    assert main(["doctor", "--json"]) == 1
    told = {f["topic"]: f for f in json.loads(capsys.readouterr().out)["findings"]}
    assert told["packages"]["verdict"] == told["onnxruntime"]["verdict"] == "problem"
    assert "break each other" in told["onnxruntime"]["advice"]


def test_this_installation_is_read() -> None:
    here = read_installation()
    assert here.version is not None and CPU in here.providers and not here.refusal
    assert set(here.packages) & {"onnxruntime", "onnxruntime-training-cpu"}


def test_the_floors_are_those_of_the_package() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert f'requires-python = ">={".".join(map(str, OLDEST_PYTHON))}"' in text
    assert f'device = ["onnxruntime>={".".join(map(str, OLDEST_ONNXRUNTIME))}"]' in text


PLAN = make_manifest().plan


def planned(peak_mib: int, form: str) -> Manifest:
    cost = dataclasses.replace(PLAN.cost, peak_bytes=peak_mib * MIB)
    plan = dataclasses.replace(PLAN, cost=cost)
    return dataclasses.replace(make_manifest(), plan=plan, format=form)


@pytest.mark.parametrize(
    ("peak", "form", "verdict", "advice"),
    [
        # 200 MiB are free, and 60 are this process's, which will be gone.
        pytest.param(260, "portable", "ok", "", id="fits"),
        pytest.param(261, "portable", "problem", "--memory 260MiB", id="does-not-fit"),
        pytest.param(999, "ort-training", "note", "edgetune profile", id="not-predicted"),
    ],
)
def test_memory_for_a_bundle(
    peak: int, form: str, verdict: Verdict, advice: str, tmp_path: Path
) -> None:
    limited(memory_tree(tmp_path, resident=60))
    found = memory_finding(planned(peak, form), memory_files(tmp_path))
    assert found.verdict == verdict
    assert advice in found.advice


def test_disk_for_a_bundle(tmp_path: Path) -> None:
    values = 4 * PLAN.trainable_count
    assert disk_bytes(PLAN) == 2 * (values + values + values) + values  # values, momentum, best
    folder = tmp_path / "bundle"
    assert disk_finding(PLAN, folder, disk_bytes(PLAN)).verdict == "ok"
    full = disk_finding(PLAN, folder, disk_bytes(PLAN) - 1)
    assert full.verdict == "problem" and "--checkpoint" in full.advice
    (tmp_path / "bundle.checkpoint").mkdir()
    blocked = disk_finding(PLAN, folder, disk_bytes(PLAN))
    assert blocked.verdict == "problem" and "a folder with this name is there" in blocked.advice


@pytest.mark.parametrize(
    ("device", "match", "verdict", "found"),
    [
        pytest.param("jetson-nano-4gb", Match("jetson-nano-4gb"), "ok", "", id="same"),
        pytest.param("jetson-nano-4gb-5w", Match("jetson-nano-4gb"), "ok", "", id="power-mode"),
        pytest.param("my-pi", Match("raspberry-pi-4b-1gb"), "ok", "of your own", id="own"),
        pytest.param(
            "raspberry-pi-4b-4gb",
            Match("raspberry-pi-4b-1gb"),
            "note",
            "this is a raspberry-pi-4b-1gb",
            id="another-size",
        ),
        pytest.param(
            "raspberry-pi-4b-4gb",
            Match("generic-x86", is_generic=True),
            "note",
            "another machine",
            id="another-machine",
        ),
        pytest.param("generic-x86", None, "note", "another machine", id="unknown"),
    ],
)
def test_the_profile_of_a_plan(
    device: str, match: Match | None, verdict: Verdict, found: str
) -> None:
    finding = profile_finding(dataclasses.replace(PLAN, device=device), match)
    assert finding.verdict == verdict
    assert found in finding.found


def test_no_bundle_is_one_problem(tmp_path: Path) -> None:
    (found,) = bundle_findings(tmp_path, memory_files(tmp_path), None, 0)
    assert found.verdict == "problem" and "no bundle at" in found.advice


def test_a_recreated_machine_is_examined(tmp_path: Path) -> None:
    trees.board(memory_tree(tmp_path), "pi-4", "Raspberry Pi 4 Model B Rev 1.5")
    findings = list(examine(root=tmp_path))
    assert "raspberry-pi-4b-8gb" in one(findings, "device").found
    assert one(findings, "power meter").verdict == "note"


ALL_WELL = (Finding("python", "ok", "3.11.2"), Finding("power meter", "note", "none", "buy one"))
ILL = (*ALL_WELL, Finding("onnxruntime", "problem", "cannot be imported", "install it " * 12))


@pytest.mark.parametrize(
    ("findings", "code"),
    [pytest.param(ALL_WELL, 0, id="notes"), pytest.param(ILL, 1, id="problem")],
)
def test_only_a_problem_is_an_exit_code(
    findings: tuple[Finding, ...],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(doctor_command, "examine", lambda bundle: iter(findings))
    assert main(["doctor", "--json"]) == code
    told = json.loads(capsys.readouterr().out)
    assert told["problems"] == code
    assert told["findings"] == [dataclasses.asdict(finding) for finding in findings]
    assert main(["doctor", "bundle"]) == code
    assert capsys.readouterr().out.endswith(f"problems: {code}, notes: 1\n")


def test_what_to_do_stands_below_what_was_found_and_no_line_is_too_long() -> None:
    lines = described(ILL).splitlines()
    assert lines[0] == "ok       python       3.11.2"
    assert lines[2] == "                      buy one"
    assert max(map(len, lines)) <= 100
