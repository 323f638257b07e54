from __future__ import annotations

import dataclasses
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from edgetune.errors import (
    CheckpointError,
    UsageError,
)
from edgetune.files.checkpoint import read_checkpoint, write_checkpoint
from edgetune.runtime.session import MicroBatch, MicroResult
from edgetune.runtime.trainer import Trainer, TrainingResult
from tests.device.fake_session import FakeSession
from tests.device.training_cases import (
    TRAIN,
    VALIDATION,
    StopsAt,
    bits,
    config,
    timeless,
)

# Resuming -----------------------------------------------------------------------------------

RESUMABLE = {
    "constant": {},
    "cosine-with-warm-up": {"schedule": "cosine", "warmup_steps": 4, "clip_norm": 1.0},
    "odd-batch": {"batch": 5, "seed": 11},
    "early-stopping": {"patience": 1, "learning_rate": 5.0, "epochs": 6},
    "early-stopping-on-accuracy": {"patience": 2, "monitor": "accuracy", "epochs": 6},
}


@pytest.mark.parametrize("changes", RESUMABLE.values(), ids=RESUMABLE)
def test_resuming_after_any_step_equals_the_uninterrupted_run(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    path = tmp_path / "run"
    settings = config(checkpoint_path=path, checkpoint_every_steps=1, **changes)
    whole = FakeSession()
    expected = Trainer(whole, settings).fit(TRAIN, VALIDATION)
    assert expected.stopped_early == ("patience" in changes)
    last_checkpoint = path.read_bytes()
    for step in range(1, expected.steps + 1):
        path.unlink()
        stopped = StopsAt(step, signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt, match=f"SIGTERM after step {step}; resume from"):
            Trainer(stopped, settings).fit(TRAIN, VALIDATION)
        assert read_checkpoint(path).step == step
        resumed = FakeSession()
        result = Trainer(resumed, settings).fit(TRAIN, VALIDATION, resume=True)
        assert bits(resumed) == bits(whole), f"step {step}"
        assert timeless(result) == timeless(expected)
        assert path.read_bytes() == last_checkpoint


def test_resuming_from_an_older_checkpoint_after_a_crash_is_exact_too(tmp_path: Path) -> None:
    settings = config(checkpoint_path=tmp_path / "run", checkpoint_every_steps=2)
    whole = FakeSession()
    Trainer(whole, dataclasses.replace(settings, checkpoint_path=tmp_path / "other")).fit(TRAIN)
    crashed = StopsAt(6, RuntimeError("power cut"))
    with pytest.raises(RuntimeError, match="power cut"):
        Trainer(crashed, settings).fit(TRAIN)
    assert read_checkpoint(tmp_path / "run").step == 4
    resumed = FakeSession()
    Trainer(resumed, settings).fit(TRAIN, resume=True)
    assert bits(resumed) == bits(whole)


def test_resuming_a_finished_run_does_nothing_more(tmp_path: Path) -> None:
    settings = config(checkpoint_path=tmp_path / "run", patience=1, learning_rate=2.0, epochs=8)
    first, again = FakeSession(), FakeSession()
    expected = Trainer(first, settings).fit(TRAIN, VALIDATION)
    result = Trainer(again, settings).fit(TRAIN, VALIDATION, resume=True)
    assert bits(again)["value/weight"] == bits(first)["value/weight"]
    assert timeless(result) == timeless(expected)
    assert result.median_step_seconds is None


def test_a_constant_schedule_may_be_given_more_epochs(tmp_path: Path) -> None:
    short = config(checkpoint_path=tmp_path / "run", epochs=2, warmup_steps=2)
    long = dataclasses.replace(short, epochs=5)
    Trainer(FakeSession(), short).fit(TRAIN)
    resumed, whole = FakeSession(), FakeSession()
    Trainer(resumed, long).fit(TRAIN, resume=True)
    Trainer(whole, long).fit(TRAIN)
    assert bits(resumed) == bits(whole)


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        pytest.param({}, {"seed": 1}, "the seed was 0, and is 1 now", id="seed"),
        pytest.param({}, {"batch": 4}, "the batch was 8, and is 4 now", id="batch"),
        pytest.param(
            {}, {"learning_rate": 0.5}, r"the learning_rate was 0\.05, and is 0\.5 now", id="rate"
        ),
        pytest.param(
            {}, {"clip_norm": 1.0}, r"the clip_norm was None, and is 1\.0 now", id="clipping"
        ),
        pytest.param({}, {"warmup_steps": 1}, "the warmup_steps was 0, and is 1 now", id="warm-up"),
        pytest.param(
            {}, {"schedule": "cosine"}, "the schedule was constant, and is cosine", id="schedule"
        ),
        pytest.param(
            {"schedule": "cosine"},
            {"epochs": 9},
            "the epochs was 3, and is 9 now",
            id="more-epochs-bend-a-cosine",
        ),
        pytest.param({}, {"patience": 3}, "the patience was None, and is 3 now", id="patience"),
        pytest.param(
            {}, {"epochs": 2}, "it has 3 epochs behind it, and 2 are asked", id="fewer-epochs"
        ),
    ],
)
def test_a_configuration_that_changes_the_trajectory_cannot_resume(
    tmp_path: Path, before: dict[str, Any], now: dict[str, Any], message: str
) -> None:
    path = tmp_path / "run"
    Trainer(FakeSession(), config(checkpoint_path=path, **before)).fit(TRAIN, VALIDATION)
    session = FakeSession()
    untouched, kept = bits(session), path.read_bytes()
    with pytest.raises(CheckpointError, match=f"(?s)cannot resume from .*{message}"):
        Trainer(session, config(checkpoint_path=path, **{**before, **now})).fit(
            TRAIN, VALIDATION, resume=True
        )
    assert bits(session) == untouched
    assert path.read_bytes() == kept


def test_all_differences_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "run"
    Trainer(FakeSession(), config(checkpoint_path=path)).fit(TRAIN)
    with pytest.raises(CheckpointError, match=r"(?s)3 problems.*batch.*seed.*training data was 21"):
        Trainer(FakeSession(), config(checkpoint_path=path, batch=4, seed=2)).fit(
            VALIDATION, resume=True
        )


def test_a_checkpoint_of_another_bundle_cannot_resume(tmp_path: Path) -> None:
    settings = config(checkpoint_path=tmp_path / "run")
    Trainer(FakeSession(digest="a" * 64), settings).fit(TRAIN)
    with pytest.raises(CheckpointError, match="made from the bundle aaaaaaaaaaaa, and this one is"):
        Trainer(FakeSession(digest="b" * 64), settings).fit(TRAIN, resume=True)


def test_a_numpy_that_shuffles_otherwise_cannot_resume(tmp_path: Path) -> None:
    path = tmp_path / "run"
    Trainer(FakeSession(), config(checkpoint_path=path)).fit(TRAIN)
    saved = read_checkpoint(path)
    other = {**saved.random_state, "has_uint32": 1 - saved.random_state["has_uint32"]}
    write_checkpoint(path, dataclasses.replace(saved, random_state=other))
    with pytest.raises(CheckpointError, match="draws another order than the numpy it was made wit"):
        Trainer(FakeSession(), config(checkpoint_path=path)).fit(TRAIN, resume=True)


def test_there_must_be_something_to_resume(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no checkpoint at"):
        Trainer(FakeSession(), config(checkpoint_path=tmp_path / "none")).fit(TRAIN, resume=True)
    with pytest.raises(UsageError, match="resuming needs a checkpoint_path"):
        Trainer(FakeSession(), config()).fit(TRAIN, resume=True)


# Interrupts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_step_and_keeps_it(tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "run"
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    session = StopsAt(2, number)
    with pytest.raises(KeyboardInterrupt, match=f"{number.name} after step 2; resume from {path}"):
        Trainer(session, config(checkpoint_path=path)).fit(TRAIN)
    assert session.updates == read_checkpoint(path).step == 2
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_an_interrupt_without_a_checkpoint_says_so() -> None:
    with pytest.raises(KeyboardInterrupt, match="no checkpoint is configured"):
        Trainer(StopsAt(1, signal.SIGINT), config()).fit(TRAIN)


def test_an_interrupt_while_validating_keeps_the_epochs_steps(tmp_path: Path) -> None:
    class StopsInValidation(FakeSession):
        def evaluate(self, batch: MicroBatch) -> MicroResult:
            os.kill(os.getpid(), signal.SIGTERM)
            return super().evaluate(batch)

    settings = config(checkpoint_path=tmp_path / "run")
    with pytest.raises(KeyboardInterrupt, match="after step 3"):
        Trainer(StopsInValidation(), settings).fit(TRAIN, VALIDATION)
    resumed, whole = FakeSession(), FakeSession()
    result = Trainer(resumed, settings).fit(TRAIN, VALIDATION, resume=True)
    expected = Trainer(whole, settings).fit(TRAIN, VALIDATION)
    assert bits(resumed) == bits(whole)
    assert timeless(result) == timeless(expected)


def test_a_second_interrupt_leaves_at_once_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    class Impatient(FakeSession):
        def accumulate(self, batch: MicroBatch) -> MicroResult:
            if self.updates == 4:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
            return super().accumulate(batch)

    session = Impatient()
    with pytest.raises(KeyboardInterrupt):
        Trainer(session, config(checkpoint_path=tmp_path / "run")).fit(TRAIN)
    assert read_checkpoint(tmp_path / "run").step == 3
    assert session.discarded == 1


def test_a_trainer_works_in_a_thread_too() -> None:
    results: list[TrainingResult] = []
    thread = threading.Thread(
        target=lambda: results.append(Trainer(FakeSession(), config()).fit(TRAIN))
    )
    thread.start()
    thread.join()
    assert results[0].epochs == 3
