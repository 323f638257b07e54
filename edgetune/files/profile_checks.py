"""Everything that can be wrong in a device profile, and the arithmetic of its derived numbers.

`device_profiles/profile.schema.json` says the form once more, for other tools; what is between two
numbers (order, arithmetic) only this module knows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from edgetune.errors import nearest
from edgetune.nouns.profile import INT8, OPERATOR_CLASSES, PEAK, PREFIX, UPDATE, Quantity

Table = Mapping[str, Any]

FLOPS = "flops_per_second"
FLOPS_KEYS = (*OPERATOR_CLASSES, *PREFIX.values(), INT8, UPDATE, PEAK)
UNITS = {
    "total_memory_bytes": "byte",
    "usable_memory_bytes": "byte",
    "bandwidth_bytes_per_second": "byte/s",
    "peak_bandwidth_bytes_per_second": "byte/s",
    "dispatch_seconds": "s",
    "group_seconds": "s",
    "idle_watts": "W",
    "load_watts": "W",
}
"""Unit by key, of the numbers outside the table `flops_per_second` (whose unit is flop/s)."""

_TEXT_KEYS = ("id", "name", "cpu")
_OPTIONAL_TEXT_KEYS = ("like", "meter", "notes")
_PROFILE_KEYS = (*_TEXT_KEYS, *_OPTIONAL_TEXT_KEYS, "cores", "power_scope", FLOPS, *UNITS)
_QUANTITY_KEYS = ("value", "kind", "source", "date")
_DERIVED_KEYS = ("derived_from", "factor", "derivation")
_KINDS = ("measured", "vendor", "derived")
_SCOPES = ("module", "board", "wall")
_DATE = re.compile(r"\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?")
_NUMBER = r"\d+(?:\.\d+)?(?:[eE][+-]?\d+)?"
_ARITHMETIC = rf"{_NUMBER}(?:\s+[x/+]\s+{_NUMBER})*"
_DERIVATION = re.compile(rf"\s*({_ARITHMETIC})\s*:\s*\S.*", re.DOTALL)
# Files hold rounded decimals, so a derived number may differ from its product in the last digits.
_RELATIVE_TOLERANCE = 1e-6


def read_quantities(document: Table) -> tuple[dict[str, Quantity], list[str]]:
    """The numbers of a profile by key path ("flops_per_second.peak"), and all that is wrong in it.

    Numbers with problems are left out; a problem names its key, what was found and what expected.
    """
    tables, problems = _quantity_tables(document)
    problems = _head_problems(document) + problems
    quantities: dict[str, Quantity] = {}
    for key_path, table in tables.items():
        found = _quantity_problems(key_path, table) or _derived_problems(key_path, table, tables)
        problems += found
        if not found:
            quantities[key_path] = _quantity(key_path, table, tables)
    return quantities, problems + _order_problems(quantities) + _scope_problems(document)


def _problem(key_path: str, found: str, expected: str) -> str:
    return f"{key_path}: found {found}, expected {expected}"


def _unknown_keys(prefix: str, table: Table, known: tuple[str, ...]) -> list[str]:
    return [
        _problem(
            f"{prefix}{key}", "an unknown key", f"one of {', '.join(known)}{nearest(key, known)}"
        )
        for key in table
        if key not in known
    ]


def _text_problems(key_path: str, value: object) -> list[str]:
    if isinstance(value, str) and value.strip():
        return []
    return [_problem(key_path, "nothing" if value is None else repr(value), "text")]


def _head_problems(document: Table) -> list[str]:
    """Problems of everything in the file that is not a number with a source."""
    problems = _unknown_keys("", document, _PROFILE_KEYS)
    for key in _TEXT_KEYS:
        problems += _text_problems(key, document.get(key))
    for key in _OPTIONAL_TEXT_KEYS:
        if key in document:
            problems += _text_problems(key, document[key])
    cores = document.get("cores")
    if not isinstance(cores, int) or isinstance(cores, bool) or cores < 1:
        found = "nothing" if cores is None else repr(cores)
        problems.append(_problem("cores", found, "a whole number greater than zero"))
    scope = document.get("power_scope")
    if scope is not None and scope not in _SCOPES:
        problems.append(_problem("power_scope", repr(scope), f"one of {', '.join(_SCOPES)}"))
    return problems


def _quantity_tables(document: Table) -> tuple[dict[str, Table], list[str]]:
    """The numbers of the file by key path, and the problems of what is not a table."""
    values = {key: document[key] for key in UNITS if key in document}
    problems: list[str] = []
    flops = document.get(FLOPS, {})
    if isinstance(flops, dict):
        problems += _unknown_keys(f"{FLOPS}.", flops, FLOPS_KEYS)
        values |= {f"{FLOPS}.{key}": flops[key] for key in FLOPS_KEYS if key in flops}
    else:
        problems.append(_problem(FLOPS, repr(flops), f"a table of {', '.join(FLOPS_KEYS)}"))
    expected = "a table { value, kind, source, date }"
    problems += [
        _problem(path, repr(value), expected)
        for path, value in values.items()
        if not isinstance(value, dict)
    ]
    return {path: value for path, value in values.items() if isinstance(value, dict)}, problems


def _number_problems(key_path: str, value: object) -> list[str]:
    expected = "a finite number greater than zero"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return (
            [] if math.isfinite(value) and value > 0 else [_problem(key_path, f"{value}", expected)]
        )
    return [_problem(key_path, "nothing" if value is None else repr(value), expected)]


def _quantity_problems(key_path: str, table: Table) -> list[str]:
    """Problems that show in one number's own table."""
    problems = _unknown_keys(f"{key_path}.", table, (*_QUANTITY_KEYS, *_DERIVED_KEYS))
    kind = table.get("kind")
    if kind != "derived" or "value" in table:
        problems += _number_problems(f"{key_path}.value", table.get("value"))
    if kind not in _KINDS:
        found = "nothing" if kind is None else repr(kind)
        problems.append(_problem(f"{key_path}.kind", found, f"one of {', '.join(_KINDS)}"))
    problems += _text_problems(f"{key_path}.source", table.get("source"))
    date = table.get("date")
    if not isinstance(date, str) or not _DATE.fullmatch(date):
        found = "nothing" if date is None else repr(date)
        problems.append(_problem(f"{key_path}.date", found, "text YYYY, YYYY-MM or YYYY-MM-DD"))
    return problems


def _derived_problems(key_path: str, table: Table, tables: Mapping[str, Table]) -> list[str]:
    """Problems between a number and what it is derived from."""
    given = [key for key in _DERIVED_KEYS if key in table]
    if table["kind"] != "derived":
        expected = f"no such key in a number of kind {table['kind']}"
        return [_problem(f"{key_path}.{key}", repr(table[key]), expected) for key in given]
    if given == ["derivation"]:
        return _derivation_problems(key_path, table)
    if given == ["derived_from", "factor"]:
        return _reference_problems(key_path, table, tables)
    expected = "either derived_from and factor, or derivation, in a derived number"
    return [_problem(key_path, " and ".join(given) or "none of them", expected)]


def _derivation_problems(key_path: str, table: Table) -> list[str]:
    result = _evaluated(table["derivation"])
    if result is None:
        expected = (
            "a product, quotient or sum above zero, a colon and what it means, such as "
            "'2 x 1.3e9: read and written'"
        )
        return [_problem(f"{key_path}.derivation", repr(table["derivation"]), expected)]
    return _value_problems(key_path, table, result, table["derivation"].split(":")[0].strip())


def _reference_problems(key_path: str, table: Table, tables: Mapping[str, Table]) -> list[str]:
    problems = _number_problems(f"{key_path}.factor", table["factor"])
    reference = table["derived_from"]
    others = [path for path in tables if path != key_path and "derived_from" not in tables[path]]
    if reference not in others:
        # A chain could close into a circle, in which no number stands on anything.
        expected = f"another number of this file that has no derived_from: {', '.join(others)}"
        problems.append(_problem(f"{key_path}.derived_from", repr(reference), expected))
    if problems:
        return problems
    base = _value(tables[reference], tables)
    if base is None:
        return []  # reported where it stands
    return _value_problems(
        key_path, table, float(table["factor"]) * base, f"{table['factor']} x {reference}"
    )


def _value_problems(key_path: str, table: Table, result: float, arithmetic: str) -> list[str]:
    if "value" not in table or math.isclose(table["value"], result, rel_tol=_RELATIVE_TOLERANCE):
        return []
    return [_problem(f"{key_path}.value", f"{table['value']}", f"{result:.10g} = {arithmetic}")]


def _value(table: Table, tables: Mapping[str, Table]) -> float | None:
    """The number of a table: as stated, else derived; None where its table does not give one."""
    if "value" in table:
        return None if _number_problems("", table["value"]) else float(table["value"])
    if "derivation" in table:
        return _evaluated(table["derivation"])
    base = _value(tables[table["derived_from"]], tables) if "derived_from" in table else None
    return None if base is None else float(table["factor"]) * base


def _evaluated(derivation: object) -> float | None:
    """The result of '2 x 1e9 x 8 + 3 / 2: why'; None when it is no such text, or not above zero."""
    match = _DERIVATION.fullmatch(derivation) if isinstance(derivation, str) else None
    if match is None:
        return None
    result = 0.0
    for term in match.group(1).split(" + "):
        first, *rest = term.split()
        product = float(first)
        for sign, number in zip(rest[::2], rest[1::2], strict=True):
            if sign == "/" and float(number) == 0:
                return None
            product = product * float(number) if sign == "x" else product / float(number)
        result += product
    return result if result > 0 and math.isfinite(result) else None


def _order_problems(quantities: Mapping[str, Quantity]) -> list[str]:
    """Problems between two numbers of which one cannot exceed the other."""
    pairs = [
        ("usable_memory_bytes", "total_memory_bytes"),
        ("bandwidth_bytes_per_second", "peak_bandwidth_bytes_per_second"),
        ("idle_watts", "load_watts"),
    ]
    pairs += [
        (f"{FLOPS}.{name}", f"{FLOPS}.{PEAK}") for name in (*OPERATOR_CLASSES, *PREFIX.values())
    ]
    return [
        _problem(low, f"{quantities[low].value:g}", f"at most {high} = {quantities[high].value:g}")
        for low, high in pairs
        if low in quantities and high in quantities
        if quantities[low].value > quantities[high].value
    ]


def _scope_problems(document: Table) -> list[str]:
    powers = [key for key in ("idle_watts", "load_watts") if key in document]
    if not powers or "power_scope" in document:
        return []
    expected = f"one of {', '.join(_SCOPES)}, because the file has {' and '.join(powers)}"
    return [_problem("power_scope", "nothing", expected)]


def _quantity(key_path: str, table: Table, tables: Mapping[str, Table]) -> Quantity:
    source = table["source"]
    if "derivation" in table:
        source = f"{source}; {table['derivation']}"
    elif "derived_from" in table:
        source = f"{source}; {table['factor']} x {table['derived_from']}"
    value = _value(table, tables)
    assert value is not None  # else its problems were found
    return Quantity(value, UNITS.get(key_path, "flop/s"), table["kind"], source, table["date"])
