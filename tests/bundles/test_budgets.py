"""Budgets on the command line: each ends a run with its own exit code, and --resume continues."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from edgetune.files.checkpoint import read_checkpoint
from edgetune.guards import STOP_EXIT_CODES
from tests.bundles.support import assert_one_error, data_of, edgetune, train

NAME = "cnn1d"
METER = ("--meter", f"command:{shlex.join(['sh', '-c', 'while :; do echo 5; sleep 0.05; done'])}")
AT_THE_WALL = (*METER, "--meter-scope", "wall")
LONG = ("--epochs", "100000")


@pytest.mark.parametrize(
    ("options", "budget", "unit", "allowed"),
    [
        pytest.param(["--memory", "20MiB"], "memory", "B", 20 * 2**20, id="memory"),
        pytest.param(["--seconds", "300ms"], "time", "s", 0.3, id="time"),
        pytest.param([*AT_THE_WALL, "--energy", "2J"], "energy", "J", 2.0, id="energy"),
    ],
)
def test_a_budget_ends_the_run_with_its_own_code(
    tmp_path: Path, options: list[str], budget: str, unit: str, allowed: float
) -> None:
    ran = train(NAME, tmp_path, *LONG, *options, "--json")
    assert ran.code == STOP_EXIT_CODES[budget]  # type: ignore[index]
    assert ran.err == ""
    stop = ran.json["result"]["stopped_by"]
    assert (stop["budget"], stop["unit"], stop["allowed"]) == (budget, unit, allowed)
    assert stop["measured"] > 0
    saved = read_checkpoint(tmp_path / "checkpoint")
    assert saved.step == ran.json["result"]["steps"]
    assert (tmp_path / "delta").exists() == (ran.json["delta"] is not None) == (saved.step > 0)
    if budget == "energy":
        assert (ran.json["energy"]["kind"], ran.json["energy"]["scope"]) == ("measured", "wall")


def test_a_stopped_run_continues_with_a_new_budget_bit_for_bit(tmp_path: Path) -> None:
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    short = ("--epochs", "3", "--schedule", "cosine")
    assert train(NAME, stopped, *short, "--seconds", "1us").code == 22
    assert read_checkpoint(stopped / "checkpoint").step == 0
    assert train(NAME, stopped, *short, "--resume").code == 0
    assert train(NAME, whole, *short).code == 0
    for file in ("checkpoint", "delta"):
        assert (stopped / file).read_bytes() == (whole / file).read_bytes()


def test_people_are_told_how_far_it_got(tmp_path: Path) -> None:
    more = ("--validation", data_of(NAME), "--seconds", "1500ms")
    ran = train(NAME, tmp_path, *LONG, *more)
    assert ran.code == 22
    told = {line[:12].strip(): line[13:] for line in ran.out.splitlines()}
    assert told["stopped"].startswith("by the budget of time: ")
    assert "of 1.50 s are over, and what comes next takes" in told["stopped"]
    assert told["trained"].split()[1:4:2] == ["epochs,", "steps:"]
    assert told["best"].endswith("; the delta holds it")
    assert told["checkpoint"] == str(tmp_path / "checkpoint")


def test_where_memory_ends_it_the_delta_holds_what_was_reached(tmp_path: Path) -> None:
    ran = train(NAME, tmp_path, "--memory", "20MiB")
    assert "delta        not written; nothing changed yet" in ran.out
    assert train(NAME, tmp_path, "--resume").code == 0
    reached = (tmp_path / "delta").read_bytes()
    (tmp_path / "delta").unlink()
    ran = train(NAME, tmp_path, "--epochs", "2", "--resume", "--memory", "20MiB")
    assert ran.code == 20
    assert "the limit is 20.0 MiB (--memory); " in ran.out
    assert (tmp_path / "delta").read_bytes() == reached


def test_energy_is_told_when_a_meter_is_asked_for(tmp_path: Path) -> None:
    ran = train(NAME, tmp_path, *AT_THE_WALL)
    assert ran.code == 0
    assert "5.00 W on the mean (measured, wall: external: sh -c" in ran.out


@pytest.mark.parametrize(
    ("options", "code", "parts"),
    [
        pytest.param(
            ["--memory", "200", "--power", "4V", "--temperature", "0C", "--battery-floor", "100%"],
            2,
            [
                *("4 problems", "--memory: cannot read", "--power: cannot read"),
                *("--temperature: cannot use", "--battery-floor: cannot use"),
            ],
            id="all-at-once",
        ),
        pytest.param(["--meter", "ina219"], 2, ["expected auto, none or command:"], id="meter"),
        pytest.param(["--meter", "command:"], 2, ["names no command"], id="no-command"),
        pytest.param(METER, 2, ["needs --meter-scope"], id="no-scope"),
        pytest.param(["--meter-scope", "wall"], 2, ["leave it out"], id="scope-of-nothing"),
        pytest.param(
            ["--energy", "5J", "--meter", "none"],
            2,
            ["cannot be held with --meter none", "--energy none"],
            id="no-meter",
        ),
        pytest.param(
            ["--power", "5W", "--meter", "command:false", "--meter-scope", "board"],
            4,
            ["the meter 'false' ended with exit code 1"],
            id="a-meter-that-ends",
        ),
    ],
)
def test_what_cannot_be_held_is_one_error(
    tmp_path: Path, options: list[str], code: int, parts: list[str]
) -> None:
    assert_one_error(train(NAME, tmp_path, *options), code, *parts)
    assert list(tmp_path.iterdir()) == []


def test_every_exit_code_is_documented() -> None:
    documented = (Path(__file__).parents[2] / "docs" / "commands.md").read_text()
    helped = edgetune("--help").out
    for name, code in STOP_EXIT_CODES.items():
        assert f"| {code} | {name}" in documented
        assert f" {code}  {name}" in helped
