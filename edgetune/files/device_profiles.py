"""Read device profiles: those that come with edgetune, or a user's own .toml file.

A number is an inline table; the unit is in its key:

    idle_watts = { value = 1.6, kind = "measured", source = "who, where", date = "2024-01" }

A derived number says from what, and is computed again here: either from another number of the
file (`derived_from = "flops_per_second.peak"`, `factor = 0.55`), or from a product
(`derivation = "4 x 1.5e9 x 8: cores x clock in Hz x fp32 flop per cycle"`).
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgetune.errors import DeviceError, nearest, raise_all
from edgetune.nouns.profile import OPERATOR_CLASSES, PEAK, DeviceProfile, Quantity

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_TEXT_KEYS = ("id", "name", "cpu")
_OPTIONAL_TEXT_KEYS = ("power_scope", "meter", "notes")
_FLOPS = "flops_per_second"
_FLOPS_KEYS = (*OPERATOR_CLASSES, PEAK)
_UNITS = {
    "total_memory_bytes": "byte",
    "usable_memory_bytes": "byte",
    "bandwidth_bytes_per_second": "byte/s",
    "dispatch_seconds": "s",
    "idle_watts": "W",
    "load_watts": "W",
}
_PROFILE_KEYS = (*_TEXT_KEYS, *_OPTIONAL_TEXT_KEYS, "cores", _FLOPS, *_UNITS)
_QUANTITY_KEYS = ("value", "kind", "source", "date")
_DERIVED_KEYS = ("derived_from", "factor", "derivation")
_KINDS = ("measured", "vendor", "derived")
_SCOPES = ("module", "board", "wall")
_DATE = re.compile(r"\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?")
_NUMBER = r"\d+(?:\.\d+)?(?:[eE][+-]?\d+)?"
_PRODUCT = re.compile(rf"\s*({_NUMBER}(?:\s+x\s+{_NUMBER})*)\s*:\s*\S.*", re.DOTALL)
# Files hold rounded decimals, so a derived number may differ from its product in the last digits.
_RELATIVE_TOLERANCE = 1e-6

_Table = Mapping[str, Any]


def load_profile(name_or_path: str) -> DeviceProfile:
    """The profile with this id, or of the .toml file at this path. Raises DeviceError."""
    if name_or_path.endswith(".toml"):
        return _read_profile(Path(name_or_path))
    known = profile_ids()
    if name_or_path not in known:
        raise DeviceError(
            f"unknown device {name_or_path!r}{nearest(name_or_path, known)}; expected one of "
            f"{', '.join(known)}, or the path of your own profile, a .toml file"
        )
    return _read_profile(_directory() / f"{name_or_path}.toml")


def profile_ids() -> list[str]:
    """Sorted ids of the profiles that come with edgetune. Raises DeviceError."""
    return sorted(path.stem for path in _directory().glob("*.toml"))


def _directory() -> Path:
    """The folder of the profiles: in the installed package, or next to it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    # The package's own folder first: next to an installed package is all of site-packages.
    candidates = (package / "device_profiles", package.parent / "device_profiles")
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    looked = " and ".join(str(candidate) for candidate in candidates)
    raise DeviceError(
        f"the device profiles of edgetune are missing: looked in {looked}; install edgetune "
        "again, or give the path of your own profile, a .toml file"
    )


def _read_profile(path: Path) -> DeviceProfile:
    document = _parse(path)
    tables, problems = _quantity_tables(document)
    problems = _head_problems(document) + problems
    quantities: dict[str, Quantity] = {}
    for key_path, table in tables.items():
        found = _quantity_problems(key_path, table) or _derived_problems(key_path, table, tables)
        problems += found
        if not found:
            quantities[key_path] = _quantity(key_path, table)
    problems += _order_problems(quantities) + _scope_problems(document)
    raise_all(DeviceError, f"cannot use the device profile {path}", problems)
    return _profile(document, quantities)


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DeviceError(f"cannot read the device profile {path}: there is no such file") from None
    except OSError as error:
        raise DeviceError(f"cannot read the device profile {path}: {error.strerror}") from error
    except ValueError as error:  # of TOML, and of UTF-8
        raise DeviceError(f"cannot read the device profile {path}: not TOML: {error}") from error


def _problem(key_path: str, found: str, expected: str) -> str:
    return f"{key_path}: found {found}, expected {expected}"


def _unknown_keys(prefix: str, table: _Table, known: tuple[str, ...]) -> list[str]:
    return [
        _problem(
            f"{prefix}{key}", "an unknown key", f"one of {', '.join(known)}{nearest(key, known)}"
        )
        for key in table
        if key not in known
    ]


def _text_problems(key_path: str, value: object, expected: str = "text") -> list[str]:
    if isinstance(value, str) and value.strip():
        return []
    return [_problem(key_path, "nothing" if value is None else repr(value), expected)]


def _head_problems(document: _Table) -> list[str]:
    """Problems of everything in the file that is not a number with a source."""
    problems = _unknown_keys("", document, _PROFILE_KEYS)
    for key in _TEXT_KEYS:
        problems += _text_problems(key, document.get(key))
    for key in ("meter", "notes"):
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


def _quantity_tables(document: _Table) -> tuple[dict[str, _Table], list[str]]:
    """The numbers of the file by key path, and the problems of what is not a table."""
    values = {key: document[key] for key in _UNITS if key in document}
    problems: list[str] = []
    flops = document.get(_FLOPS, {})
    if isinstance(flops, dict):
        problems += _unknown_keys(f"{_FLOPS}.", flops, _FLOPS_KEYS)
        values |= {f"{_FLOPS}.{key}": flops[key] for key in _FLOPS_KEYS if key in flops}
    else:
        problems.append(_problem(_FLOPS, repr(flops), f"a table of {', '.join(_FLOPS_KEYS)}"))
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


def _quantity_problems(key_path: str, table: _Table) -> list[str]:
    """Problems that show in one number's own table."""
    problems = _unknown_keys(f"{key_path}.", table, (*_QUANTITY_KEYS, *_DERIVED_KEYS))
    problems += _number_problems(f"{key_path}.value", table.get("value"))
    kind = table.get("kind")
    if kind not in _KINDS:
        found = "nothing" if kind is None else repr(kind)
        problems.append(_problem(f"{key_path}.kind", found, f"one of {', '.join(_KINDS)}"))
    problems += _text_problems(f"{key_path}.source", table.get("source"))
    date = table.get("date")
    if not isinstance(date, str) or not _DATE.fullmatch(date):
        found = "nothing" if date is None else repr(date)
        problems.append(_problem(f"{key_path}.date", found, "text YYYY, YYYY-MM or YYYY-MM-DD"))
    return problems


def _derived_problems(key_path: str, table: _Table, tables: Mapping[str, _Table]) -> list[str]:
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


def _derivation_problems(key_path: str, table: _Table) -> list[str]:
    derivation = table["derivation"]
    match = _PRODUCT.fullmatch(derivation) if isinstance(derivation, str) else None
    if match is None:
        expected = "a product, a colon and what it means, such as '2 x 1.3e9: read and written'"
        return [_problem(f"{key_path}.derivation", repr(derivation), expected)]
    product = math.prod(float(number) for number in re.findall(_NUMBER, match.group(1)))
    return _value_problems(key_path, table, product, match.group(1))


def _reference_problems(key_path: str, table: _Table, tables: Mapping[str, _Table]) -> list[str]:
    problems = _number_problems(f"{key_path}.factor", table["factor"])
    reference = table["derived_from"]
    others = [path for path in tables if path != key_path and "derived_from" not in tables[path]]
    if reference not in others:
        # A chain could close into a circle, in which no number stands on anything.
        expected = f"another number of this file that has no derived_from: {', '.join(others)}"
        problems.append(_problem(f"{key_path}.derived_from", repr(reference), expected))
    if problems:
        return problems
    base = tables[reference]
    if _number_problems(reference, base.get("value")):
        return []  # reported where it stands
    product = float(table["factor"]) * float(base["value"])
    return _value_problems(key_path, table, product, f"{table['factor']} x {reference}")


def _value_problems(key_path: str, table: _Table, product: float, arithmetic: str) -> list[str]:
    if math.isclose(table["value"], product, rel_tol=_RELATIVE_TOLERANCE):
        return []
    return [_problem(f"{key_path}.value", f"{table['value']}", f"{product:.10g} = {arithmetic}")]


def _order_problems(quantities: Mapping[str, Quantity]) -> list[str]:
    """Problems between two numbers of which one cannot exceed the other."""
    pairs = [("usable_memory_bytes", "total_memory_bytes"), ("idle_watts", "load_watts")]
    pairs += [(f"{_FLOPS}.{name}", f"{_FLOPS}.{PEAK}") for name in OPERATOR_CLASSES]
    return [
        _problem(low, f"{quantities[low].value:g}", f"at most {high} = {quantities[high].value:g}")
        for low, high in pairs
        if low in quantities and high in quantities
        if quantities[low].value > quantities[high].value
    ]


def _scope_problems(document: _Table) -> list[str]:
    powers = [key for key in ("idle_watts", "load_watts") if key in document]
    if not powers or "power_scope" in document:
        return []
    expected = f"one of {', '.join(_SCOPES)}, because the file has {' and '.join(powers)}"
    return [_problem("power_scope", "nothing", expected)]


def _quantity(key_path: str, table: _Table) -> Quantity:
    source = table["source"]
    if "derivation" in table:
        source = f"{source}; {table['derivation']}"
    elif "derived_from" in table:
        source = f"{source}; {table['factor']} x {table['derived_from']}"
    unit = _UNITS.get(key_path, "flop/s")
    return Quantity(float(table["value"]), unit, table["kind"], source, table["date"])


def _profile(document: _Table, quantities: Mapping[str, Quantity]) -> DeviceProfile:
    return DeviceProfile(
        id=document["id"],
        name=document["name"],
        cpu=document["cpu"],
        cores=document["cores"],
        total_memory_bytes=quantities.get("total_memory_bytes"),
        usable_memory_bytes=quantities.get("usable_memory_bytes"),
        bandwidth_bytes_per_second=quantities.get("bandwidth_bytes_per_second"),
        flops_per_second={
            name: quantities[f"{_FLOPS}.{name}"]
            for name in _FLOPS_KEYS
            if f"{_FLOPS}.{name}" in quantities
        },
        dispatch_seconds=quantities.get("dispatch_seconds"),
        idle_watts=quantities.get("idle_watts"),
        load_watts=quantities.get("load_watts"),
        power_scope=document.get("power_scope"),
        meter=document.get("meter"),
        notes=document.get("notes", ""),
    )
