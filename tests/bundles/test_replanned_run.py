"""`train --replan`: a run that departs from its plan, and what goes on within its budget."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from edgetune.cli.main import build_parser
from edgetune.files.bundle import read_manifest
from edgetune.files.checkpoint import read_checkpoint
from tests.bundles.support import assert_one_error, bundle_of, data_of, edgetune, listing

NAME = "multi_label"
OTHER = f"{NAME}-ort-training"
METER = f"command:{shlex.join(['sh', '-c', 'while :; do echo 5; sleep 0.05; done'])}"
AT_THE_WALL = ("--meter", METER, "--meter-scope", "wall")
SCORES = {"fc2.weight": 1.0, "fc2.bias": 0.5, "head.weight": 1.0, "head.bias": 1.0}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Planned for a device whose energy is predicted, as far too little for a test's meter."""
    scores, out = tmp_path / "scores.json", tmp_path / "bundle"
    scores.write_text(json.dumps(SCORES))
    options = ("--scores", scores, "--device", "raspberry-pi-4b-4gb", "--out", out)
    ran = edgetune("replan", bundle_of(NAME), *options, "--json")
    assert ran.code == 0 and ran.json["dropped"] == [], ran.err
    return out


def train(bundle: Path, *options: str | Path) -> Any:
    return edgetune("train", bundle, "--data", data_of(NAME), "--quiet", "--json", *options)


def test_it_ends_while_energy_is_left_and_goes_on_with_a_smaller_plan_as_it_says(
    bundle: Path,
) -> None:
    asked = ("--epochs", "100000", "--energy", "60J", *AT_THE_WALL)
    ran = train(bundle, *asked, "--replan")
    assert ran.code == 21, ran.err
    stop, done = ran.json["result"]["stopped_by"], ran.json["result"]["steps"]
    assert "a step takes " in stop["reason"] and "the plan says " in stop["reason"]
    assert stop["measured"] < stop["allowed"] == 60.0 and done >= 3
    replan, go_on = [shlex.split(line, comments=True)[1:] for line in ran.json["replan"]]
    options = build_parser().parse_args(replan)
    assert options.steps == 300_000 - done
    measured = stop["measured"] / done
    assert options.measured_energy_per_step == f"{measured:.4g}J"
    assert options.energy_per_run == f"{60.0 - stop['measured']:.4g}J"
    # How much too little is left depends on the machine: here it is four fifths of what is needed.
    place = replan.index("--energy-per-run") + 1
    replan[place] = f"{0.8 * measured * options.steps}J"
    ran = edgetune(*replan, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["dropped"]
    smaller = Path(f"{bundle}.smaller")
    assert read_manifest(smaller)[0].plan.cost.joules <= 0.8 * measured * 1.001
    before = read_checkpoint(Path(f"{smaller}.checkpoint")).step
    assert before == done
    assert go_on[:3] == ["train", str(smaller), "--resume"]
    more = (*go_on[2:3], "--energy", "none", "--epochs", str(before // 3 + 2))
    ran = train(smaller, *more)
    assert ran.code == 0, ran.err
    assert ran.json["result"]["steps"] > before and ran.json["replan"] == []


def test_people_are_told_the_commands(bundle: Path) -> None:
    options = ("--epochs", "100000", "--energy", "60J", *AT_THE_WALL, "--replan", "--quiet")
    ran = edgetune("train", bundle, "--data", data_of(NAME), *options)
    assert ran.code == 21, ran.err
    *_, first, second = ran.out.splitlines()
    assert first.startswith(f"to go on     edgetune replan {bundle} --measured-energy-per-step ")
    assert second.startswith(f"             edgetune train {bundle}.smaller --resume --energy ")


def test_a_run_that_lasts_is_not_ended(bundle: Path) -> None:
    ran = train(bundle, "--epochs", "3", "--energy", "1MJ", *AT_THE_WALL, "--replan")
    assert (ran.code, ran.json["replan"]) == (0, [])


def test_without_being_asked_nothing_is_foreseen(bundle: Path) -> None:
    ran = train(bundle, "--epochs", "100000", "--energy", "2J", *AT_THE_WALL)
    assert (ran.code, ran.json["replan"]) == (21, [])
    assert "are used, and what comes next" in ran.json["result"]["stopped_by"]["reason"]


def test_what_cannot_be_foreseen_is_an_error(bundle: Path, tmp_path: Path) -> None:
    before = listing(tmp_path)
    assert_one_error(train(bundle, "--replan"), 2, "--replan holds the energy", "give --energy")
    options = ("--energy", "9J", *AT_THE_WALL, "--replan", "--feature-cache", "off")
    paths = ("--checkpoint", tmp_path / "c", "--out", tmp_path / "d")
    ran = train(bundle_of(NAME), *options, *paths)  # whose profile knows no power
    assert_one_error(ran, 2, "the profile of generic-x86 predicts no energy")
    if edgetune("doctor", bundle_of(OTHER)).code == 0:  # where its packages are installed
        ran = train(bundle_of(OTHER), *options, *paths)
        assert_one_error(ran, 2, "the format portable, not ort-training")
    assert listing(tmp_path) == before
