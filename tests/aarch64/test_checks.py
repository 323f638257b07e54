"""What the comparison says of a row that exceeds its tolerances."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.aarch64.checks import LOSS, OUTPUTS, VALUES, Row, table

AGREES = Row(
    processor="cortex-a72",
    bundle="vision",
    updates=4,
    self_test=0.5,
    loss=0.25,
    loss_here=0.25,
    right=0.75,
    same="4/4",
    loss_off=LOSS,
    outputs_off=OUTPUTS,
    values_off=(VALUES, VALUES, VALUES),
)
EXCEEDS: dict[str, tuple[dict[str, Any], str]] = {
    "loss": ({"loss": 0.26, "loss_off": 0.04}, "the loss is 0.26, here 0.25"),
    "outputs": ({"outputs_off": 0.125}, "outputs are off by 1.2e-01"),
    "classes": ({"same": "3/4"}, "3/4 samples get the same class"),
    "trained": ({"values_off": (1.0, 0.0, 0.0)}, "trained values are off by 1.0e+00"),
    "there": ({"values_off": (0.0, 1.0, 0.0)}, "continued there, values are off by 1.0e+00"),
    "here": ({"values_off": (0.0, 0.0, 1.0)}, "continued here, values are off by 1.0e+00"),
    "not a number": ({"outputs_off": float("nan")}, "outputs are off by nan"),
}


def test_what_is_just_tolerated_is_no_problem() -> None:
    assert AGREES.problems == []


@pytest.mark.parametrize("case", EXCEEDS)
def test_what_exceeds_a_tolerance_is_named_with_its_bundle_and_processor(case: str) -> None:
    changes, said = EXCEEDS[case]
    assert replace(AGREES, **changes).problems == [f"vision on cortex-a72: {said}"]


def test_the_table_ends_with_what_is_tolerated() -> None:
    head, row, tolerated = table([AGREES]).splitlines()
    assert head.index("loss off") == row.index(f"{LOSS:.1e}") == tolerated.index(f"{LOSS:.1e}")
    assert row.split()[:4] == ["vision", "cortex-a72", "4", "50.0%"]
