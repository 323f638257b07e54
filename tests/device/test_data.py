from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgetune.data.dataset import Dataset, check_data
from edgetune.errors import DataError
from edgetune.nouns.signature import ArraySpec
from tests.device.data_cases import LABELS, ONE, good, signature


def dataset(**changes: Any) -> Dataset:
    arrays = {**good(), **changes}
    weights = arrays.pop("sample_weights", None)
    label = arrays.pop("label")
    targets = {} if label is None else {"label": label}
    return Dataset({k: v for k, v in arrays.items() if v is not None}, targets, weights)


# Checks -------------------------------------------------------------------------------------


def with_value(array: np.ndarray, where: tuple[int, ...], value: float) -> np.ndarray:
    changed = np.array(array)
    changed[where] = value
    return changed


IMAGES, CLASSES = good()["image"], good()["label"]
WEIGHTS = np.ones(5, np.float32)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(dataset(), id="plain"),
        pytest.param(dataset(label=with_value(CLASSES, (3,), -100)), id="ignored-label"),
        pytest.param(dataset(sample_weights=with_value(WEIGHTS, (0,), 0)), id="weight-zero"),
    ],
)
def test_sound_data_passes(data: Dataset) -> None:
    check_data(data, ONE, LABELS)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(
            dataset(image=None, imgae=IMAGES),
            "the input 'image' is missing; the nearest names are imgae",
            id="missing-with-nearest",
        ),
        pytest.param(
            dataset(imgae=IMAGES),
            "the input 'imgae' is not known; the nearest names are image",
            id="unknown-with-nearest",
        ),
        pytest.param(dataset(label=None), "the target 'label' is missing", id="no-target"),
        pytest.param(
            dataset(image=IMAGES[:, :, :2]),
            r"'image' has samples of shape \(2, 2\), expected \(2, 3\)",
            id="shape",
        ),
        pytest.param(
            dataset(label=CLASSES[:, None]),
            r"'label' has samples of shape \(1,\), expected \(\)",
            id="target-shape",
        ),
        pytest.param(
            dataset(image=IMAGES.astype(np.float64)),
            "'image' is float64, expected float32",
            id="type",
        ),
        pytest.param(
            dataset(label=CLASSES.astype(np.float32)),
            "'label' is float32, expected int64",
            id="target-type",
        ),
        pytest.param(
            dataset(image=IMAGES[:4]),
            "the numbers of samples differ: 'image' has 4, 'label' has 5",
            id="lengths",
        ),
        pytest.param(
            dataset(sample_weights=WEIGHTS[:3]), "'sample_weight' has 3", id="weights-length"
        ),
        pytest.param(
            dataset(image=IMAGES[:0], label=CLASSES[:0]), "there are no samples", id="empty"
        ),
        pytest.param(
            dataset(image=np.float32(3)), "'image' has no sample dimension", id="no-dimension"
        ),
        pytest.param(
            dataset(label=with_value(CLASSES, (2,), 3)),
            "'label' holds the label 3, first in sample 2: expected 0 to 2, or -100 to ignore",
            id="label-too-large",
        ),
        pytest.param(
            dataset(label=with_value(CLASSES, (4,), -1)),
            "'label' holds the label -1, first in sample 4",
            id="label-negative",
        ),
        pytest.param(
            dataset(image=with_value(IMAGES, (3, 1, 2), np.nan)),
            "'image' holds NaN, first in sample 3",
            id="nan",
        ),
        pytest.param(
            dataset(image=with_value(IMAGES, (1, 0, 0), -np.inf)),
            "'image' holds Inf, first in sample 1",
            id="inf",
        ),
        pytest.param(
            dataset(sample_weights=with_value(WEIGHTS, (2,), -1)),
            r"'sample_weight' is -1\.0 in sample 2: expected finite",
            id="weight-negative",
        ),
        pytest.param(
            dataset(sample_weights=with_value(WEIGHTS, (4,), np.nan)),
            "'sample_weight' is nan in sample 4",
            id="weight-nan",
        ),
        pytest.param(
            dataset(sample_weights=WEIGHTS * 0), "is zero for every sample", id="weights-all-zero"
        ),
        pytest.param(
            dataset(sample_weights=WEIGHTS[:, None]),
            r"'sample_weight' has shape \(5, 1\)",
            id="weights-shape",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_place(data: Dataset, message: str) -> None:
    with pytest.raises(DataError, match=f"(?s)cannot use the data.*{message}"):
        check_data(data, ONE, LABELS)


def test_all_problems_are_told_at_once() -> None:
    data = dataset(
        image=with_value(IMAGES[:, :, :2], (0, 0, 0), np.nan),
        label=with_value(CLASSES, (2,), 7).astype(np.int32),
        sample_weights=-WEIGHTS,
        extra=IMAGES,
    )
    with pytest.raises(DataError) as caught:
        check_data(data, ONE, LABELS, what="mine.npz")
    message = str(caught.value)
    assert message.startswith("cannot use mine.npz: 6 problems")
    for part in ("'extra' is not known", "(2, 2)", "NaN", "int32", "the label 7", "-1.0 in sam"):
        assert part in message


def test_the_first_offending_sample_is_found_in_any_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgetune.data.checks._BYTES_AT_ONCE", 30)
    data = dataset(image=with_value(IMAGES, (4, 0, 0), np.nan), label=with_value(CLASSES, (4,), 9))
    with pytest.raises(DataError) as caught:
        check_data(data, ONE, LABELS)
    assert "NaN, first in sample 4" in str(caught.value)
    assert "the label 9, first in sample 4" in str(caught.value)


def test_labels_of_positions_are_checked_too() -> None:
    spec = signature(target=ArraySpec("label", "int64", (2,)))
    labels = np.zeros((5, 2), np.int64)
    check_data(dataset(label=labels), spec, LABELS)
    with pytest.raises(DataError, match="the label 5, first in sample 3"):
        check_data(dataset(label=with_value(labels, (3, 1), 5)), spec, LABELS)


def test_the_fingerprint_tells_other_data_apart() -> None:
    same = dataset().fingerprint()
    assert same == dataset().fingerprint()
    assert same.startswith("5 samples with CRC-32 ")
    others = [
        dataset(image=with_value(IMAGES, (4, 1, 2), 0)),
        dataset(label=CLASSES[::-1]),
        dataset(label=CLASSES.astype(np.int32)),
        dataset(sample_weights=WEIGHTS),
    ]
    assert same not in [other.fingerprint() for other in others]
