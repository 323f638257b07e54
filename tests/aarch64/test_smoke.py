"""A vision bundle on an emulated Raspberry Pi 4, against this machine. `make aarch64` does more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.aarch64.checks import HERE, compare
from tests.aarch64.emulated import run_python
from tests.aarch64.userland import CHECKOUT, UnavailableError, Userland, build

WHEELS = CHECKOUT / "dist"


@pytest.fixture(scope="module")
def userland() -> Userland:
    wheels = sorted(WHEELS.glob("edgetune-*.whl"))
    assert wheels, "no wheel in dist/: make wheel"
    try:
        return build(wheels[-1])
    except UnavailableError as error:
        pytest.skip(f"the aarch64 userland cannot be built here: {error}")


def test_a_bundle_verifies_trains_and_continues_on_arm_as_it_does_here(
    userland: Userland, tmp_path: Path
) -> None:
    (row,) = compare(userland, tmp_path, ["cortex-a72"], ["vision"], epochs=(1, 2))
    assert row.problems == []
    assert row.updates == 4
    assert (tmp_path / HERE / "mobilenet_v3_small.from-cortex-a72.npz").is_file()


def test_what_runs_there_is_the_installed_package_on_an_arm_processor(userland: Userland) -> None:
    program = "import platform, edgetune; print(platform.machine(), edgetune.__file__)"
    said = run_python(userland, "cortex-a72", "-P", "-c", program).split()
    assert said == ["aarch64", str(userland.site / "edgetune" / "__init__.py")]


def test_a_command_that_fails_there_says_what_it_printed(userland: Userland) -> None:
    with pytest.raises(RuntimeError, match=r"ended with code 3 on an emulated cortex-a72:\nno"):
        run_python(userland, "cortex-a72", "-c", "import sys; print('no'); sys.exit(3)")
