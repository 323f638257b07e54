from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from importlib.metadata import requires
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import edgetune

SITE_PACKAGES = Path(sysconfig.get_path("purelib"))
WORKSTATION_ONLY = ("torch", "onnx")
_IMPORT_AND_LIST = """
import json, sys
import edgetune.cli.main
print(json.dumps([__import__("edgetune").__file__, sorted(sys.modules)]))
"""

in_device_environment = pytest.mark.skipif(
    find_spec("torch") is not None, reason="this is the workstation environment"
)


@in_device_environment
@pytest.mark.parametrize("module", WORKSTATION_ONLY)
def test_a_device_has_no_workstation_library(module: str) -> None:
    assert find_spec(module) is None


@in_device_environment
def test_the_installed_wheel_is_what_is_tested() -> None:
    assert Path(edgetune.__file__).is_relative_to(SITE_PACKAGES)
    assert (SITE_PACKAGES / "edgetune" / "device_profiles").is_dir()
    assert (SITE_PACKAGES / "edgetune_exporters").is_dir()


@in_device_environment
def test_the_device_extra_asks_for_onnxruntime_and_no_workstation_library() -> None:
    asked = {
        requirement.name
        for requirement in map(Requirement, requires("edgetune") or [])
        if requirement.marker is None or requirement.marker.evaluate({"extra": "device"})
    }
    assert "onnxruntime" in asked
    assert asked.isdisjoint(WORKSTATION_ONLY)


def test_the_command_line_loads_neither_torch_nor_onnx(tmp_path: Path) -> None:
    # Outside the checkout, with the sys.path of this process: the same edgetune is imported.
    path = [entry for entry in sys.path if entry]
    code = f"import sys; sys.path[:] = {path!r}\n{_IMPORT_AND_LIST}"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, stdout=subprocess.PIPE
    )
    file, loaded = json.loads(ran.stdout)
    assert file == edgetune.__file__
    unwelcome = {*WORKSTATION_ONLY, "edgetune_exporters", "onnxruntime.training"}
    assert unwelcome & set(loaded) == set()
