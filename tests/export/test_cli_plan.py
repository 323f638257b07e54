"""The exact plan on the command line: what it may choose, what it reports, what contradicts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from edgetune_exporters import frontier_plot

from edgetune.errors import StorageError
from edgetune.files.bundle import read_manifest
from edgetune.nouns.criterion import CRITERIA
from edgetune.units import format_bytes
from tests.bundles.support import assert_one_error, edgetune, listing

MLP = Path(__file__).resolve().parents[1] / "zoo" / "mlp.py"
MODEL = f"{MLP}:multi_label"
HARDSWISH = f"{MLP.with_name('hardswish.py')}:hardswish"
PI = ("--device", "raspberry-pi-4b-4gb")
PARAMETERS = ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias", "head.weight", "head.bias"]

# One way to run the step, so that one dense step is made.
FAST = ("--micro-batch", "8", "--no-recomputation", "--no-shares")


def plan(*options: str | Path) -> Any:
    return edgetune("plan", MODEL, *PI, *options, "--json").json


@pytest.fixture(scope="module")
def everything() -> Any:
    return plan()


@pytest.fixture(scope="module")
def half(everything: Any) -> str:
    """A time for a step that is half of what training everything takes."""
    return f"{everything['cost']['seconds'] / 2:.6g}s"


# the certificate ------------------------------------------------------------------------------


def test_without_a_budget_that_binds_the_plan_is_optimal(everything: Any) -> None:
    assert everything["selection"]["trainable"] == PARAMETERS
    assert everything["gap"] == 0
    assert everything["objective"] == everything["bound"] > 0
    assert everything["binding"] == []
    assert everything["criterion"] == "fisher"


def test_a_budget_that_binds_is_named_with_its_price(half: str) -> None:
    less = plan("--step-seconds", half)
    assert less["gap"] == 0 and less["binding"] == ["time"]
    assert less["prices"]["time"] > 0
    assert less["cost"]["seconds"] <= float(half.removesuffix("s"))
    out = edgetune("plan", MODEL, *PI, "--step-seconds", half).out
    assert (
        "certificate  optimal: no selection within this budget has more importance (gap 0)" in out
    )
    assert re.search(r"^held back by time: 10 % more \(.*\) would buy about \d+\.\d %", out, re.M)


def test_energy_of_a_run_is_that_of_a_step_times_the_steps(everything: Any) -> None:
    joules = everything["cost"]["joules"]
    per_step = plan("--energy-per-step", f"{1e3 * joules / 2:.6g}mJ")
    per_run = plan("--energy-per-run", f"{1e3 * joules / 2:.6g}J", "--steps", "1000")
    assert per_run["selection"] == per_step["selection"] != everything["selection"]
    assert per_run["binding"] == ["energy per run"]
    assert per_step["binding"] == ["energy per step"]
    run = ("--energy-per-run", "500J", "--steps", "1000")
    out = edgetune("plan", MODEL, *PI, *run).out
    assert re.search(
        r"^run          1,000 steps: at least .* of 500.00 J allowed predicted$", out, re.M
    )


def test_a_gap_and_a_time_limit_are_honest(half: str) -> None:
    rough = plan("--step-seconds", half, "--gap", "0.5", "--time-limit", "30s")
    exact = plan("--step-seconds", half)
    assert 0 <= rough["gap"] <= 0.5
    assert rough["objective"] <= exact["objective"] * (1 + 1e-9)
    assert rough["bound"] >= exact["objective"] * (1 - 1e-9)


def test_a_users_own_profile_is_taken_in_place_of_a_device(everything: Any, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text('id = "own"\nlike = "raspberry-pi-4b-4gb"\nname = "Own"\n')
    plan = edgetune("plan", MODEL, "--device", own, "--json").json
    assert plan["device"] == "own"
    assert plan["cost"] == everything["cost"]


# what may be chosen ---------------------------------------------------------------------------


def test_shares_are_chosen_and_can_be_forbidden(half: str) -> None:
    with_shares = plan("--step-seconds", half)
    whole = plan("--step-seconds", half, "--no-shares")
    assert whole["selection"]["shares"] == {}
    assert with_shares["objective"] >= whole["objective"]


def test_a_share_is_asked_for_by_name() -> None:
    share = plan("--train", "fc2.weight:in/2", "--criterion", "taylor")
    assert share["selection"]["trainable"] == ["fc2.weight"]
    assert share["selection"]["shares"]["fc2.weight"]["axis"] == 1
    assert list(share["scores"]) == ["fc2.weight:in/2"]
    out = edgetune("plan", MODEL, *PI, "--train", "fc*.weight:in/2").out
    assert "             2 shares in/2: " in out


def test_activations_are_made_again_where_that_lets_more_be_trained() -> None:
    once = ("--batch", "2", "--micro-batch", "2", "--no-shares")
    free = edgetune("plan", HARDSWISH, *PI, *once, "--json").json
    tight = ("--memory", f"{free['cost']['peak_bytes'] - 1}B")
    again = edgetune("plan", HARDSWISH, *PI, *once, *tight, "--json").json
    kept = edgetune("plan", HARDSWISH, *PI, *once, *tight, "--no-recomputation", "--json").json
    assert (free["recomputes"], again["recomputes"], kept["recomputes"]) == (False, True, False)
    assert again["objective"] == pytest.approx(free["objective"])
    assert kept["objective"] < again["objective"]
    out = edgetune("plan", HARDSWISH, *PI, *once, *tight).out
    assert "adamw; light activations are made again in the backward\n" in out


def test_the_most_important_tensors_can_be_taken(everything: Any) -> None:
    scores = everything["scores"]
    ranked = sorted(scores, key=lambda name: -scores[name])
    three = plan("--top-k", "3")
    assert set(three["selection"]["trainable"]) == set(ranked[:3])
    least = scores[ranked[1]]
    two = plan("--threshold", repr(least))
    assert set(two["selection"]["trainable"]) == set(ranked[:2])
    for chosen, method in ((three, "top-k"), (two, "threshold")):
        assert chosen["certificate"]["method"] == method
        assert (chosen["bound"], chosen["gap"]) == (None, None)
        assert chosen["objective"] == pytest.approx(sum(chosen["scores"].values()))


# importance -----------------------------------------------------------------------------------


def test_a_criterion_is_the_users_choice() -> None:
    for criterion in ("magnitude", "contribution", "tinytrain"):
        found = plan("--criterion", criterion, "--calibration-samples", "4", "--no-shares")
        assert found["criterion"] == criterion
        assert found["scores"]


def test_scores_of_ones_own_decide(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    path.write_text(json.dumps({"fc2.weight": 3, "head.bias": 1}))
    mine = plan("--scores", path)
    assert mine["selection"]["trainable"] == ["fc2.weight", "head.bias"]
    assert (mine["criterion"], mine["objective"]) == ("user", 4.0)
    assert plan("--scores", path, "--criterion", "user") == mine
    path.write_text(json.dumps({"fc3.weight": 3}))
    ran = edgetune("plan", MODEL, *PI, "--scores", path)
    assert_one_error(ran, 3, "no parameter fc3.weight; the nearest names are fc2.weight")
    path.write_text(json.dumps({"fc2.weight": 3}))
    ran = edgetune("plan", MODEL, *PI, "--scores", path, "--train", "fc1.weight:in/2")
    assert_one_error(ran, 2, "fc1.weight:in/2 needs a score of fc1.weight")


def test_equal_seeds_give_equal_plans_and_others_need_not() -> None:
    random = [
        plan("--criterion", "random", "--seed", str(seed), "--no-shares")["scores"]
        for seed in (1, 1, 2)
    ]
    assert random[0] == random[1] != random[2]


# more about the plan --------------------------------------------------------------------------


def test_a_timeline_has_the_plans_own_peak(everything: Any) -> None:
    timeline = plan("--timeline")["timeline"]
    assert timeline["cost"] == everything["cost"]
    peak = timeline["moments"][timeline["peak"]]
    assert peak["operator"] == everything["cost"]["peak_at"]
    assert peak["live_bytes"] == everything["cost"]["activation_bytes"]
    out = edgetune("plan", MODEL, *PI, "--timeline").out
    assert (
        f"\npeak         {format_bytes(everything['cost']['peak_bytes'])} at {peak['operator']}"
        in out
    )
    head = plan("--train", "head.*", "--timeline")["timeline"]
    assert {moment["phase"] for moment in head["moments"]} >= {"prefix", "backward", "update"}


def test_a_frontier_is_a_table_and_a_plot_of_equal_bytes(tmp_path: Path) -> None:
    options = ("--frontier", "energy", *FAST, "--plot")
    first, second = tmp_path / "first.svg", tmp_path / "second.svg"
    ran = edgetune("plan", MODEL, *PI, *options, first)
    assert (ran.code, ran.err) == (0, "")
    assert "\nfrontier     what more energy buys, by fisher\nenergy " in ran.out
    assert re.search(r"^head  .* \(\+\d+\.\d\)$", ran.out, re.MULTILINE)
    assert ran.out.endswith(f"written      {first}\n")
    assert edgetune("plan", MODEL, *PI, *options, second).code == 0
    assert first.read_bytes() == second.read_bytes()
    assert b"<svg" in first.read_bytes() and b"everything" in first.read_bytes()
    points = plan("--frontier", "memory", *FAST, "--plot", tmp_path / "plot.png")["frontier"]
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert [p["name"] for p in points][-1] == "everything"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "first.svg",
        "plot.png",
        "second.svg",
    ]


def test_criteria_are_compared_but_for_the_slow_one(half: str) -> None:
    options = ("--compare-criteria", "--step-seconds", half, "--calibration-samples", "4", *FAST)
    out = edgetune("plan", MODEL, *PI, *options, "--criterion", "taylor").out
    heading = "comparison   what each criterion picks within this budget, beside taylor\n"
    rows = [line.split() for line in out.partition(heading)[2].splitlines()[1:]]
    expected = ["taylor", *(c for c in CRITERIA if c not in ("taylor", "contribution"))]
    assert [row[0] for row in rows] == expected
    captured, overlap = ([float(row[i]) for row in rows] for i in (4, 6))
    assert overlap[0] == 100
    assert all(0 < share <= 100 for share in captured)


def test_export_takes_the_same_request(tmp_path: Path) -> None:
    options = ("--criterion", "taylor", "--top-k", "2", "--calibration-samples", "4")
    out = tmp_path / "bundle"
    ran = edgetune("export", MODEL, *PI, *options, "--out", out, "--json")
    chosen = plan(*options)
    assert ran.json["plan"] == chosen
    assert read_manifest(out)[0].plan.selection.trainable == tuple(chosen["selection"]["trainable"])
    again = edgetune("replan", out, "--json").json
    assert again["selection"] == chosen["selection"]
    assert again["cost"] == chosen["cost"]


# errors ---------------------------------------------------------------------------------------

BOTH = [
    pytest.param(
        ["--train", "head.*", "--top-k", "2"],
        "--train names what is trained, --top-k ranks it: give one of them",
        id="train-top-k",
    ),
    pytest.param(
        ["--train", "head.*", "--threshold", "1"], "--threshold ranks it", id="train-threshold"
    ),
    pytest.param(
        ["--train", "head.*", "--gap", "0.1"],
        "--gap would stop a search, and --train leaves nothing to search",
        id="train-gap",
    ),
    pytest.param(
        ["--top-k", "2", "--time-limit", "1s"],
        "--time-limit would stop a search, and --top-k leaves nothing",
        id="top-k-time-limit",
    ),
    pytest.param(
        ["--train", "head.*", "--criterion", "taylor"],
        "--criterion ranks what could be trained, --train decides it",
        id="train-criterion",
    ),
    pytest.param(
        ["--train", "head.*", "--scores", "x.json"], "--scores ranks what", id="train-scores"
    ),
    pytest.param(
        ["--train", "fc1.weight:in/2", "--no-shares"], "which --no-shares forbids", id="no-shares"
    ),
    pytest.param(
        ["--scores", "x.json", "--criterion", "taylor"],
        "--scores takes the place of --criterion taylor",
        id="scores-criterion",
    ),
    pytest.param(["--criterion", "user"], "give --scores FILE.json", id="user-without-scores"),
    pytest.param(["--steps", "9"], "--steps counts the updates of --energy-per-run", id="steps"),
    pytest.param(["--energy-per-run", "9J"], "give --steps, such as 1000", id="run-energy"),
    pytest.param(["--energy-per-run", "9J", "--steps", "0"], "at least one update", id="no-steps"),
    pytest.param(["--gap", "1"], "--gap is 1.0: expected a share from 0", id="gap"),
    pytest.param(["--gap", "nan"], "--gap is nan", id="nan"),
    pytest.param(["--top-k", "0"], "--top-k is 0: expected at least one tensor", id="top-0"),
    pytest.param(["--threshold", "inf"], "--threshold is inf: expected a finite", id="infinite"),
    pytest.param(["--criterion", "fischer"], "invalid choice: 'fischer'", id="criterion"),
    pytest.param(["--time-limit", "30"], "cannot read the quantity '30'", id="no-unit"),
]
OF_PLAN = [
    pytest.param(["--plot", "x.svg"], "add --frontier memory or --frontier energy", id="plot"),
    pytest.param(
        ["--frontier", "memory", "--plot", "x.pdf"], "ends in .svg or .png", id="plot-suffix"
    ),
    pytest.param(
        ["--frontier", "memory", "--train", "head.*"],
        "--train decides what they are",
        id="frontier",
    ),
    pytest.param(
        ["--frontier", "memory", "--top-k", "2"], "--top-k decides what they are", id="frontier-top"
    ),
    pytest.param(
        ["--compare-criteria", "--train", "head.*"], "--train decides it", id="compare-train"
    ),
]


@pytest.mark.parametrize("command", ["plan", "export"])
@pytest.mark.parametrize(("options", "part"), BOTH)
def test_options_that_contradict_each_other_are_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, options: list[str], part: str
) -> None:
    monkeypatch.chdir(tmp_path)
    out = ["--out", "bundle"] if command == "export" else []
    assert_one_error(edgetune(command, MODEL, *PI, *options, *out), 2, part)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("options", "part"), OF_PLAN)
def test_reports_that_contradict_the_request_are_one_error(options: list[str], part: str) -> None:
    assert_one_error(edgetune("plan", MODEL, *PI, *options), 2, part)


def test_all_contradictions_are_listed_at_once() -> None:
    ran = edgetune(
        "plan", MODEL, *PI, "--train", "*", "--top-k", "2", "--plot", "x.gif", "--steps", "1"
    )
    assert_one_error(ran, 2, "cannot use these options: 4 problems", "--steps", "--top-k", "--plot")


def test_a_threshold_that_selects_nothing_says_what_the_greatest_score_is() -> None:
    ran = edgetune("plan", MODEL, *PI, "--threshold", "1e9")
    assert_one_error(ran, 2, "the threshold 1e+09 selects nothing: the greatest score is ")


def test_a_plot_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("keep me")
    before = listing(tmp_path)
    for path, part in ((tmp_path / "file" / "x.svg", "is a file"), (tmp_path, "ends in")):
        ran = edgetune("plan", MODEL, *PI, "--frontier", "memory", "--plot", path)
        assert_one_error(ran, 10 if part == "is a file" else 2, part)
    with pytest.raises(StorageError, match="cannot write"):
        frontier_plot.write_frontier_plot((), "memory", "a device", tmp_path / "file" / "x.svg")
    assert listing(tmp_path) == before


def test_without_matplotlib_only_a_plot_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frontier_plot, "find_spec", lambda name: None)
    options = ("--frontier", "energy", *FAST)
    assert edgetune("plan", MODEL, *PI, *options).code == 0
    ran = edgetune("plan", MODEL, *PI, *options, "--plot", tmp_path / "x.svg")
    assert_one_error(ran, 8, "--plot needs matplotlib: pip install 'edgetune[plot]'")
    assert list(tmp_path.iterdir()) == []
