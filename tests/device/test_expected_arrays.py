from __future__ import annotations

import numpy as np
import pytest

from edgetune.errors import CheckpointError, DataError, EdgetuneError
from edgetune.runtime.expected_arrays import check_expected_arrays

EXPECTED = {"head.weight": np.zeros((2, 3), np.float32), "head.bias": np.zeros(2, np.float32)}


def test_arrays_that_fit_pass() -> None:
    check_expected_arrays("values", {n: a + 1 for n, a in EXPECTED.items()}, EXPECTED, DataError)
    check_expected_arrays("values", {}, {}, DataError)


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        pytest.param({"head.bias": None}, ["head.bias is missing"], id="missing"),
        pytest.param(
            {"haed.bias": np.zeros(2)},
            ["haed.bias is not known; the nearest names are head.bias"],
            id="unknown",
        ),
        pytest.param(
            {"head.bias": np.zeros(3, np.float32)},
            ["head.bias is float32[3], expected float32[2]"],
            id="shape",
        ),
        pytest.param(
            {"head.bias": np.zeros(2)},
            ["head.bias is float64[2], expected float32[2]"],
            id="type",
        ),
        pytest.param(
            {"head.bias": np.float32(0)},
            ["head.bias is float32[], expected float32[2]"],
            id="a-number",
        ),
        pytest.param(
            {"head.bias": None, "head.weight": np.zeros((3, 2), np.float32), "zzz": np.zeros(1)},
            [
                "3 problems",
                "head.bias is missing",
                "head.weight is float32[3, 2], expected float32[2, 3]",
                "zzz is not known",
            ],
            id="all-at-once",
        ),
    ],
)
@pytest.mark.parametrize("kind", [DataError, CheckpointError])
def test_every_array_that_does_not_fit_is_named(
    changes: dict[str, np.ndarray | None], problems: list[str], kind: type[EdgetuneError]
) -> None:
    found = {name: array for name, array in {**EXPECTED, **changes}.items() if array is not None}
    with pytest.raises(kind) as caught:
        check_expected_arrays("values", found, EXPECTED, kind)
    assert str(caught.value).startswith("these values do not fit the bundle: ")
    for problem in problems:
        assert problem in str(caught.value)
