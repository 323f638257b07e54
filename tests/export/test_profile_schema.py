"""The JSON Schema of device profiles, which ships with them, against the loader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tomllib
from jsonschema import Draft202012Validator

from edgetune.errors import DeviceError
from edgetune.files.device_profiles import load_profile, profile_ids
from edgetune.files.profile_checks import FLOPS_KEYS, UNITS
from tests.device.profile_cases import BAD_FILES, BEYOND_SCHEMA, MINIMAL, SOUND, edited

FOLDER = Path(__file__).resolve().parents[2] / "device_profiles"
SCHEMA = json.loads((FOLDER / "profile.schema.json").read_text(encoding="utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)

LIKE = 'id = "mine"\nlike = "raspberry-pi-4b-4gb"\nname = "Mine"\n'
WATTS = 'idle_watts = { value = 2, kind = "measured", source = "plug", date = "2024-01" }\n'


def schema_accepts(text: str) -> bool:
    return VALIDATOR.is_valid(tomllib.loads(text))


def loader_accepts(text: str, folder: Path) -> bool:
    path = folder / "case.toml"
    path.write_text(text, encoding="utf-8")
    try:
        load_profile(str(path))
    except DeviceError:
        return False
    return True


def test_the_schema_is_a_sound_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


def test_the_schema_knows_the_keys_that_the_loader_knows() -> None:
    assert set(UNITS) | {"flops_per_second"} < set(SCHEMA["properties"])
    assert set(SCHEMA["properties"]["flops_per_second"]["properties"]) == set(FLOPS_KEYS)


@pytest.mark.parametrize("device", profile_ids())
def test_every_profile_that_comes_with_edgetune_is_valid(device: str) -> None:
    text = (FOLDER / f"{device}.toml").read_text(encoding="utf-8")
    assert [error.message for error in VALIDATOR.iter_errors(tomllib.loads(text))] == []


SOUND_FILES = [
    pytest.param(SOUND, id="sound"),
    pytest.param(MINIMAL, id="minimal"),
    pytest.param(edited("value = 5e9\n", ""), id="derived without value"),
    pytest.param(edited("2 x 2.5e9", "1e9 x 8 / 2 + 1e9"), id="sum and quotient"),
    pytest.param(LIKE, id="like another"),
    pytest.param(LIKE + WATTS, id="power at the other's scope"),
]


@pytest.mark.parametrize("text", SOUND_FILES)
def test_what_the_loader_takes_the_schema_takes(tmp_path: Path, text: str) -> None:
    assert loader_accepts(text, tmp_path)
    assert schema_accepts(text)


# What the table of the loader's own tests edits into a sound file, and more.
MALFORMED = [(case.id, edited(*case.values[:2])) for case in BAD_FILES] + [
    ("empty", ""),
    ("like without name", 'id = "mine"\nlike = "raspberry-pi-4b-4gb"\n'),
    ("unlike any without cpu", 'id = "tiny"\nname = "Tiny"\ncores = 1\n'),
    ("flops no table", MINIMAL + "flops_per_second = 5e9\n"),
    ("both derivations", edited("factor = 0.7", 'factor = 0.7, derivation = "7 x 5e9: so"')),
    ("measured without value", edited("idle_watts = { value = 2, ", "idle_watts = { ")),
]


@pytest.mark.parametrize(("name", "text"), [pytest.param(*case, id=case[0]) for case in MALFORMED])
def test_what_the_loader_refuses_the_schema_refuses_unless_beyond_it(
    tmp_path: Path, name: Any, text: str
) -> None:
    assert not loader_accepts(text, tmp_path)
    assert schema_accepts(text) == (name in BEYOND_SCHEMA)


def test_all_that_is_beyond_the_schema_is_in_the_table() -> None:
    assert {name for name, _ in MALFORMED} >= BEYOND_SCHEMA
