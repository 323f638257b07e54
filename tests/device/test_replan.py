"""Planning again from a bundle's cost table: no graphs, no torch."""

from __future__ import annotations

import fnmatch
import json
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgetune.files.bundle import digests_of, write_manifest
from edgetune.files.device_profiles import load_profile
from edgetune.nouns.budget import Budget
from edgetune.nouns.bundle_names import COSTS
from edgetune.nouns.loss import LossSpec
from edgetune.nouns.manifest import Manifest
from edgetune.nouns.optimizer import Optimizer
from edgetune.nouns.plain import to_plain
from edgetune.nouns.plan import Certificate, UpdatePlan
from edgetune.nouns.selection import Selection
from edgetune.nouns.signature import Signature
from edgetune.nouns.step_graph import StepGraph
from edgetune.planning.choose import choose
from edgetune.planning.replan import (
    scores_of_candidates,
    scores_of_what_is_there,
    train_patterns,
)
from edgetune.planning.step_cost import StepCosts
from tests.bundles.support import assert_one_error, edgetune, listing, subprocess_environment
from tests.device.planned_cases import random_case

PI = load_profile("raspberry-pi-4b-4gb")
SGD = Optimizer("sgd")
GRAPH: StepGraph = random_case(3).variants[0].graph  # whole tensors and shares
COSTS_OF = StepCosts(GRAPH, GRAPH.batch, SGD, PI)
WHOLE = [c.name for c in GRAPH.candidates if c.share is None]
SHARES = [c.name for c in GRAPH.candidates if c.share is not None]


def plan_of(selection: Selection, scores: Mapping[str, float]) -> UpdatePlan:
    return UpdatePlan(
        device=PI.id,
        selection=selection,
        batch=GRAPH.batch,
        micro_batch=GRAPH.batch,
        optimizer=SGD,
        budget=Budget(),
        cost=COSTS_OF.cost(COSTS_OF.bits_of(selection)),
        certificate=Certificate("exact" if scores else "patterns", 1.0, 10.0),
        parameter_count=10_000,
        trainable_count=1,
        criterion="fisher" if scores else "",
        scores=scores,
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Trains the first two whole tensors; holds the files that planning reads, and no others."""
    selection = Selection(tuple(WHOLE[:2]))
    return write_bundle(tmp_path / "bundle", plan_of(selection, {WHOLE[0]: 1.0, WHOLE[1]: 0.5}))


def write_bundle(folder: Path, plan: UpdatePlan, **changes: Any) -> Path:
    folder.mkdir()
    (folder / COSTS).write_text(json.dumps(to_plain(GRAPH)))
    manifest = Manifest(
        "portable", Signature((), (), ()), LossSpec("custom"), plan, (), (), digests_of(folder)
    )
    write_manifest(folder, replace(manifest, **changes))
    return folder


def scores_file(folder: Path, scores: Any) -> Path:
    path = folder / "scores.json"
    path.write_text(json.dumps(scores))
    return path


FRESH = {name: float(1 + i) for i, name in enumerate(WHOLE)}


def test_the_cases_have_shares_and_several_tensors() -> None:
    assert len(WHOLE) > 3 and SHARES


# the plan -------------------------------------------------------------------------------------


def test_with_fresh_scores_the_plan_is_that_of_the_planner(bundle: Path, tmp_path: Path) -> None:
    scores = scores_of_candidates(GRAPH, FRESH)
    everything = choose([COSTS_OF], scores, Budget())
    bound = everything.cost.peak_bytes - 1
    expected = choose([COSTS_OF], scores, Budget(memory_bytes=bound))
    path = scores_file(tmp_path, FRESH)
    plan = edgetune("replan", bundle, "--scores", path, "--memory", f"{bound}B", "--json").json
    assert tuple(plan["selection"]["trainable"]) == expected.selection.trainable
    assert set(plan["selection"]["shares"]) == set(expected.selection.shares)
    assert plan["cost"] == to_plain(expected.cost)
    assert plan["cost"]["peak_bytes"] <= bound < everything.cost.peak_bytes
    assert plan["objective"] == pytest.approx(expected.certificate.objective)
    assert plan["gap"] == 0 and plan["bound"] == pytest.approx(plan["objective"])
    assert plan["criterion"] == "user"


def test_the_difference_from_the_bundles_plan_is_said(bundle: Path, tmp_path: Path) -> None:
    only = scores_file(tmp_path, {WHOLE[1]: 2.0, WHOLE[2]: 1.0})
    plan = edgetune("replan", bundle, "--scores", only, "--json").json
    assert (plan["added"], plan["dropped"]) == ([WHOLE[2]], [WHOLE[0]])
    ran = edgetune("replan", bundle, "--scores", only)
    assert ran.code == 0
    assert f"\nadded        1: {WHOLE[2]}\ndropped      1: {WHOLE[0]}\n" in ran.out
    assert "importance   100.0 % of all there is, by your scores\n" in ran.out
    said, _, command = ran.out.splitlines()[-1].partition("edgetune export MODEL ")
    assert said == "to export    the bundle's graphs are fixed; on the workstation: "
    options = shlex.split(command)
    assert options[:4] == ["--out", "BUNDLE", "--device", PI.id]
    trained = [options[i + 1] for i, option in enumerate(options) if option == "--train"]
    assert trained == [WHOLE[1], WHOLE[2]] == plan["train"]


def test_a_share_in_place_of_its_tensor_is_a_difference(bundle: Path, tmp_path: Path) -> None:
    share = next(name for name in SHARES if name.startswith(WHOLE[0]))
    path = scores_file(tmp_path, {share: 2.0})
    plan = edgetune("replan", bundle, "--scores", path, "--json").json
    assert (plan["added"], plan["dropped"]) == ([share], WHOLE[:2])
    assert f"--scores {path} " in edgetune("replan", bundle, "--scores", path).out


def test_without_a_file_the_scores_are_those_of_the_plan(bundle: Path) -> None:
    ran = edgetune("replan", bundle)
    assert ran.out.endswith(
        "difference   none: by these scores the bundle trains the best already\n"
    )
    assert "importance   15.0 % of all there is, by fisher\n" in ran.out  # 1.5 of the plan's 10
    assert "to export" not in ran.out


def test_the_budget_that_is_not_given_is_the_plans(tmp_path: Path) -> None:
    plan = plan_of(Selection((WHOLE[0],)), {WHOLE[0]: 1.0})
    bound = 2**30
    folder = write_bundle(tmp_path / "bundle", replace(plan, budget=Budget(memory_bytes=bound)))
    again = edgetune("replan", folder, "--step-seconds", "9s", "--json").json
    assert again["budget"]["memory_bytes"] == bound
    assert again["budget"]["step_seconds"] == 9.0
    usable = PI.usable_memory_bytes
    assert usable is not None
    larger = edgetune("replan", folder, "--memory", "64GiB", "--json").json
    assert larger["budget"]["memory_bytes"] == usable.value


def test_another_device_has_other_costs(bundle: Path) -> None:
    plan = edgetune("replan", bundle, "--device", "generic-x86", "--json").json
    assert plan["device"] == "generic-x86"
    assert plan["cost"]["seconds"] != edgetune("replan", bundle, "--json").json["cost"]["seconds"]


def test_a_users_own_profile_is_taken_in_place_of_a_device(bundle: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        'id = "own"\nlike = "raspberry-pi-4b-4gb"\nname = "Own"\n[bandwidth_bytes_per_second]\n'
        'value = 1e6\nkind = "measured"\nsource = "here"\ndate = "2026-11"\n'
    )
    there = edgetune("replan", bundle, "--device", PI.id, "--json").json
    plan = edgetune("replan", bundle, "--device", own, "--json").json
    assert plan["device"] == "own"
    assert plan["cost"]["seconds"] > there["cost"]["seconds"]


def test_nothing_is_written(bundle: Path, tmp_path: Path) -> None:
    path = scores_file(tmp_path, FRESH)
    before = listing(tmp_path)
    assert edgetune("replan", bundle, "--scores", path).code == 0
    assert listing(tmp_path) == before


def test_planning_again_needs_no_torch_and_training_no_solver(bundle: Path) -> None:
    code = (
        "import sys; from edgetune.cli.main import main\n"
        "loaded = {'highspy', 'edgetune.planning.limits'} & set(sys.modules)\n"
        "sys.modules.update(dict.fromkeys(['torch', 'onnx', 'onnxruntime', 'edgetune_exporters']))"
        "\nsys.exit(main(['replan', sys.argv[1]]) or len(loaded))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(bundle)],
        capture_output=True,
        text=True,
        env=subprocess_environment(),
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")


# measured energy ------------------------------------------------------------------------------


def energy_of(bundle: Path, path: Path, *options: str) -> Any:
    ran = edgetune("replan", bundle, "--scores", path, *options, "--json")
    assert ran.code == 0, ran.err
    return ran.json


def test_predictions_of_energy_are_off_by_the_factor_that_was_measured(
    bundle: Path, tmp_path: Path
) -> None:
    path = scores_file(tmp_path, FRESH)
    predicted = plan_of(Selection(tuple(WHOLE[:2])), {}).cost.joules
    assert predicted is not None
    everything = energy_of(bundle, path)
    bound = everything["cost"]["joules"] * 0.9
    cheap = energy_of(bundle, path, "--energy-per-step", f"{bound}J")
    # Twice the energy within twice the budget is the same plan, and within the same a smaller one.
    twice = ("--measured-energy-per-step", f"{2 * predicted}J", "--energy-per-step")
    same = energy_of(bundle, path, *twice, f"{2 * bound}J")
    smaller = energy_of(bundle, path, *twice, f"{bound}J")
    assert same["selection"] == cheap["selection"]
    assert same["cost"]["joules"] == pytest.approx(2 * cheap["cost"]["joules"])
    assert same["budget"]["energy_joules"] == pytest.approx(2 * bound)
    assert smaller["cost"]["joules"] <= bound < everything["cost"]["joules"]
    assert smaller["objective"] < cheap["objective"] < everything["objective"]
    halves = {name: 2 if "energy" in name else 1 for name in cheap["prices"]}
    assert 2 in halves.values()
    for name, price in cheap["prices"].items():
        assert same["prices"][name] == pytest.approx(price / halves[name])


def test_as_much_as_was_predicted_changes_nothing(bundle: Path, tmp_path: Path) -> None:
    path = scores_file(tmp_path, FRESH)
    predicted = plan_of(Selection(tuple(WHOLE[:2])), {}).cost.joules
    run = ("--energy-per-run", "1kJ", "--steps", "1000")
    expected = energy_of(bundle, path, *run)
    found = energy_of(bundle, path, *run, "--measured-energy-per-step", f"{predicted!r}J")
    assert found["selection"] == expected["selection"]
    assert found["cost"]["joules"] == pytest.approx(expected["cost"]["joules"])
    assert found["budget"] == pytest.approx(expected["budget"])


# errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code", "parts"),
    [
        pytest.param(["--memory", "1MiB"], 5, ["cannot even run the model within"], id="memory"),
        pytest.param(["--memory", "1"], 2, ["cannot read the quantity '1'"], id="unit"),
        pytest.param(["--device", "pi"], 4, ["unknown device 'pi'"], id="device"),
        pytest.param(["--steps", "9"], 2, ["--steps counts the updates of"], id="steps"),
        pytest.param(["--energy-per-run", "9J"], 2, ["give --steps, such as 1000"], id="run"),
        pytest.param(["--gap", "1.5"], 2, ["--gap is 1.5: expected a share"], id="gap"),
        pytest.param(
            ["--measured-energy-per-step", "1J", "--device", "generic-x86"],
            5,
            ["the profile of generic-x86 predicts no energy"],
            id="measured-energy-of-an-unknown-power",
        ),
        pytest.param(
            ["--measured-energy-per-step", "0J"],
            2,
            ["cannot use the quantity '0J'"],
            id="no-joule",
        ),
        pytest.param(["--scores", "none.json"], 3, ["cannot read the scores"], id="no-file"),
    ],
)
def test_what_cannot_be_planned_is_one_error(
    bundle: Path, options: list[str], code: int, parts: list[str]
) -> None:
    assert_one_error(edgetune("replan", bundle, *options), code, *parts)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        pytest.param("[1]", ["no JSON object of names and numbers"], id="list"),
        pytest.param("{", ["cannot read the scores"], id="no-json"),
        pytest.param("{}", ["it holds no score"], id="empty"),
        pytest.param(
            f'{{"{WHOLE[0]}x": 1, "{WHOLE[1]}": true, "{WHOLE[2]}": NaN, "{WHOLE[2]}": 1}}',
            [
                "4 problems",
                f"there is no {WHOLE[0]}x; the nearest names are ",
                f"{WHOLE[1]} has True, expected a number",
                f"{WHOLE[2]} has nan, expected a finite number",
                f"{WHOLE[2]} stands there more than once",
            ],
            id="entries",
        ),
    ],
)
def test_wrong_scores_are_all_listed(
    bundle: Path, tmp_path: Path, text: str, parts: list[str]
) -> None:
    path = tmp_path / "scores.json"
    path.write_text(text)
    assert_one_error(edgetune("replan", bundle, "--scores", path), 3, *parts)


def test_a_plan_by_hand_has_no_scores_to_plan_with(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle", plan_of(Selection((WHOLE[0],)), {}))
    part = "was made by patterns and has no scores: give --scores FILE.json"
    assert_one_error(edgetune("replan", folder), 2, part)
    path = scores_file(tmp_path, FRESH)
    assert edgetune("replan", folder, "--scores", path).code == 0


def test_a_bundle_without_a_cost_table_says_which_format_has_one(
    bundle: Path, tmp_path: Path
) -> None:
    plan = plan_of(Selection((WHOLE[0],)), {WHOLE[0]: 1.0})
    other = write_bundle(tmp_path / "other", plan, format="ort-training", digests={})
    assert_one_error(edgetune("replan", other), 6, "has no costs.json", "--format portable")
    assert_one_error(edgetune("replan", tmp_path), 6, "no bundle at")


@pytest.mark.parametrize("keep_digest", [True, False])
def test_a_damaged_cost_table_is_refused(tmp_path: Path, keep_digest: bool) -> None:
    plan = plan_of(Selection((WHOLE[0],)), {WHOLE[0]: 1.0})
    folder = write_bundle(tmp_path / "bundle", plan)
    plain = json.loads((folder / COSTS).read_text())
    plain["batch"] = "many"
    (folder / COSTS).write_text(json.dumps(plain))
    if keep_digest:
        assert_one_error(edgetune("replan", folder), 6, "costs.json is not what was exported")
        return
    manifest = Manifest(
        "portable", Signature((), (), ()), LossSpec("custom"), plan, (), (), digests_of(folder)
    )
    write_manifest(folder, manifest)
    assert_one_error(edgetune("replan", folder), 6, "damaged: costs.batch is 'many', expected int")


# scores and patterns --------------------------------------------------------------------------


def test_a_share_has_its_part_of_the_score_of_its_tensor_unless_it_has_its_own() -> None:
    share = next(c for c in GRAPH.candidates if c.share is not None)
    part = GRAPH.tensor_bytes[share.gradient] / GRAPH.tensor_bytes[share.parameter]
    assert 0 < part < 1
    found = scores_of_candidates(GRAPH, {share.parameter: 8.0})
    assert found[share.parameter] == 8.0
    assert found[share.name] == 8.0 * part
    assert {name.partition(":")[0] for name in found} == {share.parameter}
    found = scores_of_candidates(GRAPH, {share.parameter: 8.0, share.name: 7.0})
    assert found[share.name] == 7.0


NAMES = ["a.b.weight", "a.b.bias", "a.c.weight", "a.c.bias", "head.weight", "head.bias"]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        pytest.param(NAMES, ["*"], id="everything"),
        pytest.param(NAMES[:4], ["a.*"], id="part"),
        pytest.param(NAMES[2:], ["a.c.*", "head.*"], id="modules"),
        pytest.param(["a.b.bias", "head.bias"], ["a.b.bias", "head.bias"], id="names"),
        pytest.param(
            ["a.b.weight:in/2", "a.c.weight", "a.c.bias"],
            ["a.b.weight:in/2", "a.c.*"],
            id="share",
        ),
    ],
)
def test_few_patterns_select_exactly_what_was_chosen(
    chosen: list[str], expected: list[str]
) -> None:
    graph = replace(
        GRAPH, candidates=tuple(replace(GRAPH.candidates[0], name=n, share=None) for n in NAMES)
    )
    patterns = train_patterns(chosen, graph)
    assert patterns == expected
    whole = [name for name in chosen if ":" not in name]
    matched = [n for n in NAMES if any(fnmatch.fnmatchcase(n, p) for p in patterns)]
    assert matched == whole


def test_a_bundle_goes_on_with_what_it_trains_and_with_what_was_asked_for_by_name() -> None:
    share = next(c for c in GRAPH.candidates if c.share is not None)
    plan = plan_of(Selection((share.parameter,)), {})
    given = {share.parameter: 8.0}
    scores = scores_of_candidates(GRAPH, given)
    assert share.name in scores
    assert scores_of_what_is_there(GRAPH, plan, scores, given) == given
    asked = {**given, share.name: 1.0}
    scores = scores_of_candidates(GRAPH, asked)
    assert scores_of_what_is_there(GRAPH, plan, scores, asked) == asked
