"""Read device profiles: those that come with edgetune, or a user's own .toml file.

A number is an inline table; the unit is in its key:

    idle_watts = { value = 1.6, kind = "measured", source = "who, where", date = "2024-01" }

A derived number says from what, and is computed here, so that its value may be left out: either
from another number of the file (`derived_from = "flops_per_second.peak"`, `factor = 0.55`), or by
arithmetic (`derivation = "4 x 1.5e9 x 8: cores x clock in Hz x fp32 flop per cycle"`; x, / and +).

A file may name another profile that it is like (`like = "raspberry-pi-4b-4gb"`, or the path of a
file next to it): it has what that one has, but for its own id, name and whatever it says itself.
Numbers taken over say so in their source; those derived from another number are derived anew.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgetune.errors import DeviceError, nearest, raise_all
from edgetune.files.profile_checks import FLOPS, FLOPS_KEYS, UNITS, Table, read_quantities
from edgetune.nouns.profile import DeviceProfile, Quantity

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_LIKE = "like"
_OWN_KEYS = ("id", "name")  # never taken over


def load_profile(name_or_path: str) -> DeviceProfile:
    """The profile with this id, or of the .toml file at this path. Raises DeviceError."""
    if name_or_path.endswith(".toml"):
        return _read_profile(Path(name_or_path))
    known = profile_ids()
    if name_or_path not in known:
        raise DeviceError(
            f"unknown device {name_or_path!r}{_nearest(name_or_path, known)}; expected one of the "
            f"{len(known)} ids that `edgetune devices` lists, or the path of your own profile, a "
            ".toml file"
        )
    return _read_profile(_shipped(name_or_path))


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


def _nearest(name: str, known: list[str]) -> str:
    """The nearest ids; those that go on where `name` ends are nearer than any other."""
    return nearest(name, [known_id for known_id in known if known_id.startswith(name)] or known)


def _shipped(profile_id: str) -> Path:
    return _directory() / f"{profile_id}.toml"


def _read_profile(path: Path) -> DeviceProfile:
    document, origins = _resolved(path, ())
    return _profile(document, _sound_quantities(path, document), origins)


def _sound_quantities(path: Path, document: Table) -> dict[str, Quantity]:
    quantities, problems = read_quantities(document)
    raise_all(DeviceError, f"cannot use the device profile {path}", problems)
    return quantities


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DeviceError(f"cannot read the device profile {path}: there is no such file") from None
    except OSError as error:
        raise DeviceError(f"cannot read the device profile {path}: {error.strerror}") from error
    except ValueError as error:  # of TOML, and of UTF-8
        raise DeviceError(f"cannot read the device profile {path}: not TOML: {error}") from error


def _resolved(path: Path, readers: tuple[Path, ...]) -> tuple[dict[str, Any], dict[str, str]]:
    """The file with what it takes over, and the ids that its numbers were taken from, by key path.

    readers: the files that are like this one, outermost first.
    """
    document = _parse(path)
    like = document.get(_LIKE)
    if not isinstance(like, str) or not like.strip():
        return document, {}  # where it is no text, that is found with all other problems
    base_path = _like_path(path, like)
    chain = (*readers, path)
    if base_path.resolve() in [reader.resolve() for reader in chain]:
        circle = " -> ".join(str(reader) for reader in (*chain, base_path))
        raise DeviceError(
            f"cannot use the device profile {path}: like: found a circle, {circle}; expected a "
            "profile that stands on its own in the end"
        )
    base, origins = _resolved(base_path, chain)
    _sound_quantities(base_path, base)
    return _merged(base, document), _origins(base, origins, document)


def _like_path(path: Path, like: str) -> Path:
    if like.endswith(".toml"):
        return path.parent / like
    known = profile_ids()
    if like not in known:
        raise DeviceError(
            f"cannot use the device profile {path}: like: found {like!r}, expected the id of a "
            f"device that comes with edgetune{_nearest(like, known)}, or the path of a .toml file"
        )
    return _shipped(like)


def _merged(base: Table, document: Table) -> dict[str, Any]:
    """What `document` says, and of `base` what it does not say."""
    taken = {key: _anew(value) for key, value in base.items() if key not in _OWN_KEYS}
    own = {key: value for key, value in document.items() if key != _LIKE}
    rates, own_rates = base.get(FLOPS), own.get(FLOPS)
    if isinstance(rates, dict) and isinstance(own_rates, dict):
        own[FLOPS] = {key: _anew(value) for key, value in rates.items()} | own_rates
    return taken | own


def _anew(value: Any) -> Any:
    """A number that hangs on another is derived again, from the new file's number."""
    if isinstance(value, dict) and "derived_from" in value:
        return {key: part for key, part in value.items() if key != "value"}
    return value


def _origins(base: Table, origins: Mapping[str, str], document: Table) -> dict[str, str]:
    taken = {path for path in _paths(base) if path not in _paths(document)}
    return {path: origins.get(path, base["id"]) for path in taken}


def _paths(document: Table) -> set[str]:
    rates = document.get(FLOPS)
    names = rates if isinstance(rates, dict) else {}
    return {key for key in UNITS if key in document} | {f"{FLOPS}.{name}" for name in names}


def _profile(
    document: Table, quantities: Mapping[str, Quantity], origins: Mapping[str, str]
) -> DeviceProfile:
    numbers = {
        path: replace(number, source=f"{number.source}; taken over from {origins[path]}")
        if path in origins
        else number
        for path, number in quantities.items()
    }
    return DeviceProfile(
        id=document["id"],
        name=document["name"],
        cpu=document["cpu"],
        cores=document["cores"],
        total_memory_bytes=numbers.get("total_memory_bytes"),
        usable_memory_bytes=numbers.get("usable_memory_bytes"),
        bandwidth_bytes_per_second=numbers.get("bandwidth_bytes_per_second"),
        flops_per_second={
            name: numbers[f"{FLOPS}.{name}"] for name in FLOPS_KEYS if f"{FLOPS}.{name}" in numbers
        },
        dispatch_seconds=numbers.get("dispatch_seconds"),
        idle_watts=numbers.get("idle_watts"),
        load_watts=numbers.get("load_watts"),
        power_scope=document.get("power_scope"),
        meter=document.get("meter"),
        notes=document.get("notes", ""),
        peak_bandwidth_bytes_per_second=numbers.get("peak_bandwidth_bytes_per_second"),
        group_seconds=numbers.get("group_seconds"),
    )
