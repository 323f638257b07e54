"""Bundles trimmed on a device, against what an export of the same plan writes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from edgetune_exporters.export import export
from edgetune_exporters.int8.calibration import Int8Calibration
from edgetune_exporters.make_plan import make_plan

from edgetune.files.bundle import read_manifest
from edgetune.files.cost_table import read_cost_table
from edgetune.files.device_profiles import load_profile
from edgetune.files.onnx_trim import trim_model
from edgetune.nouns.bundle_names import FEATURES, UPDATE
from edgetune.nouns.optimizer import Optimizer
from edgetune.nouns.plan import UpdatePlan
from edgetune.nouns.plan_request import PlanRequest
from edgetune.nouns.selection import Selection
from edgetune.runtime.open_session import open_as_exported
from edgetune.runtime.self_test import synthetic_gradients
from edgetune.runtime.trimmed_bundle import write_trimmed_bundle
from tests.bundles.support import edgetune
from tests.export.share_examples import BATCH, CASES, EXAMPLES, Case, batch_of, exported, planned

PORTABLE = ("portable",)
HARDSWISH = f"{Path(__file__).resolve().parents[1] / 'zoo' / 'hardswish.py'}:hardswish"


def part_of(plan: UpdatePlan, kept: tuple[str, ...]) -> UpdatePlan:
    shares = {name: s for name, s in plan.selection.shares.items() if name in kept}
    return replace(plan, selection=Selection(kept, shares))


def halves(case: Case) -> list[tuple[str, ...]]:
    names = case.selection().trainable
    return [names[: len(names) // 2], names[len(names) // 2 :], names[::2]]


@pytest.mark.parametrize("name", CASES)
def test_it_runs_the_operations_that_an_export_of_the_same_plan_runs(
    name: str, tmp_path: Path
) -> None:
    whole = exported(CASES[name], tmp_path / "whole", formats=PORTABLE)["portable"]
    manifest, _ = read_manifest(whole)
    graph = read_cost_table(whole, manifest)
    for index, kept in enumerate(halves(CASES[name])[1:]):
        plan = part_of(manifest.plan, kept)
        fresh, out = tmp_path / f"fresh{index}", tmp_path / f"trimmed{index}"
        step = planned(CASES[name])
        export(CASES[name].example(), replace(step, plan=plan), PORTABLE, fresh)
        written = write_trimmed_bundle(whole, plan, graph, out)
        assert written.features == read_manifest(fresh)[0].features
        graphs = {path.name for path in fresh.glob("*.onnx")}
        assert {path.name for path in out.glob("*.onnx")} == graphs
        for file in graphs - {UPDATE}:  # whose nodes are numbered from the first tensor on
            expected = onnx.load(fresh / file, load_external_data=False)
            outputs = [output.name for output in expected.graph.output]
            # What an export computes of constants alone, and nobody reads, is not run here.
            expected = onnx.ModelProto.FromString(trim_model((fresh / file).read_bytes(), outputs))
            found = onnx.ModelProto.FromString(trim_model((out / file).read_bytes(), outputs))
            assert list(found.graph.node) == list(expected.graph.node)
            for field in ("input", "output"):
                parts = [{p.name: p for p in getattr(m.graph, field)} for m in (found, expected)]
                assert parts[0] == parts[1]
            held = [{t.name for t in m.graph.initializer} for m in (found, expected)]
            assert held[0] == held[1]
        assert _kinds(out / UPDATE) == _kinds(fresh / UPDATE)


def _kinds(path: Path) -> list[str]:
    """The operators of an update, but for the sum of the norm, which may be of one term."""
    nodes = onnx.load(path, load_external_data=False).graph.node
    return sorted(node.op_type for node in nodes if node.op_type != "Sum")


@pytest.mark.parametrize("name", CASES)
def test_slices_that_are_no_longer_trained_keep_what_they_learned(
    name: str, tmp_path: Path
) -> None:
    case = CASES[name]
    folder = exported(case, tmp_path / "whole", Optimizer("sgd-momentum"), PORTABLE)["portable"]
    manifest, _ = read_manifest(folder)
    graph = read_cost_table(folder, manifest)
    whole = open_as_exported(folder)
    for step in range(2):
        whole.accumulate(batch_of(case.example(), step))
        whole.update(0.1, 1.0)
    before = whole.evaluate(batch_of(case.example(), 5)).loss
    assert before != open_as_exported(folder).evaluate(batch_of(case.example(), 5)).loss
    for index, kept in enumerate(halves(case)):
        plan, out = part_of(manifest.plan, kept), tmp_path / f"trimmed{index}"
        write_trimmed_bundle(folder, plan, graph, out, whole.values())
        part = open_as_exported(out)
        assert part.evaluate(batch_of(case.example(), 5)).loss == pytest.approx(before, rel=1e-6)
        for tensor, value in part.values().items():
            np.testing.assert_array_equal(value, whole.values()[tensor])
        for session in (part, whole):
            session.discard()
            session.accumulate(batch_of(case.example(), 6))
        gradients = whole.gradients()
        for tensor, gradient in part.gradients().items():
            np.testing.assert_allclose(gradient, gradients[tensor], rtol=1e-5, atol=1e-7)
        part.load_gradients(synthetic_gradients(part.values(), 0))
        part.update(0.1, 1.0)


def test_a_prefix_in_8_bits_is_taken_over_as_it_is(tmp_path: Path) -> None:
    request = PlanRequest(
        load_profile("generic-x86"), patterns=("9.*",), batch=BATCH, precisions=("int8",)
    )
    example, folder, out = EXAMPLES["cnn"](), tmp_path / "whole", tmp_path / "trimmed"
    export(example, make_plan(example, request), PORTABLE, folder, Int8Calibration(tolerance=1.0))
    manifest, _ = read_manifest(folder)
    assert manifest.plan.precision == "int8"
    graph = read_cost_table(folder, manifest)
    write_trimmed_bundle(folder, part_of(manifest.plan, ("9.weight",)), graph, out)
    assert (out / FEATURES).read_bytes() == (folder / FEATURES).read_bytes()
    whole, part = open_as_exported(folder), open_as_exported(out)
    for session in (whole, part):
        session.accumulate(batch_of(example, 0))
    found = part.gradients()["9.weight"]
    np.testing.assert_array_equal(found, whole.gradients()["9.weight"])


def test_less_memory_drops_tensors_also_where_activations_are_made_again(tmp_path: Path) -> None:
    model = (HARDSWISH, "--device", "raspberry-pi-4b-4gb")
    model += ("--batch", "2", "--micro-batch", "2")
    free = edgetune("plan", *model, "--no-shares", "--json").json["cost"]["peak_bytes"]
    whole, out = tmp_path / "whole", tmp_path / "trimmed"
    tight = ("--no-shares", "--memory", f"{free - 1}B", "--out", whole, "--json")
    exported = edgetune("export", *model, *tight)
    assert exported.code == 0, exported.err
    assert exported.json["plan"]["recomputes"]
    less = f"{exported.json['plan']['cost']['peak_bytes'] - 1}B"
    ran = edgetune("replan", whole, "--memory", less, "--out", out, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["dropped"] and not ran.json["added"]
    assert edgetune("verify", out).code == 0
    smaller = f"{ran.json['cost']['peak_bytes'] - 1}B"
    again = edgetune("replan", out, "--memory", smaller, "--out", tmp_path / "again", "--json")
    assert again.code == 0, again.err
    assert again.json["dropped"]
    assert edgetune("verify", tmp_path / "again").code == 0
