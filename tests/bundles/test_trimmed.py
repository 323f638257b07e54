"""Bundles that train part of what another one trains, made of its graphs alone."""

from __future__ import annotations

import fnmatch
import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetune.errors import UsageError
from edgetune.files.bundle import check_digests, digests_of, read_manifest, write_manifest
from edgetune.files.checkpoint import read_checkpoint
from edgetune.files.cost_table import read_cost_table
from edgetune.files.safetensors_stream import read_file
from edgetune.nouns.bundle_names import (
    ACCUMULATED,
    FEATURES,
    FROZEN,
    GRADIENTS,
    MANIFEST,
    STATE,
    UPDATE,
    slot_name,
)
from edgetune.nouns.manifest import Manifest
from edgetune.nouns.plan import UpdatePlan
from edgetune.nouns.selection import Selection
from edgetune.nouns.step_graph import StepGraph
from edgetune.runtime.open_session import open_as_exported, open_session
from edgetune.runtime.self_test import read_self_test, synthetic_gradients
from edgetune.runtime.trimmed_bundle import check_trimmable, write_trimmed_bundle
from tests.bundles.support import (
    assert_one_error,
    bundle_of,
    copy_of,
    data_of,
    edgetune,
    listing,
    train,
)

NAME = "multi_label"
PI = "raspberry-pi-4b-4gb"
HEAD = {"head.weight": 1.0, "head.bias": 1.0}
METER = f"command:{shlex.join(['sh', '-c', 'while :; do echo 5; sleep 0.05; done'])}"
AT_THE_WALL = ("--meter", METER, "--meter-scope", "wall")


def opened(name: str) -> tuple[Manifest, StepGraph]:
    manifest, _ = read_manifest(bundle_of(name))
    return manifest, read_cost_table(bundle_of(name), manifest)


def part_of(plan: UpdatePlan, *patterns: str) -> UpdatePlan:
    names = plan.selection.trainable
    kept = tuple(n for n in names if any(fnmatch.fnmatchcase(n, p) for p in patterns))
    assert 0 < len(kept) < len(names)
    return replace(plan, selection=Selection(kept))


def trimmed(name: str, folder: Path, *patterns: str) -> Path:
    manifest, graph = opened(name)
    out = folder / "trimmed"
    write_trimmed_bundle(bundle_of(name), part_of(manifest.plan, *patterns), graph, out)
    return out


def scores_file(folder: Path, scores: dict[str, float]) -> Path:
    path = folder / "scores.json"
    path.write_text(json.dumps(scores))
    return path


# what it computes -----------------------------------------------------------------------------

# Bundle, what stays, and whether more of the forward lies below what is trained.
CASES = [
    pytest.param("distilbert", ["*layer.1.*.bias"], False, id="biases"),
    pytest.param("distilbert", ["*classifier.*"], True, id="the-last-layers"),
    pytest.param("mobilenet_v3_small", ["classifier.3.*"], True, id="the-head-of-a-cnn"),
    pytest.param("mobilenet_v3_small", ["features.11.block.0.*"], False, id="the-first-layers"),
    pytest.param("cnn1d", ["head.*"], True, id="where-nothing-was-frozen"),
    pytest.param("cnn1d", ["features.0.*", "head.bias"], False, id="first-and-last"),
    pytest.param("lstm_classifier", ["head.weight"], True, id="one-tensor"),
    pytest.param("regression", ["*.bias"], False, id="plain-sgd"),
    pytest.param(NAME, ["fc2.bias", "head.*"], False, id="adamw"),
]


@pytest.mark.parametrize(("name", "patterns", "grows"), CASES)
def test_it_computes_what_the_whole_bundle_computes(
    tmp_path: Path, name: str, patterns: list[str], grows: bool
) -> None:
    out = trimmed(name, tmp_path, *patterns)
    whole, part = open_as_exported(bundle_of(name)), open_as_exported(out)
    assert (part.manifest.features != whole.manifest.features) is grows
    batch = read_self_test(out).batch
    # A larger prefix is a graph that onnxruntime may fuse, and fused sums round differently.
    tolerance: dict[str, Any] = {"rtol": 2e-5, "atol": 2e-6} if grows else {"rtol": 0, "atol": 0}
    for session in (whole, part):
        session.accumulate(batch)
    assert part.accumulate(batch).loss == pytest.approx(whole.accumulate(batch).loss, rel=1e-6)
    gradients = whole.gradients()
    kept = part.manifest.plan.selection.trainable
    assert tuple(part.gradients()) == kept
    for gradient_name, gradient in part.gradients().items():
        np.testing.assert_allclose(gradient, gradients[gradient_name], **tolerance)
    evaluations = [session.evaluate(batch) for session in (whole, part)]
    assert evaluations[0].loss == pytest.approx(evaluations[1].loss, rel=1e-6)
    predictions = whole.predict(batch.inputs)
    for output, value in part.predict(batch.inputs).items():
        np.testing.assert_allclose(value, predictions[output], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("name", "patterns", "grows"), CASES)
def test_its_updates_are_those_of_the_whole_bundle_where_the_others_have_no_gradient(
    tmp_path: Path, name: str, patterns: list[str], grows: bool
) -> None:
    whole, part = (
        open_as_exported(bundle_of(name)),
        open_as_exported(trimmed(name, tmp_path, *patterns)),
    )
    nothing = {name: np.zeros_like(value) for name, value in whole.values().items()}
    for step in range(3):
        gradients = synthetic_gradients(part.values(), step)
        whole.load_gradients({**nothing, **gradients})
        part.load_gradients(gradients)
        norms = [session.update(0.01, 0.5) for session in (whole, part)]
        assert norms[0] == norms[1] > 0.5
    values = whole.values()
    for tensor, value in part.values().items():
        np.testing.assert_array_equal(value, values[tensor])
    part.load_gradients({**gradients, **{n: 2 * g for n, g in gradients.items()}})
    assert part.update(0.01, None) == pytest.approx(2 * norms[1])


@pytest.mark.parametrize(("name", "patterns", "grows"), CASES)
def test_it_is_a_bundle_like_any_other(
    tmp_path: Path, name: str, patterns: list[str], grows: bool
) -> None:
    out = trimmed(name, tmp_path, *patterns)
    ran = edgetune("verify", out)
    assert ran.code == 0, ran.err
    assert "gradients and updates agree with the whole bundle (" in ran.out
    manifest, _ = read_manifest(out)
    check_digests(out, manifest.digests)
    assert set(manifest.digests) == set(digests_of(out))
    assert (FEATURES in manifest.digests) is bool(manifest.features)
    kept = manifest.plan.selection.trainable
    assert set(read_file(out / STATE)) == set(kept)
    dropped = set(opened(name)[0].plan.selection.trainable) - set(kept)
    for graph in (out / UPDATE, out / GRADIENTS):
        content = graph.read_bytes()
        assert all(f"{ACCUMULATED}{tensor}".encode() in content for tensor in kept)
        assert not any(f"{ACCUMULATED}{tensor}".encode() in content for tensor in dropped)
    ran = edgetune("train", out, "--data", data_of(name), "--quiet", "--epochs", "2")
    assert ran.code == 0, ran.err
    merged = edgetune("merge", out, "--delta", tmp_path / "trimmed.delta.safetensors",
                      "--out", tmp_path / "merged.onnx")  # fmt: skip
    assert merged.code == 0, merged.err


def test_the_same_plan_makes_the_same_graphs(tmp_path: Path) -> None:
    for name in (NAME, "regression"):
        manifest, graph = opened(name)
        write_trimmed_bundle(bundle_of(name), manifest.plan, graph, tmp_path / name)
        before, after = listing(bundle_of(name)), listing(tmp_path / name)
        changed = {file for file in before if before[file] != after[file]}
        assert changed <= {"selftest.npz", STATE, MANIFEST}
    first = listing(trimmed("cnn1d", tmp_path / "first", "head.*"))
    assert listing(trimmed("cnn1d", tmp_path / "second", "head.*")) == first


def test_the_bundle_it_was_made_of_stays_as_it_was(tmp_path: Path) -> None:
    for patterns, grows in ((["fc2.*"], False), (["head.*"], True)):  # fc2.weight is a large one
        before = listing(bundle_of(NAME))
        out = trimmed(NAME, tmp_path / str(grows), *patterns)
        assert listing(bundle_of(NAME)) == before
        frozen = [(folder / FROZEN).stat().st_size for folder in (bundle_of(NAME), out)]
        assert (frozen[1] > frozen[0]) is grows


# the command ----------------------------------------------------------------------------------


def test_replan_writes_the_bundle_of_a_plan_that_drops_tensors(tmp_path: Path) -> None:
    out, scores = tmp_path / "new", scores_file(tmp_path, HEAD)
    ran = edgetune("replan", bundle_of(NAME), "--scores", scores, "--out", out)
    assert ran.code == 0, ran.err
    assert "dropped      2: fc2.weight, fc2.bias\n" in ran.out
    assert ran.out.endswith(f"bundle       {out}\n") and "to export" not in ran.out
    manifest, _ = read_manifest(out)
    assert manifest.plan.selection.trainable == tuple(HEAD)
    before = read_manifest(bundle_of(NAME))[0].plan
    assert manifest.plan.trainable_count < before.trainable_count
    assert manifest.plan.cost.flops < before.cost.flops
    assert edgetune("verify", out).code == 0
    again = edgetune("replan", out, "--out", tmp_path / "again", "--json")
    assert (again.json["dropped"], again.json["written"]) == ([], {"bundle": f"{tmp_path}/again"})


def test_energy_ends_a_run_and_what_is_left_goes_on_in_a_bundle_that_trains_less(
    tmp_path: Path,
) -> None:
    clipped = ("--clip-norm", "1.0", "--validation", data_of(NAME))
    ended = train(NAME, tmp_path, *clipped, "--epochs", "100000", "--energy", "3J", *AT_THE_WALL)
    assert ended.code == 21, ended.err
    checkpoint, out = tmp_path / "checkpoint", tmp_path / "new"
    saved = read_checkpoint(checkpoint)
    scores = scores_file(tmp_path, HEAD)
    ran = edgetune(
        *("replan", bundle_of(NAME), "--scores", scores, "--device", PI),
        *("--checkpoint", checkpoint, "--out", out),
    )
    assert ran.code == 0, ran.err
    assert ran.out.endswith(f"bundle       {out}\ncheckpoint   {out}.checkpoint\n")
    moved = read_checkpoint(tmp_path / "new.checkpoint")
    for name in HEAD:
        for key in (name, slot_name("exp_avg", name), slot_name("exp_avg_sq", name)):
            np.testing.assert_array_equal(moved.state[key], saved.state[key])
    assert set(saved.state) - set(moved.state) == {
        *("fc2.weight", "fc2.bias"),
        *(f"slot:{s}:fc2.{t}" for s in ("exp_avg", "exp_avg_sq") for t in ("weight", "bias")),
    }
    assert (moved.step, moved.epoch, moved.history) == (saved.step, saved.epoch, saved.history)
    assert (moved.best_epoch, dict(moved.best_values)) == (None, {})
    assert edgetune("verify", out).code == 0
    # The values are those of the checkpoint, with and without it.
    data = ("--data", data_of(NAME), "--json")
    before = edgetune("evaluate", bundle_of(NAME), *data, "--checkpoint", checkpoint).json
    for options in ([], ["--checkpoint", tmp_path / "new.checkpoint"]):
        after = edgetune("evaluate", out, *data, *options).json
        assert after["loss"] == pytest.approx(before["loss"], rel=1e-6)
    epochs = str(saved.epoch + 3)
    more = edgetune(
        *("train", out, "--data", data_of(NAME), "--resume", "--epochs", epochs, "--quiet"),
        *clipped,
    )
    assert more.code == 0, more.err
    assert read_checkpoint(tmp_path / "new.checkpoint").step > saved.step


def test_measured_energy_that_departs_from_the_plan_leads_to_a_smaller_one_in_the_same_budget(
    tmp_path: Path,
) -> None:
    assert train(NAME, tmp_path, "--epochs", "2").code == 0
    steps, scores = 100, scores_file(tmp_path, {"fc2.weight": 1.0, "fc2.bias": 0.5, **HEAD})
    options = ("replan", bundle_of(NAME), "--scores", scores, "--device", PI, "--json")
    planned = edgetune(*options).json["cost"]["joules"]
    options += ("--energy-per-run", f"{steps * planned * 1.01}J", "--steps", str(steps))
    options += ("--checkpoint", tmp_path / "checkpoint")
    as_planned = edgetune(*options, "--out", tmp_path / "same")
    assert as_planned.json["dropped"] == []
    measured = ("--measured-energy-per-step", f"{1.5 * planned}J")
    dearer = edgetune(*options, *measured, "--out", tmp_path / "less")
    assert dearer.json["dropped"]
    assert dearer.json["budget"] == as_planned.json["budget"]
    assert planned / 2 < dearer.json["cost"]["joules"] <= planned * 1.01
    for name, dropped in (("same", []), ("less", dearer.json["dropped"])):
        trained = read_manifest(tmp_path / name)[0].plan.selection.trainable
        assert set(trained) == {"fc2.weight", "fc2.bias", *HEAD} - set(dropped)
        more = ("--data", data_of(NAME), "--epochs", "3", "--resume", "--energy", "none")
        assert edgetune("train", tmp_path / name, *more, "--quiet").code == 0


def test_the_first_step_after_it_is_the_whole_bundles_but_for_what_was_dropped(
    tmp_path: Path,
) -> None:
    assert train(NAME, tmp_path, "--epochs", "1").code == 0
    checkpoint, out = tmp_path / "checkpoint", tmp_path / "new"
    scores = scores_file(tmp_path, HEAD)
    options = ("--scores", scores, "--checkpoint", checkpoint, "--out", out)
    assert edgetune("replan", bundle_of(NAME), *options).code == 0
    whole, part = open_session(bundle_of(NAME)), open_session(out)
    whole.load_state(read_checkpoint(checkpoint).state)
    part.load_state(read_checkpoint(tmp_path / "new.checkpoint").state)
    batch = read_self_test(out).batch
    for session in (whole, part):
        session.accumulate(batch)
        session.update(0.01, None)
    for name, value in part.values().items():
        np.testing.assert_allclose(value, whole.values()[name], rtol=1e-5, atol=1e-6)


def test_a_bundle_with_a_delta_starts_from_it(tmp_path: Path) -> None:
    assert train(NAME, tmp_path, "--epochs", "2").code == 0
    tuned, out = tmp_path / "tuned", tmp_path / "new"
    applied = edgetune(
        "delta", "apply", tmp_path / "delta", "--to", bundle_of(NAME), "--out", tuned
    )
    assert applied.code == 0, applied.err
    scores = scores_file(tmp_path, HEAD)
    assert edgetune("replan", tuned, "--scores", scores, "--out", out).code == 0
    assert edgetune("verify", out).code == 0
    losses = [
        edgetune("evaluate", b, "--data", data_of(NAME), "--json").json["loss"]
        for b in (tuned, out, bundle_of(NAME))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert losses[2] != pytest.approx(losses[1], rel=1e-3)


# what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code", "parts"),
    [
        pytest.param(
            ["--scores", {"fc1.weight": 9.0, "fc1.bias": 9.0, **HEAD}, "--out", "new"],
            2,
            [
                "2 problems",
                "fc1.weight is not trained by the bundle",
                "fc1.bias is not trained by the bundle",
                "only a new export can train this plan",
            ],
            id="no-subset",
        ),
        pytest.param(
            ["--scores", HEAD, "--checkpoint", "none"],
            2,
            ["--checkpoint goes on in the bundle that --out writes"],
            id="checkpoint-alone",
        ),
        pytest.param(
            ["--scores", HEAD, "--out", "scores.json"], 2, ["exists: choose a new"], id="out"
        ),
        pytest.param(
            ["--scores", HEAD, "--out", "new", "--checkpoint", "none"],
            6,
            ["there is no checkpoint at"],
            id="no-checkpoint",
        ),
    ],
)
def test_what_cannot_be_written_is_one_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[Any], code: int, parts: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [scores_file(tmp_path, o) if isinstance(o, dict) else o for o in options]
    assert_one_error(edgetune("replan", bundle_of(NAME), *given), code, *parts)
    assert [path.name for path in tmp_path.iterdir()] == ["scores.json"]


def test_a_checkpoint_of_another_bundle_is_refused(tmp_path: Path) -> None:
    assert train("regression", tmp_path).code == 0
    scores = scores_file(tmp_path, HEAD)
    options = ("--scores", scores, "--checkpoint", tmp_path / "checkpoint", "--out", tmp_path / "o")
    ran = edgetune("replan", bundle_of(NAME), *options)
    assert_one_error(ran, 6, "was made from another bundle")
    assert not (tmp_path / "o").exists()


def test_the_other_format_is_refused(tmp_path: Path) -> None:
    ran = edgetune("replan", bundle_of(f"{NAME}-ort-training"), "--out", tmp_path / "new")
    assert_one_error(ran, 6, "has no costs.json", "--format portable")
    manifest, graph = opened(NAME)
    with pytest.raises(UsageError, match="this bundle has ort-training"):
        check_trimmable(replace(manifest, format="ort-training"), manifest.plan, graph)


def test_a_prefix_in_8_bits_may_not_grow(tmp_path: Path) -> None:
    manifest, graph = opened(NAME)
    rounded = replace(manifest, plan=replace(manifest.plan, precision="int8"))
    check_trimmable(rounded, part_of(manifest.plan, "fc2.bias"), graph)
    with pytest.raises(UsageError, match="only an export can round"):
        check_trimmable(rounded, part_of(manifest.plan, "head.*"), graph)


def test_a_trimmed_bundle_that_computes_something_else_says_than_what(tmp_path: Path) -> None:
    out = trimmed(NAME, tmp_path, "head.*")
    (out / UPDATE).write_bytes((out / UPDATE).read_bytes().replace(b"Sqrt", b"Relu"))
    manifest, _ = read_manifest(out)
    write_manifest(out, replace(manifest, digests=digests_of(out)))
    part = "of head.weight differs from the whole bundle's"
    assert_one_error(edgetune("verify", out), 6, "fails its self-test here", part)
    assert "computes something else than the whole bundle" in edgetune("doctor", out).out


def test_a_bundle_that_fails_its_own_self_test_is_not_trimmed(tmp_path: Path) -> None:
    folder = copy_of(NAME, tmp_path)
    (folder / UPDATE).write_bytes((bundle_of(NAME) / UPDATE).read_bytes().replace(b"Sqrt", b"Relu"))
    out, scores = tmp_path / "new", scores_file(tmp_path, HEAD)
    options = ("--scores", scores, "--out", out)
    assert_one_error(edgetune("replan", folder, *options), 6, "update.onnx is not what was")
    manifest, _ = read_manifest(folder)
    write_manifest(folder, replace(manifest, digests=digests_of(folder)))
    assert_one_error(edgetune("replan", folder, *options), 6, "fails its self-test here")
    assert not out.exists()
