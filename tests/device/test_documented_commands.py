"""What the documents tell a reader to type: it exists, and the ways onto a device are short."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from edgetune.cli.main import build_parser
from edgetune.errors import UsageError
from tests.conftest import ROOT

DEVICES = ROOT / "docs" / "devices.md"
DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "examples/systemd/README.md",
    *sorted(ROOT.glob("docs/*.md")),
)
WAYS = ("Raspberry Pi OS", "JetPack 6", "JetPack 5")


def blocks(text: str) -> list[list[str]]:
    """The lines of every fenced block without a language, those that a backslash ends joined."""
    found = re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block.replace("\\\n", " ").splitlines() for block in found]


def commands(path: Path) -> Iterator[str]:
    for block in blocks(path.read_text()):
        yield from (line for line in block if line.startswith("edgetune "))


def parse(command: str) -> None:
    build_parser().parse_args(shlex.split(command, comments=True)[1:])


ALL = [(path.name, command) for path in DOCUMENTS for command in commands(path)]


@pytest.mark.parametrize(("document", "command"), ALL)
def test_every_command_in_a_document_parses(document: str, command: str) -> None:
    parse(command)


@pytest.mark.parametrize("command", ["edgetune docter", "edgetune doctor --meter", "edgetune"])
def test_what_is_no_command_does_not_parse(command: str) -> None:
    with pytest.raises(UsageError):
        parse(command)


@pytest.mark.parametrize("way", WAYS)
def test_a_way_onto_a_device_is_at_most_five_lines_and_ends_with_the_doctor(way: str) -> None:
    (section,) = re.findall(rf"^## {way}\n(.*?)(?=^## )", DEVICES.read_text(), re.M | re.S)
    first = blocks(section)[0]
    assert len(first) <= 5
    assert first[-1] == "edgetune doctor"
    assert any("'edgetune[device]'" in line for line in first)


def test_the_package_admits_the_pythons_that_are_named() -> None:
    asked = re.search(r'^requires-python = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert asked is not None
    admitted = SpecifierSet(asked.group(1))
    named = re.findall(r"--python (3\.\d+)", DEVICES.read_text())
    assert len(named) == 2
    assert all(admitted.contains(version) for version in named)
    assert "3.8" not in admitted  # that of JetPack 5


@pytest.mark.skipif(sys.platform != "linux", reason="sed -i of others takes an argument")
def test_the_line_that_switches_the_controller_on_leaves_one_line(tmp_path: Path) -> None:
    (line,) = [
        line for block in blocks(DEVICES.read_text()) for line in block if "cmdline.txt" in line
    ]
    cmdline = tmp_path / "cmdline.txt"
    cmdline.write_text("console=tty1 rootwait\n")
    words = shlex.split(line.removeprefix("sudo "))
    subprocess.run([*words[:-1], str(cmdline)], check=True)
    assert cmdline.read_text() == "console=tty1 rootwait cgroup_enable=memory cgroup_memory=1\n"
