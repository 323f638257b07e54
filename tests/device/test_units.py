from __future__ import annotations

from collections.abc import Callable

import pytest

from edgetune.errors import UsageError
from edgetune.units import (
    format_bytes,
    format_celsius,
    format_joules,
    format_percent,
    format_seconds,
    format_watts,
    parse_bytes,
    parse_celsius,
    parse_joules,
    parse_percent,
    parse_seconds,
    parse_watts,
)


@pytest.mark.parametrize(
    ("parse", "text", "expected"),
    [
        pytest.param(parse_bytes, "96MiB", 96 * 2**20, id="binary"),
        pytest.param(parse_bytes, "1.5 GB", 1_500_000_000, id="decimal-with-a-space"),
        pytest.param(parse_bytes, "64kib", 65536, id="any-case"),
        pytest.param(parse_bytes, "1e3B", 1000, id="exponent"),
        pytest.param(parse_bytes, "0.5B", 1, id="never-zero"),
        pytest.param(parse_joules, "0.5J", 0.5, id="joules"),
        pytest.param(parse_joules, "20mJ", 0.02, id="millijoules"),
        pytest.param(parse_joules, "2MJ", 2e6, id="megajoules-are-not-millijoules"),
        pytest.param(parse_joules, "1Wh", 3600.0, id="watt-hours"),
        pytest.param(parse_seconds, "250ms", 0.25, id="milliseconds"),
        pytest.param(parse_seconds, " 2 min ", 120.0, id="minutes"),
        pytest.param(parse_watts, "4W", 4.0, id="watts"),
        pytest.param(parse_watts, "500mW", 0.5, id="milliwatts"),
        pytest.param(parse_celsius, "80C", 80.0, id="celsius"),
        pytest.param(parse_celsius, "80.5 °C", 80.5, id="celsius-with-a-sign"),
        pytest.param(parse_percent, "30%", 30.0, id="percent"),
    ],
)
def test_quantities_are_read_as_people_write_them(
    parse: Callable[[str], float], text: str, expected: float
) -> None:
    assert parse(text) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        pytest.param(parse_bytes, "96", "cannot read the quantity '96'", id="no-unit"),
        pytest.param(parse_bytes, "MiB", "for example 96MiB", id="no-number"),
        pytest.param(parse_bytes, "1J", "one of the units b, kb", id="unit-of-something-else"),
        pytest.param(parse_bytes, "-1MiB", "cannot read", id="negative"),
        pytest.param(parse_bytes, "0MiB", "must be greater than zero", id="zero"),
        pytest.param(parse_bytes, "1e999GiB", "greater than zero and finite", id="infinite"),
        pytest.param(parse_joules, "nanJ", "cannot read", id="not-a-number"),
        pytest.param(parse_seconds, "1.2.3s", "cannot read", id="two-points"),
        pytest.param(parse_watts, "4", "one of the units mw, w, for example 4W", id="no-watts"),
        pytest.param(parse_celsius, "80F", "one of the units c, °c", id="fahrenheit"),
        pytest.param(parse_percent, "0.3", "for example 30%", id="a-share-is-no-percent"),
        pytest.param(parse_percent, "100%", "it must be below 100%", id="all"),
    ],
)
def test_what_is_no_quantity_says_what_was_expected(
    parse: Callable[[str], float], text: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        parse(text)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (format_bytes(0), "0 B"),
        (format_bytes(1023), "1023 B"),
        (format_bytes(1536), "1.5 KiB"),
        (format_bytes(96 * 2**20), "96.0 MiB"),
        (format_bytes(-(2**31)), "-2.00 GiB"),
        (format_seconds(2e-5), "20 us"),
        (format_seconds(0.25), "250.0 ms"),
        (format_seconds(12), "12.00 s"),
        (format_seconds(600), "10.0 min"),
        (format_joules(93e-6), "93 uJ"),
        (format_joules(0.02), "20.0 mJ"),
        (format_joules(2), "2.00 J"),
        (format_joules(3593), "3.59 kJ"),
    ],
)
def test_quantities_are_written_with_a_fitting_unit(made: str, expected: str) -> None:
    assert made == expected


def test_power_temperature_and_charge_are_short() -> None:
    assert [format_watts(w) for w in (0.25, 4.0)] == ["250 mW", "4.00 W"]
    assert format_celsius(79.96) == "80.0 °C"
    assert format_percent(30.4) == "30 %"
