"""Quantities as people write them: `96MiB`, `0.5J`, `20ms`."""

from __future__ import annotations

import math
import re

from edgetune.errors import UsageError

_BYTES = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}
_JOULES = {"uj": 1e-6, "mj": 1e-3, "j": 1.0, "kj": 1e3, "MJ": 1e6, "wh": 3600.0}
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_WATTS = {"mw": 1e-3, "w": 1.0}  # no megawatts here: case does not matter
_CELSIUS = {"c": 1.0, "°c": 1.0}
_PERCENT = {"%": 1.0}
_QUANTITY = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z°%]+)\s*")


def _parse(text: str, units: dict[str, float] | dict[str, int], example: str) -> float:
    match = _QUANTITY.fullmatch(text)
    unit = match.group(2) if match else ""
    factor = units.get(unit, units.get(unit.lower()))  # MJ is not mJ, else case does not matter
    if match is None or factor is None:
        raise UsageError(
            f"cannot read the quantity {text!r}: expected a number and one of the units "
            f"{', '.join(units)}, for example {example}"
        )
    value = float(match.group(1)) * factor
    if not 0 < value < math.inf:
        raise UsageError(
            f"cannot use the quantity {text!r}: it must be greater than zero and finite"
        )
    return value


def parse_bytes(text: str) -> int:
    """Bytes of a text such as `96MiB` or `1.5GB`. Raises UsageError."""
    return math.ceil(_parse(text, _BYTES, "96MiB"))


def parse_joules(text: str) -> float:
    """Joules of a text such as `0.5J` or `20mJ`. Raises UsageError."""
    return _parse(text, _JOULES, "0.5J")


def parse_seconds(text: str) -> float:
    """Seconds of a text such as `250ms` or `2s`. Raises UsageError."""
    return _parse(text, _SECONDS, "250ms")


def parse_watts(text: str) -> float:
    """Watts of a text such as `4W` or `500mW`. Raises UsageError."""
    return _parse(text, _WATTS, "4W")


def parse_celsius(text: str) -> float:
    """Degrees Celsius of a text such as `80C` or `80°C`, above zero. Raises UsageError."""
    return _parse(text, _CELSIUS, "80C")


def parse_percent(text: str) -> float:
    """Percent of a text such as `30%`, above 0 and below 100. Raises UsageError."""
    value = _parse(text, _PERCENT, "30%")
    if value >= 100:
        raise UsageError(f"cannot use the quantity {text!r}: it must be below 100%")
    return value


def format_bytes(count: float) -> str:
    """`count` bytes with a binary unit and three or four digits."""
    value, sign = abs(float(count)), "-" if count < 0 else ""
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{sign}{value:.0f} {unit}" if unit == "B" else f"{sign}{value:.1f} {unit}"
        value /= 1024
    return f"{sign}{value:.2f} GiB"


def format_seconds(seconds: float) -> str:
    """`seconds` with a unit that keeps three digits."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 1:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 120:
        return f"{seconds:.2f} s"
    return f"{seconds / 60:.1f} min"


def format_joules(joules: float) -> str:
    """`joules` with a unit that keeps three digits."""
    if joules < 1e-3:
        return f"{joules * 1e6:.0f} uJ"
    if joules < 1:
        return f"{joules * 1e3:.1f} mJ"
    return f"{joules:.2f} J" if joules < 1000 else f"{joules / 1e3:.2f} kJ"


def format_watts(watts: float) -> str:
    """`watts` with a unit that keeps three digits."""
    return f"{watts * 1e3:.0f} mW" if watts < 1 else f"{watts:.2f} W"


def format_celsius(celsius: float) -> str:
    """`celsius` degrees, to a tenth."""
    return f"{celsius:.1f} °C"


def format_percent(percent: float) -> str:
    """`percent` as a whole number."""
    return f"{percent:.0f} %"
