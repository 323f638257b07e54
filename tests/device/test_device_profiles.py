from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from edgetune.errors import DeviceError
from edgetune.files import device_profiles
from edgetune.files.device_profiles import load_profile, profile_ids
from edgetune.nouns.profile import DeviceProfile, Quantity
from tests.device.profile_cases import BAD_FILES, MINIMAL, SOUND, edited


def quantities(profile: DeviceProfile) -> dict[str, Quantity]:
    fields = {field.name: getattr(profile, field.name) for field in dataclasses.fields(profile)}
    numbers = {name: value for name, value in fields.items() if isinstance(value, Quantity)}
    return numbers | {f"flops.{name}": value for name, value in profile.flops_per_second.items()}


def saved(folder: Path, text: str) -> str:
    path = folder / "bench.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def problems_of(folder: Path, text: str) -> str:
    with pytest.raises(DeviceError) as error:
        load_profile(saved(folder, text))
    return str(error.value)


def test_a_users_own_file_loads_by_its_path(tmp_path):
    profile = load_profile(saved(tmp_path, SOUND))
    assert (profile.id, profile.cores, profile.power_scope) == ("bench", 4, "wall")
    assert profile.idle_watts == Quantity(2.0, "W", "measured", "plug", "2024-01")
    assert profile.flops_per_second["matmul"].value == 35e9


def test_a_derived_number_carries_its_arithmetic_in_its_source(tmp_path):
    profile = load_profile(saved(tmp_path, SOUND))
    assert profile.bandwidth_bytes_per_second is not None
    assert profile.bandwidth_bytes_per_second.source == "memcpy; 2 x 2.5e9: read and written"
    assert profile.flops_per_second["matmul"].source == "sgemm; 0.7 x flops_per_second.peak"


def test_a_file_without_any_number_is_sound_and_everything_is_unknown(tmp_path):
    profile = load_profile(saved(tmp_path, MINIMAL))
    assert quantities(profile) == {}
    assert (profile.meter, profile.notes) == (None, "")


def test_a_profile_survives_json(tmp_path):
    data = load_profile(saved(tmp_path, SOUND)).to_dict()
    assert json.loads(json.dumps(data)) == data
    assert data["idle_watts"]["value"] == 2.0
    assert data["flops_per_second"]["peak"]["unit"] == "flop/s"


def test_a_profile_cannot_be_changed(tmp_path):
    profile = load_profile(saved(tmp_path, SOUND))
    with pytest.raises(dataclasses.FrozenInstanceError):
        profile.cores = 8  # type: ignore[misc]


def test_an_unknown_id_names_the_nearest_ids_and_the_way_to_an_own_file():
    with pytest.raises(DeviceError) as error:
        load_profile("raspberry-pi-4")
    message = str(error.value)
    assert message.startswith("unknown device 'raspberry-pi-4'; the nearest names are ")
    assert "raspberry-pi-4b-4gb" in message
    assert message.endswith("or the path of your own profile, a .toml file")


def test_of_the_nearest_ids_those_that_begin_alike_come_first():
    with pytest.raises(DeviceError) as error:
        load_profile("raspberry-pi-4")
    near = str(error.value).split("the nearest names are ")[1].split(";")[0].split(", ")
    assert len(near) == 3
    assert all(device.startswith("raspberry-pi-4b-") for device in near)


def test_an_id_unlike_any_other_says_where_all_ids_are_listed():
    with pytest.raises(DeviceError) as error:
        load_profile("zzz")
    assert str(error.value) == (
        f"unknown device 'zzz'; expected one of the {len(profile_ids())} ids that `edgetune "
        "devices` lists, or the path of your own profile, a .toml file"
    )


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DeviceError, match=r"absent\.toml: there is no such file"):
        load_profile(str(tmp_path / "absent.toml"))


def test_a_folder_is_not_a_profile(tmp_path):
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(DeviceError, match=r"cannot read the device profile .*folder\.toml: "):
        load_profile(str(tmp_path / "folder.toml"))


@pytest.mark.parametrize(
    "content",
    [pytest.param(b"id = ", id="cut off"), pytest.param(b'id = "\xff"', id="not UTF-8")],
)
def test_a_file_that_is_not_toml_is_named(tmp_path, content):
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(DeviceError, match=r"broken\.toml: not TOML: "):
        load_profile(str(path))


def test_an_installation_without_profiles_says_where_it_looked(tmp_path, monkeypatch):
    module = tmp_path / "edgetune" / "files" / "device_profiles.py"
    monkeypatch.setattr(device_profiles, "__file__", str(module))
    with pytest.raises(DeviceError) as error:
        profile_ids()
    assert str(tmp_path / "edgetune" / "device_profiles") in str(error.value)
    assert "install edgetune again" in str(error.value)


def test_profiles_inside_the_package_win_over_those_next_to_it(tmp_path, monkeypatch):
    for folder, device in [("edgetune/device_profiles", "inside"), ("device_profiles", "outside")]:
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / f"{device}.toml").write_text(MINIMAL, encoding="utf-8")
    module = tmp_path / "edgetune" / "files" / "device_profiles.py"
    monkeypatch.setattr(device_profiles, "__file__", str(module))
    assert profile_ids() == ["inside"]


@pytest.mark.parametrize(("old", "new", "message"), BAD_FILES)
def test_a_profile_that_is_not_sound_is_refused_with_what_and_where(tmp_path, old, new, message):
    assert message in problems_of(tmp_path, edited(old, new))


def test_a_problem_names_its_file(tmp_path):
    message = problems_of(tmp_path, edited("cores = 4", "cores = 0"))
    path = tmp_path / "bench.toml"
    assert message == (
        f"cannot use the device profile {path}: cores: found 0, expected a whole number greater "
        "than zero"
    )


def test_sustained_flops_above_the_peak_are_refused(tmp_path):
    message = problems_of(
        tmp_path, edited("value = 35e9", "value = 60e9").replace("factor = 0.7", "factor = 1.2")
    )
    assert (
        "flops_per_second.matmul: found 6e+10, expected at most flops_per_second.peak = 5e+10"
        in message
    )


def test_flops_that_are_not_a_table_are_refused(tmp_path):
    message = problems_of(tmp_path, MINIMAL + "flops_per_second = 5e9\n")
    assert "flops_per_second: found 5000000000.0, expected a table of convolution" in message


def test_equal_bounds_are_allowed(tmp_path):
    text = edited("value = 900", "value = 1000").replace("value = 6.5", "value = 2")
    text = text.replace("value = 35e9", "value = 50e9").replace("factor = 0.7", "factor = 1.0")
    assert load_profile(saved(tmp_path, text)).flops_per_second["matmul"].value == 50e9


def test_all_problems_of_a_file_are_reported_at_once(tmp_path):
    text = edited("cores = 4", "cores = 0")
    text = edited(', source = "free"', "", text)
    text = edited("value = 6.5", "value = 1", text)
    text = edited("value = 35e9", "value = 1e9", text)
    message = problems_of(tmp_path, text)
    assert "4 problems" in message
    for key_path in ("cores", "usable_memory_bytes.source", "idle_watts", "matmul.value"):
        assert f"{key_path}: found" in message


def test_a_number_is_not_derived_from_a_bad_number_twice(tmp_path):
    message = problems_of(tmp_path, edited("value = 50e9", "value = -1"))
    assert message.count("found") == 1
    assert "flops_per_second.peak.value: found -1" in message


# like another ---------------------------------------------------------------------------------

LIKE = """\
id = "bench-2"
like = "bench.toml"
name = "Bench board, twice the memory"
total_memory_bytes = { value = 2000, kind = "vendor", source = "data sheet", date = "2024" }
"""


def like(folder: Path, text: str = LIKE, base: str = SOUND) -> str:
    saved(folder, base)
    path = folder / "like.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_profile_that_is_like_another_has_what_it_does_not_say_itself(tmp_path):
    base, profile = load_profile(saved(tmp_path, SOUND)), load_profile(like(tmp_path))
    assert (profile.id, profile.name) == ("bench-2", "Bench board, twice the memory")
    assert profile.total_memory_bytes == Quantity(2000.0, "byte", "vendor", "data sheet", "2024")
    for field in ("cpu", "cores", "power_scope", "meter", "notes"):
        assert getattr(profile, field) == getattr(base, field)
    values = {path: quantity.value for path, quantity in quantities(base).items()}
    values["total_memory_bytes"] = 2000.0
    assert {path: quantity.value for path, quantity in quantities(profile).items()} == values


def test_a_number_taken_over_says_from_which_profile(tmp_path):
    profile = load_profile(like(tmp_path))
    assert profile.idle_watts is not None
    assert profile.idle_watts.source == "plug; taken over from bench"
    assert profile.total_memory_bytes is not None
    assert profile.total_memory_bytes.source == "data sheet"


def test_a_number_names_the_profile_it_stands_in_however_long_the_chain(tmp_path):
    like(tmp_path)
    text = 'id = "bench-3"\nlike = "like.toml"\nname = "Third"\n'
    (tmp_path / "third.toml").write_text(text, encoding="utf-8")
    profile = load_profile(str(tmp_path / "third.toml"))
    assert profile.idle_watts is not None and profile.total_memory_bytes is not None
    assert profile.idle_watts.source == "plug; taken over from bench"
    assert profile.total_memory_bytes.source == "data sheet; taken over from bench-2"


def test_a_share_of_a_number_that_is_replaced_is_derived_anew(tmp_path):
    peak = '{ value = 10e9, kind = "measured", source = "cpufp", date = "2024-02" }'
    profile = load_profile(like(tmp_path, f"{LIKE}\n[flops_per_second]\npeak = {peak}\n"))
    assert profile.flops_per_second["matmul"].value == 7e9
    assert "taken over from bench" in profile.flops_per_second["matmul"].source
    assert "taken over" not in profile.flops_per_second["peak"].source


def test_a_users_file_may_be_like_a_device_that_comes_with_edgetune(tmp_path):
    text = 'id = "mine"\nlike = "raspberry-pi-4b-4gb"\nname = "Mine"\n'
    mine, base = load_profile(like(tmp_path, text)), load_profile("raspberry-pi-4b-4gb")
    assert mine.flops_per_second["peak"].value == base.flops_per_second["peak"].value
    assert mine.load_watts is not None
    assert mine.load_watts.source.endswith("; taken over from raspberry-pi-4b-4gb")


BAD_LIKES = [
    pytest.param(
        'like = "bench.toml"',
        'like = "raspberry-pi-4"',
        "like: found 'raspberry-pi-4', expected the id of a device that comes with edgetune; the "
        "nearest names are raspberry-pi-4b-",
        id="unknown id",
    ),
    pytest.param(
        'like = "bench.toml"', 'like = "absent.toml"', "absent.toml: there is no such file", id="no"
    ),
    pytest.param('like = "bench.toml"', 'like = "like.toml"', "like: found a circle", id="circle"),
    pytest.param(
        'like = "bench.toml"', 'like = ""', "like: found '', expected text", id="empty text"
    ),
    pytest.param('id = "bench-2"\n', "", "id: found nothing, expected text", id="no id of its own"),
    pytest.param(
        "value = 2000",
        "value = 800",
        "usable_memory_bytes: found 900, expected at most total_memory_bytes = 800",
        id="at odds with what is taken over",
    ),
]


@pytest.mark.parametrize(("old", "new", "message"), BAD_LIKES)
def test_what_a_profile_cannot_be_like_is_refused(tmp_path, old, new, message):
    with pytest.raises(DeviceError) as error:
        load_profile(like(tmp_path, edited(old, new, LIKE)))
    assert message in str(error.value)


def test_a_problem_of_the_other_profile_is_reported_with_its_own_file(tmp_path):
    with pytest.raises(DeviceError) as error:
        load_profile(like(tmp_path, base=edited("cores = 4", "cores = 0")))
    assert str(error.value) == (
        f"cannot use the device profile {tmp_path / 'bench.toml'}: cores: found 0, expected a "
        "whole number greater than zero"
    )


# derived numbers ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arithmetic", "value"),
    [("2 x 2.5e9", 5e9), ("10e9 / 4", 2.5e9), ("1e9 x 8 / 2 + 3 x 1e9", 7e9), ("6e9", 6e9)],
)
def test_a_derived_number_needs_no_value_and_follows_its_arithmetic(tmp_path, arithmetic, value):
    text = edited("value = 5e9\n", "")
    text = edited("2 x 2.5e9: read and written", f"{arithmetic}: because", text)
    profile = load_profile(saved(tmp_path, text))
    assert profile.bandwidth_bytes_per_second is not None
    assert profile.bandwidth_bytes_per_second.value == value


def test_a_share_needs_no_value(tmp_path):
    text = edited("matmul = { value = 35e9,", "matmul = {")
    assert load_profile(saved(tmp_path, text)).flops_per_second["matmul"].value == 35e9
