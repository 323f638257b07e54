from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgetune.data.dataset import Dataset
from edgetune.errors import DataError
from edgetune.nouns.loss import LossSpec
from edgetune.runtime.batches import (
    batch_count,
    epoch_order,
    evaluation_plan,
    micro_batches,
    plan_batch,
)
from edgetune.runtime.evaluation import evaluate
from tests.device.fake_session import FakeSession, make_dataset, make_manifest


def gradients(session: FakeSession) -> np.ndarray:
    return np.concatenate([g.ravel() for g in session._gradients.values()])


def accumulate(dataset: Dataset, rows: list[int], micro_batch: int, **options: object):
    manifest = make_manifest(micro_batch=micro_batch, **options)
    session = FakeSession(manifest)
    plan = plan_batch(dataset, np.array(rows), manifest, "the batch")
    results = [session.accumulate(b) for b in micro_batches(dataset, plan, micro_batch)]
    return gradients(session), sum(r.loss for r in results), sum(r.correct for r in results)


def test_the_order_of_an_epoch_is_the_documented_one() -> None:
    order, state = epoch_order(50, seed=3, epoch=2)
    generator = np.random.Generator(np.random.PCG64([3, 2]))
    np.testing.assert_array_equal(order, generator.permutation(50))
    assert state == generator.bit_generator.state
    assert sorted(order) == list(range(50))


@pytest.mark.parametrize(
    ("seed", "epoch"), [pytest.param(3, 3, id="epoch"), pytest.param(4, 2, id="seed")]
)
def test_another_epoch_or_seed_is_another_order(seed: int, epoch: int) -> None:
    assert list(epoch_order(50, 3, 2)[0]) != list(epoch_order(50, seed, epoch)[0])


@pytest.mark.parametrize(
    ("samples", "batch", "expected"), [(8, 8, 1), (9, 8, 2), (1, 8, 1), (16, 8, 2), (21, 1, 21)]
)
def test_the_last_batch_may_be_partial(samples: int, batch: int, expected: int) -> None:
    assert batch_count(samples, batch) == expected


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 4, 5, 7, 10])
@pytest.mark.parametrize(
    "class_weights", [pytest.param(None, id="plain"), pytest.param((0.5, 2.0, 1.0), id="weighted")]
)
@pytest.mark.parametrize("weighted_samples", [False, True])
def test_accumulation_over_micro_batches_equals_one_batch(
    micro_batch: int, class_weights: tuple[float, ...] | None, weighted_samples: bool
) -> None:
    dataset = make_dataset()
    dataset.targets["y"][2] = -100
    if weighted_samples:
        weights = np.linspace(0, 2, len(dataset)).astype(np.float32)
        dataset = dataclasses.replace(dataset, sample_weights=weights)
    rows = [4, 0, 9, 2, 11, 7, 20]
    whole = accumulate(dataset, rows, len(rows), class_weights=class_weights)
    pieces = accumulate(dataset, rows, micro_batch, class_weights=class_weights)
    # the scales are float32, everything else float64
    np.testing.assert_allclose(pieces[0], whole[0], rtol=1e-6, atol=1e-9)
    assert pieces[1] == pytest.approx(whole[1], rel=1e-6)
    assert pieces[2] == whole[2]


def test_the_mean_is_that_of_the_real_samples_alone() -> None:
    dataset = make_dataset()
    _, loss, _ = accumulate(dataset, [1, 2, 3], 8)
    singles = [accumulate(dataset, [row], 1)[1] for row in (1, 2, 3)]
    assert loss == pytest.approx(np.mean(singles), rel=1e-6)


def test_class_and_sample_weights_divide_by_what_they_multiply() -> None:
    weights = np.linspace(0.5, 2, 21).astype(np.float32)
    dataset = dataclasses.replace(make_dataset(), sample_weights=weights)
    dataset.targets["y"][2] = -100
    rows, class_weights = [1, 2, 3, 4, 5], (0.5, 2.0, 1.0)
    plain = make_dataset()
    terms = {row: accumulate(plain, [row], 1)[1] for row in rows if row != 2}
    factor = {r: weights[r] * class_weights[plain.targets["y"][r]] for r in terms}
    expected = sum(factor[r] * terms[r] for r in terms) / sum(factor.values())
    found = accumulate(dataset, rows, 4, class_weights=class_weights)[1]
    assert found == pytest.approx(expected, rel=1e-6)


def test_what_does_not_fill_up_repeats_the_batchs_first_sample_with_scale_zero() -> None:
    dataset = make_dataset()
    plan = plan_batch(dataset, np.array([6, 5, 4, 3, 2]), make_manifest(), "the batch")
    first, last = micro_batches(dataset, plan, 4)
    assert first.scale.dtype == np.float32
    np.testing.assert_allclose(first.scale, [0.2] * 4)
    np.testing.assert_allclose(last.scale, [0.2, 0, 0, 0])
    np.testing.assert_array_equal(last.inputs["x"], dataset.inputs["x"][[2, 6, 6, 6]])
    np.testing.assert_array_equal(last.targets["y"], dataset.targets["y"][[2, 6, 6, 6]])


@pytest.mark.parametrize(("rows", "pieces"), [(4, 1), (5, 2), (8, 2), (1, 1)])
def test_no_micro_batch_is_all_padding(rows: int, pieces: int) -> None:
    dataset = make_dataset()
    plan = plan_batch(dataset, np.arange(rows), make_manifest(), "the batch")
    made = list(micro_batches(dataset, plan, 4))
    assert len(made) == pieces
    assert all(len(batch.scale) == 4 and batch.scale.any() for batch in made)


def test_a_batch_whose_targets_are_all_ignored_is_named() -> None:
    dataset = make_dataset()
    dataset.targets["y"][[3, 4]] = -100
    with pytest.raises(DataError, match=r"batch 2 of epoch 1 has nothing to learn from: all of i"):
        plan_batch(dataset, np.array([3, 4]), make_manifest(), "batch 2 of epoch 1")
    assert plan_batch(dataset, np.array([3, 5]), make_manifest(), "").normalizer == 1.0


def test_a_batch_of_weight_zero_is_named() -> None:
    weights = np.array([0, 0] + [1] * 19, np.float32)
    dataset = dataclasses.replace(make_dataset(), sample_weights=weights)
    with pytest.raises(DataError, match="weight zero"):
        plan_batch(dataset, np.array([0, 1]), make_manifest(), "the batch")


def test_ignored_and_weightless_samples_do_not_count_in_the_accuracy() -> None:
    weights = np.array([0, 1, 1, 1] + [1] * 17, np.float32)
    dataset = dataclasses.replace(make_dataset(), sample_weights=weights)
    dataset.targets["y"][1] = -100
    assert plan_batch(dataset, np.arange(4), make_manifest(), "").counted == 2


def test_a_loss_without_targets_has_one_term_per_sample() -> None:
    manifest = make_manifest()
    signature = dataclasses.replace(manifest.signature, targets=())
    manifest = dataclasses.replace(manifest, signature=signature, loss=LossSpec("custom"))
    dataset = Dataset(make_dataset().inputs, {})
    plan = plan_batch(dataset, np.arange(5), manifest, "")
    assert (plan.normalizer, plan.counted) == (5.0, 0)


def test_evaluation_is_normalised_over_the_whole_dataset_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dataset = make_dataset(21)
    plan = evaluation_plan(dataset, make_manifest())
    np.testing.assert_array_equal(plan.rows, np.arange(21))
    assert plan.normalizer == 21.0
    session = FakeSession(make_manifest(micro_batch=4))
    found = evaluate(session, dataset)
    whole = evaluate(FakeSession(make_manifest(micro_batch=21)), dataset)
    assert found.count == whole.count == 21
    assert found.loss == pytest.approx(whole.loss, rel=1e-6)
    logits = session.predict(dataset.inputs)["logits"]
    assert found.accuracy == np.mean(logits.argmax(axis=1) == dataset.targets["y"])
    monkeypatch.setattr("edgetune.runtime.batches._ROWS_AT_ONCE", 2)
    assert evaluation_plan(dataset, make_manifest()).normalizer == 21.0


def test_rows_of_a_memory_map_are_read_one_micro_batch_at_a_time(tmp_path) -> None:
    dataset = make_dataset()
    np.save(tmp_path / "x.npy", dataset.inputs["x"])
    mapped = Dataset({"x": np.load(tmp_path / "x.npy", mmap_mode="r")}, dataset.targets)
    plan = plan_batch(mapped, np.arange(6), make_manifest(), "")
    batch = next(micro_batches(mapped, plan, 4))
    assert type(batch.inputs["x"]) is np.ndarray
    np.testing.assert_array_equal(batch.inputs["x"], dataset.inputs["x"][:4])
