"""What comes out: predictions, merged models, deltas, tuned bundles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edgetune.errors import BundleError, DataError, UsageError
from edgetune.files.delta import apply_delta, apply_delta_to_model, read_delta, write_delta
from edgetune.runtime.open_session import open_as_exported, open_session
from edgetune.runtime.self_test import read_self_test, run_self_test
from edgetune.runtime.session import TrainingSession
from edgetune.runtime.trainer import Trainer, TrainerConfig
from edgetune.runtime.tuned_bundle import write_tuned_bundle
from tests.bundles.cases import CASES, EPOCHS, SEED
from tests.bundles.support import bundle_of, dataset_of, expected_of, listing

SOME = ["cnn1d", "distilbert", "regression"]


def trained(name: str) -> TrainingSession:
    session = open_session(bundle_of(name))
    settings = TrainerConfig(epochs=EPOCHS, seed=SEED, progress=False, **CASES[name].training)
    Trainer(session, settings).fit(dataset_of(name, session))
    return session


def run_model(path: Path, inputs: dict[str, np.ndarray], size: int) -> np.ndarray:
    """The model's first output, in pieces of the batch that it was exported with."""
    model = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert {argument.name for argument in model.get_inputs()} == set(inputs)
    count = len(next(iter(inputs.values())))
    parts = []
    for start in range(0, count, size):
        rows = np.minimum(np.arange(start, start + size), count - 1)
        taken = {name: array[rows] for name, array in inputs.items()}
        parts.append(model.run(None, taken)[0][: count - start])
    return np.concatenate(parts)


@pytest.mark.parametrize("name", CASES)
def test_a_trained_session_predicts_what_pytorch_predicts(name: str) -> None:
    session = trained(name)
    inputs = dict(dataset_of(name, session).inputs)
    (spec,) = session.manifest.signature.outputs
    predicted = session.predict(inputs)[spec.name]
    assert (predicted.shape[1:], str(predicted.dtype)) == (spec.shape, spec.dtype)
    expected = expected_of(name)["output"]
    np.testing.assert_allclose(predicted, expected, atol=2e-3 * np.abs(expected).max())
    before = open_session(bundle_of(name)).predict(inputs)[spec.name]
    assert np.abs(before - expected).max() > 1e-2 * np.abs(expected).max()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_any_number_of_samples_is_predicted(count: int) -> None:
    session = open_session(bundle_of("cnn1d"))
    inputs = dict(dataset_of("cnn1d", session).inputs)
    all_of_them = session.predict(inputs)["output"]
    first = session.predict({name: array[:count] for name, array in inputs.items()})["output"]
    np.testing.assert_allclose(first, all_of_them[:count], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_the_merged_model_predicts_what_the_session_predicts(name: str, tmp_path: Path) -> None:
    session = trained(name)
    session.write_inference_model(tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    inputs = dict(dataset_of(name, session).inputs)
    found = run_model(tmp_path / "model.onnx", inputs, CASES[name].micro_batch)
    expected = session.predict(inputs)["output"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", SOME)
def test_a_delta_brings_the_values_to_another_device(name: str, tmp_path: Path) -> None:
    session, other = trained(name), open_session(bundle_of(name))
    write_delta(tmp_path / "delta", other.values(), session.values(), session.digest)
    delta = read_delta(tmp_path / "delta")
    assert list(delta.tensors) == sorted(session.values())
    other.load_values(apply_delta(delta, other.values()))
    for parameter, value in session.values().items():
        np.testing.assert_array_equal(other.values()[parameter], value)


@pytest.mark.parametrize("name", SOME)
def test_a_delta_applied_to_the_untrained_model_equals_the_merged_one(
    name: str, tmp_path: Path
) -> None:
    base, session = open_session(bundle_of(name)), trained(name)
    base.write_inference_model(tmp_path / "before.onnx")
    session.write_inference_model(tmp_path / "after.onnx")
    write_delta(tmp_path / "delta", base.values(), session.values(), session.digest)
    apply_delta_to_model(
        read_delta(tmp_path / "delta"), tmp_path / "before.onnx", tmp_path / "applied.onnx"
    )
    assert (tmp_path / "applied.onnx").read_bytes() == (tmp_path / "after.onnx").read_bytes()


@pytest.mark.parametrize("name", SOME)
def test_a_tuned_bundle_starts_where_training_ended(name: str, tmp_path: Path) -> None:
    session, base = trained(name), open_session(bundle_of(name))
    write_delta(tmp_path / "delta", base.values(), session.values(), session.digest)
    untouched = listing(bundle_of(name))
    write_tuned_bundle(bundle_of(name), tmp_path / "delta", tmp_path / "tuned")
    tuned = open_session(tmp_path / "tuned")
    for parameter, value in session.values().items():
        np.testing.assert_array_equal(tuned.values()[parameter], value)
    exported = open_as_exported(tmp_path / "tuned")
    assert run_self_test(exported, read_self_test(tmp_path / "tuned")).problems == ()
    assert tuned.digest != base.digest
    assert listing(bundle_of(name)) == untouched


def test_a_tuned_bundle_can_be_tuned_again(tmp_path: Path) -> None:
    name = "regression"
    session, base = trained(name), open_session(bundle_of(name))
    write_delta(tmp_path / "first", base.values(), session.values(), session.digest)
    write_tuned_bundle(bundle_of(name), tmp_path / "first", tmp_path / "once")
    once = open_session(tmp_path / "once")
    start = once.values()
    data = dataset_of(name, once)
    Trainer(once, TrainerConfig(progress=False, learning_rate=0.05)).fit(data)
    write_delta(tmp_path / "second", start, once.values(), once.digest)
    write_tuned_bundle(tmp_path / "once", tmp_path / "second", tmp_path / "twice")
    twice = open_session(tmp_path / "twice")
    for parameter, value in once.values().items():
        np.testing.assert_array_equal(twice.values()[parameter], value)


def test_a_delta_of_another_bundle_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    session, base = trained("regression"), open_session(bundle_of("regression"))
    write_delta(tmp_path / "delta", base.values(), session.values(), session.digest)
    with pytest.raises(BundleError, match="the delta does not fit"):
        write_tuned_bundle(bundle_of("multi_label"), tmp_path / "delta", tmp_path / "tuned")
    assert [path.name for path in tmp_path.iterdir()] == ["delta"]


def test_a_tuned_bundle_never_replaces_a_folder(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError, match="exists: choose a new folder"):
        write_tuned_bundle(bundle_of("regression"), tmp_path / "delta", tmp_path / "mine")


@pytest.mark.parametrize("load", ["load_values", "load_gradients"])
def test_arrays_that_do_not_fit_the_session_change_nothing(load: str) -> None:
    session = open_session(bundle_of("regression"))
    before = session.values()
    wrong = {**before, "head.bias": np.zeros(3, np.float32), "haed.weight": before["head.weight"]}
    del wrong["fc1.bias"]
    with pytest.raises(DataError) as caught:
        getattr(session, load)(wrong)
    message = str(caught.value)
    assert "fc1.bias is missing" in message
    assert "head.bias is float32[3], expected float32[2]" in message
    assert "haed.weight is not known; the nearest names are head.weight" in message
    assert session.gradients() == {}
    assert all(np.array_equal(session.values()[name], before[name]) for name in before)
