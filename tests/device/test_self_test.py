from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgetune.errors import BundleError
from edgetune.runtime.self_test import (
    CLIP_NORMS,
    LEARNING_RATE,
    SelfTest,
    read_self_test,
    run_self_test,
    synthetic_gradients,
    thin,
    write_self_test,
)
from edgetune.runtime.session import MicroBatch, MicroResult
from tests.device.fake_session import CLASSES, FEATURES, FakeSession, make_dataset, make_manifest


def micro_batch(samples: int = 4) -> MicroBatch:
    data = make_dataset(samples)
    scale = np.full(samples, 1 / samples, np.float32)
    return MicroBatch(dict(data.inputs), dict(data.targets), scale)


def recorded() -> SelfTest:
    """What a right session computes."""
    session, batch = FakeSession(), micro_batch()
    loss = session.accumulate(batch).loss
    gradients = session.gradients()
    session.discard()
    updates = []
    for number, clip_norm in enumerate(CLIP_NORMS):
        session.load_gradients(synthetic_gradients(session.values(), number))
        session.update(LEARNING_RATE, clip_norm)
        updates.append(session.values())
    return SelfTest(batch, loss, gradients, tuple(updates))


class Deviates(FakeSession):
    """One part in a hundred off in its loss, in one gradient, or in the change of one update."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self._what = what

    def accumulate(self, batch: MicroBatch) -> MicroResult:
        result = super().accumulate(batch)
        if self._what.startswith("gradient of "):
            self._gradients[self._what.removeprefix("gradient of ")] *= 1.01
        factor = 1.01 if self._what == "loss" else 1.0
        return MicroResult(result.loss * factor, result.correct)

    def update(self, learning_rate: float, clip_norm: float | None) -> float:
        before, norm = self.values(), super().update(learning_rate, clip_norm)
        if self._what == f"update {self.updates} of bias":
            self._values["bias"] += 0.01 * (self._values["bias"] - before["bias"])
        return norm


def test_a_right_session_passes_and_is_left_as_it_was() -> None:
    session = FakeSession()
    before = session.state()
    report = run_self_test(session, recorded())
    assert report.problems == ()
    assert max(report.loss, report.gradients, report.updates) < 1e-3
    after = session.state()
    assert {k: v.tobytes() for k, v in after.items()} == {k: v.tobytes() for k, v in before.items()}
    assert all(not gradient.any() for gradient in session.gradients().values())


@pytest.mark.parametrize(
    ("what", "problem", "share"),
    [
        pytest.param("loss", "the loss is ", "loss", id="loss"),
        pytest.param(
            "gradient of weight", "the gradient of weight is off by ", "gradients", id="gradient"
        ),
        pytest.param(
            "gradient of bias", "the gradient of bias is off by ", "gradients", id="small-gradient"
        ),
        *[
            pytest.param(
                f"update {number} of bias",
                f"update {number} of bias differs from torch.optim's",
                "updates",
                id=f"update-{number}",
            )
            for number in (1, 2, 3)
        ],
    ],
)
def test_one_part_in_a_hundred_is_noticed(what: str, problem: str, share: str) -> None:
    report = run_self_test(Deviates(what), recorded())
    assert report.problems[0].startswith(problem)
    shares = {"loss": report.loss, "gradients": report.gradients, "updates": report.updates}
    assert shares.pop(share) > 1
    assert max(shares.values()) < 1


@pytest.mark.parametrize("what", ["loss", "gradient of weight", "update 2 of bias"])
def test_it_is_noticed_in_the_bundles_recording_too(tmp_path: Path, what: str) -> None:
    write_self_test(tmp_path, recorded())
    assert run_self_test(FakeSession(), read_self_test(tmp_path)).problems == ()
    assert run_self_test(Deviates(what), read_self_test(tmp_path)).problems != ()


@pytest.mark.parametrize("where", ["loss", "gradient", "update"])
def test_what_is_not_a_number_never_agrees(where: str) -> None:
    class Broken(FakeSession):
        def accumulate(self, batch: MicroBatch) -> MicroResult:
            result = super().accumulate(batch)
            if where == "gradient":
                self._gradients["bias"][0] = np.nan
            return MicroResult(np.nan if where == "loss" else result.loss, result.correct)

        def update(self, learning_rate: float, clip_norm: float | None) -> float:
            norm = super().update(learning_rate, clip_norm)
            if where == "update":
                self._values["bias"][0] = np.nan
            return norm

    assert run_self_test(Broken(), recorded()).problems != ()


def test_the_recording_comes_back_thinned(tmp_path: Path) -> None:
    written = recorded()
    write_self_test(tmp_path, written)
    read = read_self_test(tmp_path)
    assert read.loss == written.loss
    np.testing.assert_array_equal(read.batch.scale, written.batch.scale)
    np.testing.assert_array_equal(read.batch.inputs["x"], written.batch.inputs["x"])
    np.testing.assert_array_equal(read.batch.targets["y"], written.batch.targets["y"])
    assert set(read.gradients) == set(written.gradients)
    assert len(read.updates) == len(CLIP_NORMS)
    np.testing.assert_array_equal(read.updates[2]["weight"], written.updates[2]["weight"].ravel())


def test_equal_recordings_are_equal_bytes_at_any_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_self_test(tmp_path, recorded())
    first = (tmp_path / "selftest.npz").read_bytes()
    monkeypatch.setattr("time.localtime", lambda *_: (2031, 1, 2, 3, 4, 5, 0, 1, 0))
    monkeypatch.setattr("time.time", lambda: 1.9e9)
    write_self_test(tmp_path, recorded())
    assert (tmp_path / "selftest.npz").read_bytes() == first


@pytest.mark.parametrize(
    ("shape", "kept"),
    [
        pytest.param((), 1, id="a-number"),
        pytest.param((0, 3), 0, id="empty"),
        pytest.param((3, 4), 12, id="small"),
        pytest.param((1024,), 1024, id="just-all"),
        pytest.param((1025,), 513, id="every-second"),
        pytest.param((100, 100), 1000, id="every-tenth"),
        pytest.param((7, 512, 512), 1024, id="large"),
    ],
)
def test_at_most_1024_evenly_spaced_elements_are_kept(shape: tuple[int, ...], kept: int) -> None:
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    thinned = thin(array)
    assert thinned.shape == (kept,)
    assert len(set(np.diff(thinned))) <= 1
    if kept:
        assert thinned[0] == 0
        assert array.size - thinned[-1] <= -(-array.size // 1024)


def test_synthetic_gradients_are_the_same_everywhere() -> None:
    values = {"a": np.zeros((2, 2), np.float32), "b": np.zeros(3, np.float32)}
    first, again = synthetic_gradients(values, 1), synthetic_gradients(values, 1)
    assert {n: g.tobytes() for n, g in first.items()} == {n: g.tobytes() for n, g in again.items()}
    assert first["a"].dtype == np.float32
    assert not np.array_equal(first["b"], synthetic_gradients(values, 2)["b"])
    np.testing.assert_allclose(
        first["a"].ravel(), [1.7291036, -1.4284534, 1.0277448, 1.8820691], rtol=1e-6
    )


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "no-archive", "without-scale"])
def test_a_recording_that_cannot_be_read_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "selftest.npz"
    write_self_test(tmp_path, recorded())
    if damage == "missing":
        path.unlink()
    elif damage == "without-scale":
        np.savez(path, loss=1.0)
    else:
        data = path.read_bytes()
        path.write_bytes({"empty": b"", "cut": data[:100], "no-archive": b"hello"}[damage])
    with pytest.raises(BundleError, match=r"cannot read .*selftest\.npz: .*; copy the bundle"):
        read_self_test(tmp_path)


def test_the_fake_has_what_the_recording_needs() -> None:
    assert make_manifest().plan.micro_batch == len(micro_batch().scale)
    assert FakeSession().gradients()["weight"].shape == (CLASSES, FEATURES)
