"""Training on the device equals training in PyTorch, step by step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetune.runtime.evaluation import evaluate
from edgetune.runtime.open_session import open_session
from edgetune.runtime.self_test import read_self_test, run_self_test
from edgetune.runtime.session import TrainingSession
from edgetune.runtime.trainer import Trainer, TrainerConfig
from tests.bundles.cases import CASES, EPOCHS, SEED
from tests.bundles.support import bundle_of, dataset_of, expected_of

# Of what the training has changed so far; fp32 sums in another order grow from step to step.
CHANGE_TOLERANCE = 2e-3
# A gradient that is zero but for rounding, such as that of the bias of attention's keys.
FP32_ZERO = 1e-9


def recorded_steps(session: TrainingSession, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A list that fills with the values after each update."""
    values: list[Any] = []
    update = session.update

    def recording(learning_rate: float, clip_norm: float | None) -> float:
        norm = update(learning_rate, clip_norm)
        values.append(session.values())
        return norm

    monkeypatch.setattr(session, "update", recording)
    return values


@pytest.mark.parametrize("name", CASES)
def test_a_freshly_exported_bundle_passes_its_self_test(name: str) -> None:
    session = open_session(bundle_of(name))
    before = session.state()
    report = run_self_test(session, read_self_test(bundle_of(name)))
    assert report.problems == ()
    assert 0 <= max(report.loss, report.gradients, report.updates) <= 1
    after = session.state()
    assert all(np.array_equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("name", CASES)
def test_state_is_a_copy_unless_none_is_asked_for(name: str) -> None:
    session = open_session(bundle_of(name))
    copies, views = session.state(), session.state(copy=False)
    before = {key: array.tobytes() for key, array in copies.items()}
    session.load_gradients({n: np.ones_like(value) for n, value in session.values().items()})
    session.update(0.1, None)
    assert {key: array.tobytes() for key, array in copies.items()} == before
    for key in set(copies) - {"updates"}:
        assert copies[key].flags.writeable and not views[key].flags.writeable
        np.testing.assert_array_equal(views[key], session.state()[key])
    assert any(views[key].tobytes() != before[key] for key in session.values())


@pytest.mark.parametrize("copy", [True, False])
def test_a_loaded_state_is_left_alone_unless_it_may_be_kept(copy: bool) -> None:
    session = open_session(bundle_of("cnn1d"))
    start, ends = session.state(), []
    before = {key: array.tobytes() for key, array in start.items()}
    for state in (start, {key: array.copy() for key, array in start.items()}):
        session.load_state(state, copy=copy)
        session.load_gradients({n: np.ones_like(value) for n, value in session.values().items()})
        session.update(0.1, None)
        ends.append({key: array.tobytes() for key, array in session.state().items()})
    assert ends[0] == ends[1] != before
    assert ({key: array.tobytes() for key, array in start.items()} == before) == copy


@pytest.mark.parametrize("name", CASES)
def test_every_step_is_that_of_pytorch(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, expected = CASES[name], expected_of(name)
    session = open_session(bundle_of(name))
    initial, steps = session.values(), recorded_steps(session, monkeypatch)
    log = tmp_path / "log"
    settings = TrainerConfig(
        epochs=EPOCHS, seed=SEED, log_path=log, progress=False, **case.training
    )
    data = dataset_of(name, session)
    assert (data.sample_weights is not None) == case.weighted
    result = Trainer(session, settings).fit(data)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    logged = [line for line in lines if line["event"] == "step"]
    assert result.steps == len(logged) == len(expected["loss"]) == len(steps)
    for key in ("loss", "grad_norm", "learning_rate"):
        found = [line[key] for line in logged]
        np.testing.assert_allclose(found, expected[key], rtol=1e-3, atol=1e-6, err_msg=key)
    for number, values in enumerate(steps):
        for parameter, value in values.items():
            reference = expected[f"value{number}:{parameter}"]
            change = np.abs(reference - initial[parameter]).max()
            rounding = max(2 * (number + 1) * np.spacing(np.abs(reference).max()), FP32_ZERO)
            off = np.abs(value - reference).max()
            assert off <= CHANGE_TOLERANCE * change + rounding, f"step {number + 1}, {parameter}"
    assert evaluate(session, data).loss == pytest.approx(float(expected["final_loss"]), rel=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_training_changes_what_is_selected(name: str) -> None:
    expected, initial = expected_of(name), open_session(bundle_of(name)).values()
    last = len(expected["loss"]) - 1
    assert list(initial) == list(open_session(bundle_of(name)).manifest.plan.selection.trainable)
    changed = [n for n in initial if not np.array_equal(initial[n], expected[f"value{last}:{n}"])]
    assert changed == list(initial)
