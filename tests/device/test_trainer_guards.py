from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from edgetune.files.checkpoint import read_checkpoint
from edgetune.guards.deadline import TimeGuard
from edgetune.guards.energy import EnergyGuard
from edgetune.guards.guard import Guard, Moment, Pause, Stop
from edgetune.guards.memory import MemoryGuard, StepPeak
from edgetune.guards.memory_room import memory_files
from edgetune.guards.watch import Watch
from edgetune.nouns.manifest import Manifest
from edgetune.runtime.session import MicroBatch, MicroResult
from edgetune.runtime.trainer import Trainer
from tests.device.fake_session import FakeSession, make_manifest
from tests.device.guard_cases import MIB, Board, Says, Working, memory_tree, stop
from tests.device.training_cases import (
    STEPS_PER_EPOCH,
    TRAIN,
    VALIDATION,
    Scripted,
    bits,
    config,
)


class StopsAt:
    """A guard that ends the run when it is asked for the n-th time, from 0."""

    budget = "time"
    every_seconds = 0.0

    def __init__(self, at: int) -> None:
        self._left = at

    def check(self, moment: Moment) -> Stop | None:
        self._left -= 1
        return stop() if self._left < 0 else None


def watch(*guards: Guard, board: Board | None = None) -> Watch:
    board = Board() if board is None else board
    return Watch(guards, board.clock, board.sleep)


def test_a_run_that_no_budget_ends_is_as_if_there_were_no_guards() -> None:
    plain, guarded = FakeSession(), FakeSession()
    Trainer(plain, config()).fit(TRAIN, VALIDATION)
    asked = Says()
    result = Trainer(guarded, config(), watch(asked)).fit(TRAIN, VALIDATION)
    assert bits(plain) == bits(guarded)
    assert result.stopped_by is None
    assert result.paused_seconds == {}
    # Batches of 8, 8 and 5 in pieces of 4; an update each; validation in 4 pieces.
    assert len(asked.asked) == 3 * ((2 + 1) + (2 + 1) + (2 + 1) + 4)
    first = ["step", "micro-batch", "update", "step"]
    assert [m.next for m in asked.asked[:4]] == first
    assert [m.next for m in asked.asked[9:13]] == ["evaluation"] * 4
    assert [m.steps for m in asked.asked[:13]] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3]
    assert [m.pieces for m in asked.asked[:7]] == [0, 1, 2, 2, 3, 4, 4]


@pytest.mark.parametrize("at", range(0, 39, 3))
@pytest.mark.parametrize("offset", [0, 1, 2])
def test_wherever_it_is_stopped_it_resumes_bit_for_bit(
    tmp_path: Path, at: int, offset: int
) -> None:
    """Before a step, within one, before its update and within validation."""
    path = tmp_path / "run"
    settings = config(checkpoint_path=path)
    session = FakeSession()
    result = Trainer(session, settings, watch(StopsAt(at + offset))).fit(TRAIN, VALIDATION)
    assert result.stopped_by == stop()
    saved = read_checkpoint(path)
    assert saved.step == result.steps == session.updates
    resumed, whole = FakeSession(), FakeSession()
    again = Trainer(resumed, settings).fit(TRAIN, VALIDATION, resume=True)
    assert again.stopped_by is None
    Trainer(whole, config()).fit(TRAIN, VALIDATION)
    assert bits(resumed) == bits(whole)


def test_a_run_that_is_stopped_before_its_first_step_has_a_result(tmp_path: Path) -> None:
    session = FakeSession()
    before = bits(session)
    result = Trainer(session, config(checkpoint_path=tmp_path / "run"), watch(StopsAt(0))).fit(
        TRAIN
    )
    assert (result.epochs, result.steps, result.history) == (0, 0, ())
    assert (result.train_loss, result.median_step_seconds) == (None, None)
    assert bits(session) == before
    assert read_checkpoint(tmp_path / "run").step == 0


def test_without_a_checkpoint_the_values_stay_in_the_session() -> None:
    session = FakeSession()
    result = Trainer(session, config(), watch(StopsAt(7))).fit(TRAIN)
    assert result.steps == session.updates == 2
    assert session.discarded == 1


def test_a_budget_of_time_ends_the_run_before_it_is_exceeded(tmp_path: Path) -> None:
    board = Board()
    session = Working(board)  # two pieces of 0.25 s make a step
    made = watch(TimeGuard(2.1), board=board)
    result = Trainer(session, config(epochs=99), made).fit(TRAIN)
    assert result.steps == 4
    assert board.seconds == pytest.approx(2.0)
    assert result.stopped_by is not None
    assert result.stopped_by.needs == pytest.approx(0.5)


def test_energy_is_spent_to_the_last_whole_step_and_a_new_budget_continues(tmp_path: Path) -> None:
    settings = config(epochs=5, checkpoint_path=tmp_path / "run")
    steps, stopped = [], []
    for resume in (False, True, True, True):
        board = Board(load_watts=6.0)  # 3 J a step
        sampler = board.sampler()
        begun = sampler.mark()
        rule = EnergyGuard(16.0, lambda s=sampler, b=begun: s.energy_since(b))  # type: ignore[misc]
        session = Working(board)
        result = Trainer(session, settings, watch(rule, board=board)).fit(TRAIN, resume=resume)
        steps.append(result.steps)
        stopped.append(result.stopped_by.budget if result.stopped_by else None)
        assert board.used_joules <= 16.0
    assert steps == [5, 10, 15, 15]
    assert stopped == ["energy", "energy", None, None]
    whole = FakeSession()
    Trainer(whole, config(epochs=5)).fit(TRAIN)
    assert bits(session) == bits(whole)


# The best epoch -----------------------------------------------------------------------------

LOSSES = [3.0, 1.0, 2.0, 2.5, 2.6]


@pytest.mark.parametrize(
    ("changes", "best"),
    [
        pytest.param({"keep_best": True}, True, id="kept"),
        pytest.param({"patience": 9}, True, id="kept-with-patience"),
        pytest.param({}, False, id="not-kept"),
        pytest.param({"keep_best": True, "restore_best": False}, False, id="not-wanted"),
    ],
)
def test_a_stopped_run_ends_with_its_best_epoch(
    tmp_path: Path, changes: dict[str, int], best: bool
) -> None:
    session = Scripted(LOSSES)
    settings = config(epochs=5, checkpoint_path=tmp_path / "run", **changes)
    # A micro-batch of 21: an epoch is three steps of two questions, and one of validation.
    made = watch(StopsAt(4 * (2 * STEPS_PER_EPOCH + 1)))
    result = Trainer(session, settings, made).fit(TRAIN, VALIDATION)
    assert (result.epochs, result.best_epoch, result.holds_best) == (4, 1, best)
    for name, value in session.values().items():
        np.testing.assert_array_equal(value, session.at_evaluation[1 if best else 3][name])
    saved = read_checkpoint(tmp_path / "run")
    assert set(saved.best_values) == ({"weight", "bias"} if best else set())
    for name, value in saved.best_values.items():
        np.testing.assert_array_equal(value, session.at_evaluation[1][name])


def test_keeping_the_best_for_a_budget_changes_no_run_that_ends_by_itself(tmp_path: Path) -> None:
    session = Scripted(LOSSES)
    result = Trainer(session, config(epochs=5, keep_best=True)).fit(TRAIN, VALIDATION)
    assert not result.holds_best
    for name, value in session.values().items():
        np.testing.assert_array_equal(value, session.at_evaluation[4][name])


# Pauses -------------------------------------------------------------------------------------


def test_pauses_are_told_apart_from_work() -> None:
    session, hot = FakeSession(), Says(Pause(600.0), None, Pause(600.0), budget="temperature")
    result = Trainer(session, config(), watch(hot)).fit(TRAIN)
    assert result.paused_seconds == {"temperature": pytest.approx(1200.0)}
    assert result.steps == 3 * STEPS_PER_EPOCH


def test_a_signal_ends_a_pause_with_a_checkpoint(tmp_path: Path) -> None:
    board, path = Board(), tmp_path / "run"

    def sleep(seconds: float) -> None:
        board.sleep(seconds)
        if board.seconds > 5:
            os.kill(os.getpid(), signal.SIGTERM)

    made = Watch([Says(None, None, None, None, Pause(1e9))], board.clock, sleep)
    session = FakeSession()
    with pytest.raises(KeyboardInterrupt, match=f"SIGTERM after step 1; resume from {path}"):
        Trainer(session, config(checkpoint_path=path), made).fit(TRAIN)
    assert read_checkpoint(path).step == 1
    assert session.discarded == 1
    assert board.seconds < 10


# A smaller micro-batch ----------------------------------------------------------------------


class Carries(FakeSession):
    """A session whose bundle carries micro-batches of 4, 2 and 1; a sample takes 20 MiB."""

    def __init__(self) -> None:
        super().__init__(self._of(4))
        self.sizes: list[int] = []

    @staticmethod
    def _of(size: int) -> Manifest:
        made = make_manifest(micro_batch=size)
        cost = dataclasses.replace(made.plan.cost, peak_bytes=(60 + 20 * size) * MIB)
        return dataclasses.replace(made, plan=dataclasses.replace(made.plan, cost=cost))

    def smaller(self) -> bool:
        size = self.manifest.plan.micro_batch // 2
        if size:
            self.manifest = self._of(size)
        return size > 0

    def accumulate(self, batch: MicroBatch) -> MicroResult:
        self.sizes.append(len(batch.scale))
        return super().accumulate(batch)


@pytest.mark.parametrize(("limit", "size"), [(140, 4), (139, 2), (99, 1), (79, None)])
def test_memory_is_held_with_smaller_micro_batches_where_the_bundle_carries_them(
    tmp_path: Path, limit: int, size: int | None
) -> None:
    session, path = Carries(), tmp_path / "run"
    peak = StepPeak(lambda: session.manifest.plan.cost.peak_bytes)
    rule = MemoryGuard(peak, memory_files(memory_tree(tmp_path)), limit * MIB)
    result = Trainer(session, config(checkpoint_path=path), watch(rule)).fit(TRAIN)
    if size is None:
        assert result.stopped_by is not None
        assert result.stopped_by.budget == "memory"
        assert read_checkpoint(path).step == 0
        return
    assert result.stopped_by is None
    assert set(session.sizes) == {size}
    whole = FakeSession()
    Trainer(whole, config()).fit(TRAIN)
    for name, value in session.values().items():
        np.testing.assert_allclose(value, whole.values()[name], rtol=1e-6)


def test_a_batch_that_was_begun_is_done_again_in_smaller_pieces() -> None:
    session = Carries()
    made = watch(Says(*[None] * 4, stop("memory"), budget="memory"))
    result = Trainer(session, config(epochs=1), made).fit(TRAIN)
    assert result.stopped_by is None
    assert session.sizes[:7] == [4, 4, 4, 2, 2, 2, 2]
    assert session.discarded == 1
    assert result.steps == STEPS_PER_EPOCH


def test_other_budgets_are_not_held_by_smaller_micro_batches() -> None:
    session = Carries()
    result = Trainer(session, config(), watch(StopsAt(4))).fit(TRAIN)
    assert result.stopped_by == stop()
    assert set(session.sizes) == {4}
