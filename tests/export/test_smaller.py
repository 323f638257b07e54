"""Bundles that carry a smaller micro-batch, and sessions that go over to it."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from edgetune_exporters import export as export_module
from edgetune_exporters.export import export
from edgetune_exporters.factory import Example
from edgetune_exporters.make_plan import make_plan
from edgetune_exporters.smaller import in_smaller_pieces
from torch import nn

from edgetune.errors import ExportError
from edgetune.files.bundle import read_manifest
from edgetune.files.device_profiles import load_profile
from edgetune.nouns.budget import Budget
from edgetune.nouns.bundle_names import SMALLER
from edgetune.nouns.plan_request import PlanRequest
from edgetune.runtime.open_session import open_session
from edgetune.runtime.self_test import read_self_test
from edgetune.runtime.session import MicroBatch, TrainingSession

ROOMY = Budget(memory_bytes=2**30)


def example() -> Example:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(16 * 16, 3),
    )  # fmt: skip
    targets = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    return Example(model, torch.randn(8, 1, 6, 6), targets, nn.CrossEntropyLoss())


def request(*patterns: str, **more: object) -> PlanRequest:
    wanted = PlanRequest(load_profile("generic-x86"), patterns=patterns, batch=8, budget=ROOMY)
    return replace(wanted, **more)  # type: ignore[arg-type]  # the table's own fields


def exported(out: Path, wanted: PlanRequest) -> Path:
    made = example()
    export(made, make_plan(made, wanted), ("portable",), out)
    return out


def trained(session: TrainingSession, batch: MicroBatch) -> dict[str, np.ndarray]:
    size = session.manifest.plan.micro_batch
    for start in range(0, len(batch.scale), size):
        rows = slice(start, start + size)
        inputs = {name: array[rows] for name, array in batch.inputs.items()}
        targets = {name: array[rows] for name, array in batch.targets.items()}
        session.accumulate(MicroBatch(inputs, targets, batch.scale[rows]))
    session.update(0.1, None)
    return session.values()


@pytest.mark.parametrize(
    "patterns",
    [
        pytest.param(("*",), id="everything, without a prefix"),
        pytest.param(("5.*",), id="the head, behind a prefix"),
        pytest.param(("2.weight:in/2", "2.bias"), id="a share"),
    ],
)
def test_a_bundle_for_a_memory_budget_carries_half_the_micro_batch_and_trains_the_same_with_it(
    tmp_path: Path, patterns: tuple[str, ...]
) -> None:
    folder = exported(tmp_path / "bundle", request(*patterns))
    manifest, _ = read_manifest(folder)
    batch = read_self_test(folder).batch
    whole, pieces = open_session(folder), open_session(folder)
    expected = trained(whole, batch)
    predicted = whole.predict(batch.inputs)
    before = manifest.plan.cost.activation_bytes
    assert manifest.plan.micro_batch == 8
    assert manifest.smaller is not None and manifest.smaller.cost.activation_bytes < before
    assert pieces.smaller()
    assert pieces.manifest.plan.micro_batch == 4
    assert pieces.manifest.plan.cost == manifest.smaller.cost
    for name, value in trained(pieces, batch).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-6)
    for name, value in pieces.predict(batch.inputs).items():
        np.testing.assert_allclose(value, predicted[name], rtol=1e-4, atol=1e-5)
    assert not pieces.smaller()


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        pytest.param(request("*", budget=Budget()), "no budget", id="no memory budget"),
        pytest.param(request("*", micro_batch=1), "samples one by one", id="one sample at a time"),
        pytest.param(request("5.*", precisions=("int8",)), "rounded for one", id="int8 prefix"),
    ],
)
def test_other_bundles_carry_one_micro_batch(tmp_path: Path, wanted: PlanRequest, why: str) -> None:
    folder = exported(tmp_path / "bundle", wanted)
    assert read_manifest(folder)[0].smaller is None, why
    assert not [path.name for path in folder.iterdir() if path.name.startswith(SMALLER)]
    assert not open_session(folder).smaller()


def test_gradients_wait_for_no_update_across_the_change(tmp_path: Path) -> None:
    folder = exported(tmp_path / "bundle", request("*"))
    session, batch = open_session(folder), read_self_test(folder).batch
    session.accumulate(batch)
    assert session.smaller()
    assert session.gradients() == {}


def test_smaller_pieces_that_compute_something_else_are_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = example()
    planned = make_plan(made, request("5.*"))
    torch.manual_seed(1)
    other = nn.Sequential(*(copy.deepcopy(layer) for layer in made.model))
    nn.init.normal_(other[0].weight)
    wrong = in_smaller_pieces(replace(made, model=other), planned)
    monkeypatch.setattr(export_module, "in_smaller_pieces", lambda *_: wrong)
    with pytest.raises(ExportError, match="in pieces of 4 samples, the loss is"):
        export(made, planned, ("portable",), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []
