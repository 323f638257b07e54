from __future__ import annotations

import math

import pytest

from edgetune.errors import UsageError
from edgetune.runtime.learning_rate import learning_rate


@pytest.mark.parametrize(
    ("schedule", "index", "total", "warmup", "expected"),
    [
        pytest.param("constant", 0, 10, 0, 0.4, id="constant-first"),
        pytest.param("constant", 9, 10, 0, 0.4, id="constant-last"),
        pytest.param("cosine", 0, 10, 0, 0.4, id="cosine-starts-at-base"),
        pytest.param("cosine", 5, 10, 0, 0.2, id="cosine-half-way"),
        pytest.param("cosine", 9, 10, 0, 0.2 * (1 + math.cos(0.9 * math.pi)), id="cosine-last"),
        pytest.param("constant", 0, 10, 3, 0.1, id="warm-up-first-is-not-zero"),
        pytest.param("constant", 1, 10, 3, 0.2, id="warm-up-second"),
        pytest.param("constant", 2, 10, 3, 0.3, id="warm-up-last"),
        pytest.param("constant", 3, 10, 3, 0.4, id="warm-up-reaches-base"),
        pytest.param("cosine", 2, 13, 3, 0.3, id="warm-up-before-cosine"),
        pytest.param("cosine", 3, 13, 3, 0.4, id="cosine-starts-after-warm-up"),
        pytest.param("cosine", 8, 13, 3, 0.2, id="cosine-half-way-after-warm-up"),
        pytest.param("cosine", 1, 2, 5, 0.4 * 2 / 6, id="warm-up-longer-than-the-run"),
    ],
)
def test_the_rate_follows_the_formula(
    schedule: str, index: int, total: int, warmup: int, expected: float
) -> None:
    assert learning_rate(schedule, 0.4, index, total, warmup) == pytest.approx(expected, rel=1e-12)


def test_the_cosine_only_falls_and_stays_positive() -> None:
    rates = [learning_rate("cosine", 1.0, index, 50, 0) for index in range(50)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] > 0


def test_an_unknown_schedule_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="'linear': expected one of constant, cosine"):
        learning_rate("linear", 0.1, 0, 1, 0)
