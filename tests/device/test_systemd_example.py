"""The units in examples/systemd: they run what edgetune understands, and know its exit codes."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from edgetune.cli.guard_options import check_guard_options
from edgetune.cli.main import build_parser
from edgetune.errors import EdgetuneError
from edgetune.guards.guard import STOP_EXIT_CODES
from edgetune.units import parse_bytes
from tests.conftest import ROOT

FOLDER = ROOT / "examples" / "systemd"
PROGRAM = "/opt/edgetune/bin/edgetune"
INTERRUPTED = 130


def values(text: str, key: str) -> list[str]:
    """Of every `KEY=value`, with lines that end in a backslash joined (systemd.syntax(7))."""
    return re.findall(rf"^{key}=(.*)$", text.replace("\\\n", " "), re.MULTILINE)


SERVICE = (FOLDER / "edgetune-train.service").read_text()


def arguments_of(command: str, folder: Path) -> list[str]:
    """What `command` gives to edgetune when it is run in `folder`: a script that prints it."""
    stand_in = folder / "edgetune"
    stand_in.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    stand_in.chmod(0o755)
    words = [word.replace("$$", "$").replace("%%", "%") for word in shlex.split(command)]
    ran = subprocess.run(
        [word.replace(PROGRAM, str(stand_in)) for word in words],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    return ran.stdout.splitlines()


def parses(arguments: Sequence[str]) -> bool:
    try:
        options = build_parser().parse_args(list(arguments))
        if options.command == "train":
            check_guard_options(options)
    except EdgetuneError:
        return False
    return True


@pytest.mark.parametrize("resumed", [False, True])
def test_the_service_trains_with_options_that_exist(resumed: bool, tmp_path: Path) -> None:
    if resumed:
        (tmp_path / "bundle.checkpoint").touch()
    (command,) = values(SERVICE, "ExecStart")
    arguments = arguments_of(command, tmp_path)
    assert parses(arguments)
    options = build_parser().parse_args(arguments)
    assert (options.command, options.resume) == ("train", resumed)
    assert options.seconds and options.energy and options.temperature
    assert not parses([*arguments, "--no-such-option"])
    assert not parses([*arguments, "--energy", "20 apples"])


def test_the_doctor_comes_first(tmp_path: Path) -> None:
    (command,) = values(SERVICE, "ExecStartPre")
    assert parses(arguments_of(command, tmp_path))
    assert arguments_of(command, tmp_path) == ["doctor", "bundle"]


def test_what_a_budget_ends_is_a_success() -> None:
    (codes,) = values(SERVICE, "SuccessExitStatus")
    assert {int(code) for code in codes.split()} == {*STOP_EXIT_CODES.values(), INTERRUPTED}


def test_the_kernel_kills_above_what_edgetune_holds() -> None:
    (command,), (most,) = values(SERVICE, "ExecStart"), values(SERVICE, "MemoryMax")
    held = re.search(r"--memory (\S+)", command)
    assert held is not None
    assert parse_bytes(held.group(1)) < int(most.removesuffix("M")) * 2**20


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
@pytest.mark.parametrize("change", [None, ("MemoryMax=400M", "MemoryMaximum=400M")])
def test_systemd_understands_the_units(change: tuple[str, str] | None, tmp_path: Path) -> None:
    program = tmp_path / "edgetune"
    program.touch(0o755)
    for path in (path for path in FOLDER.iterdir() if path.suffix in (".service", ".timer")):
        text = path.read_text().replace(PROGRAM, str(program))
        (tmp_path / path.name).write_text(text if change is None else text.replace(*change))
    ran = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "edgetune-train.service", "edgetune-train.timer"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )
    said = [line for line in ran.stderr.splitlines() if "edgetune-train" in line]
    assert (said == []) is (change is None), ran.stderr
    assert ran.returncode == 0 or change is not None
