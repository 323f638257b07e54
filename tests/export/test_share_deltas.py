"""What training of slices changed, taken elsewhere; and what does not fit a bundle of slices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from edgetune_exporters.load_into import load_into

from edgetune.errors import BundleError, CheckpointError, DataError
from edgetune.files.delta import apply_delta, apply_delta_to_model, read_delta, write_delta
from edgetune.nouns.candidate import Share
from edgetune.nouns.selection import Selection
from edgetune.runtime.open_session import open_session
from edgetune.runtime.portable_session import PortableSession
from edgetune.runtime.session import TrainingSession
from edgetune.runtime.tuned_bundle import write_tuned_bundle
from tests.export.share_examples import CASES, FORMATS, Case, batch_of, exported

CASE = CASES["mlp, outputs and wholes"]
OTHER = replace(CASE, shares={**CASE.shares, "2.weight": Share(0, (0, 14))})


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return exported(CASE, tmp_path_factory.mktemp("bundles") / "out")


def portable(case: Case, tmp_path: Path) -> Path:
    return exported(case, tmp_path / "other", formats=("portable",))["portable"]


def trained(bundle: Path, delta: Path) -> TrainingSession:
    session = open_session(bundle)
    base = session.values()
    for step in range(3):
        session.accumulate(batch_of(CASE.example(), step))
        session.update(0.05, None)
    shares = session.manifest.plan.selection.shares
    write_delta(delta, base, session.values(), session.digest, shares)
    return session


def assert_same_values(found: TrainingSession, expected: TrainingSession) -> None:
    values = expected.values()
    assert {n: v.tobytes() for n, v in found.values().items()} == {
        n: v.tobytes() for n, v in values.items()
    }


@pytest.mark.parametrize("made_in", FORMATS)
@pytest.mark.parametrize("applied_in", FORMATS)
def test_a_delta_goes_onto_another_copy_of_the_bundle(
    bundles: dict[str, Path], tmp_path: Path, made_in: str, applied_in: str
) -> None:
    session = trained(bundles[made_in], tmp_path / "delta")
    write_tuned_bundle(bundles[applied_in], tmp_path / "delta", tmp_path / "tuned")
    assert_same_values(open_session(tmp_path / "tuned"), session)
    # And once more, from there.
    again = trained(tmp_path / "tuned", tmp_path / "second")
    write_tuned_bundle(tmp_path / "tuned", tmp_path / "second", tmp_path / "twice")
    assert_same_values(open_session(tmp_path / "twice"), again)


@pytest.mark.parametrize("name", FORMATS)
def test_a_delta_on_the_merged_base_is_the_merged_tuned_model(
    bundles: dict[str, Path], tmp_path: Path, name: str
) -> None:
    open_session(bundles[name]).write_inference_model(tmp_path / "base.onnx")
    trained(bundles[name], tmp_path / "delta").write_inference_model(tmp_path / "tuned.onnx")
    delta = read_delta(tmp_path / "delta")
    apply_delta_to_model(delta, tmp_path / "base.onnx", tmp_path / "applied.onnx")
    assert (tmp_path / "applied.onnx").read_bytes() == (tmp_path / "tuned.onnx").read_bytes()
    with pytest.raises(BundleError, match=r"(?s)tuned.onnx: .*0.weight: holds other values"):
        apply_delta_to_model(delta, tmp_path / "tuned.onnx", tmp_path / "twice.onnx")


def test_a_delta_of_slices_is_as_small_as_they_are(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    session = trained(bundles["portable"], tmp_path / "delta")
    held = sum(array.nbytes for array in read_delta(tmp_path / "delta").tensors.values())
    assert held == sum(array.nbytes for array in session.values().values())


def test_a_delta_goes_onto_a_bundle_that_trains_the_whole_tensors(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    session = trained(bundles["portable"], tmp_path / "delta")
    whole = Case("mlp", {}, CASE.selection().trainable)
    write_tuned_bundle(portable(whole, tmp_path), tmp_path / "delta", tmp_path / "tuned")
    tuned = open_session(tmp_path / "tuned")
    tuned.write_inference_model(tmp_path / "whole.onnx")
    session.write_inference_model(tmp_path / "slices.onnx")
    assert (tmp_path / "whole.onnx").read_bytes() == (tmp_path / "slices.onnx").read_bytes()


def test_a_delta_of_other_slices_is_refused(bundles: dict[str, Path], tmp_path: Path) -> None:
    trained(portable(OTHER, tmp_path), tmp_path / "delta")
    message = r"2.weight: the delta changes 2 slices along axis 0 \(0, 14\), trained is 2 slices"
    with pytest.raises(BundleError, match=message):
        write_tuned_bundle(bundles["portable"], tmp_path / "delta", tmp_path / "tuned")
    assert not (tmp_path / "tuned").exists()
    base = open_session(bundles["portable"])
    with pytest.raises(BundleError, match=message):
        apply_delta(
            read_delta(tmp_path / "delta"), base.values(), base.manifest.plan.selection.shares
        )


def test_the_tuned_slices_go_back_into_the_module(bundles: dict[str, Path], tmp_path: Path) -> None:
    session, example = trained(bundles["portable"], tmp_path / "delta"), CASE.example()
    manifest = session.manifest
    load_into(example.model, session.values(), manifest.folded, manifest.plan.selection.shares)
    inputs = batch_of(example, 5).inputs
    (found,) = session.predict(inputs).values()
    with torch.no_grad():
        expected = example.model(torch.from_numpy(inputs["input"]))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FORMATS)
def test_values_of_another_shape_are_refused(bundles: dict[str, Path], name: str) -> None:
    session = open_session(bundles[name])
    before = session.values()
    whole = {**before, "0.weight": np.zeros((16, 12), np.float32)}
    message = r"0.weight is float32\[16, 12\], expected float32\[3, 12\]"
    with pytest.raises(DataError, match=f"these values do not fit the bundle: {message}"):
        session.load_values(whole)
    with pytest.raises(DataError, match=f"these gradients do not fit the bundle: {message}"):
        session.load_gradients(whole)
    assert session.gradients() == {}
    assert all(np.array_equal(before[n], value) for n, value in session.values().items())


def test_a_checkpoint_of_whole_tensors_is_refused(bundles: dict[str, Path]) -> None:
    session = open_session(bundles["portable"])
    state = {**session.state(), "slot:exp_avg:0.weight": np.zeros((16, 12), np.float32)}
    message = r"slot:exp_avg:0.weight is float32\[16, 12\], expected float32\[3, 12\]"
    with pytest.raises(CheckpointError, match=message):
        session.load_state(state)


def test_slices_that_the_tensors_do_not_have_are_refused(bundles: dict[str, Path]) -> None:
    session = open_session(bundles["portable"])
    plan = session.manifest.plan
    shares = {"0.weight": Share(0, (1, 16)), "2.weight": Share(2, (0,))}
    wrong = replace(plan, selection=Selection(plan.selection.trainable, shares))
    with pytest.raises(BundleError) as caught:
        PortableSession(bundles["portable"], replace(session.manifest, plan=wrong), "digest")
    assert "state.safetensors does not fit the manifest: 2 problems" in str(caught.value)
    assert "0.weight: there is no slice 16 along axis 0, expected 0 to 15" in str(caught.value)
    assert "2.weight: has slices along axis 2, the tensor is [16, 16]" in str(caught.value)
