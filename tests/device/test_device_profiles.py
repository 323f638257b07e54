from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from edgetune.errors import DeviceError
from edgetune.files import device_profiles
from edgetune.files.device_profiles import load_profile, profile_ids
from edgetune.nouns.profile import DeviceProfile, Quantity

SHIPPED = [
    "generic-x86",
    "jetson-agx-orin-64gb",
    "jetson-nano-4gb",
    "jetson-orin-nano-8gb",
    "raspberry-pi-4b-4gb",
    "raspberry-pi-5-8gb",
    "raspberry-pi-zero-2-w",
]

SOUND = """\
id = "bench"
name = "Bench board"
cpu = "4x Arm Cortex-A72"
cores = 4
power_scope = "wall"
meter = "ina3221"
notes = "a board of the tests"
total_memory_bytes = { value = 1000, kind = "vendor", source = "data sheet", date = "2024" }
usable_memory_bytes = { value = 900, kind = "measured", source = "free", date = "2024-01" }
dispatch_seconds = { value = 1e-5, kind = "measured", source = "trace", date = "2024-01-31" }
idle_watts = { value = 2, kind = "measured", source = "plug", date = "2024-01" }
load_watts = { value = 6.5, kind = "measured", source = "plug", date = "2024-01" }

[bandwidth_bytes_per_second]
value = 5e9
kind = "derived"
source = "memcpy"
date = "2024-01"
derivation = "2 x 2.5e9: read and written"

[flops_per_second]
peak = { value = 50e9, kind = "measured", source = "cpufp", date = "2024-01" }
matmul = { value = 35e9, kind = "derived", source = "sgemm", date = "2024-01", \
derived_from = "flops_per_second.peak", factor = 0.7 }
"""
MINIMAL = 'id = "tiny"\nname = "Tiny"\ncpu = "1x"\ncores = 1\n'


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


def edited(old: str, new: str, text: str = SOUND) -> str:
    assert text.count(old) == 1, f"{old!r} must occur once, so that the case edits what it names"
    return text.replace(old, new)


def test_the_profiles_that_come_with_edgetune_are_found():
    assert profile_ids() == SHIPPED


@pytest.mark.parametrize("device", SHIPPED)
def test_every_shipped_profile_loads_under_its_own_id(device):
    assert load_profile(device).id == device


@pytest.mark.parametrize("device", SHIPPED)
def test_every_shipped_number_has_a_unit_kind_source_and_date(device):
    for name, quantity in quantities(load_profile(device)).items():
        assert quantity.unit in {"byte", "byte/s", "flop/s", "s", "W"}, name
        assert quantity.kind in {"measured", "vendor", "derived"}, name
        assert len(quantity.source) > 10, name
        assert quantity.date.startswith("20"), name


@pytest.mark.parametrize("device", SHIPPED)
def test_every_shipped_device_has_the_memory_and_rates_that_a_plan_needs(device):
    profile = load_profile(device)
    assert profile.total_memory_bytes is not None
    assert profile.usable_memory_bytes is not None
    assert profile.usable_memory_bytes.value <= profile.total_memory_bytes.value
    assert profile.bandwidth_bytes_per_second is not None
    assert {"peak", "convolution", "depthwise", "matmul"} <= set(profile.flops_per_second)


@pytest.mark.parametrize(
    ("name", "factor"), [("convolution", 0.55), ("matmul", 0.7), ("depthwise", 0.1)]
)
@pytest.mark.parametrize("device", SHIPPED)
def test_shipped_sustained_flops_are_their_share_of_the_peak(device, name, factor):
    flops = load_profile(device).flops_per_second
    assert flops[name].kind == "derived"
    assert flops[name].value == pytest.approx(factor * flops["peak"].value, rel=1e-6)
    assert flops[name].source.endswith(f"{factor} x flops_per_second.peak")


def test_an_unknown_number_is_absent_not_zero():
    nano = load_profile("jetson-nano-4gb")
    assert (nano.idle_watts, nano.load_watts, nano.power_scope) == (None, None, None)
    assert "elementwise" not in nano.flops_per_second


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
    assert "the path of your own profile, a .toml file" in message


def test_an_id_unlike_any_other_lists_all_ids():
    with pytest.raises(DeviceError) as error:
        load_profile("zzz")
    assert "nearest" not in str(error.value)
    assert f"expected one of {', '.join(SHIPPED)}" in str(error.value)


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


IDLE = 'idle_watts = { value = 2, kind = "measured", source = "plug", date = "2024-01" }'
BAD_FILES = [
    pytest.param('id = "bench"\n', "", "id: found nothing, expected text", id="missing id"),
    pytest.param('cpu = "4x Arm Cortex-A72"', "cpu = 4", "cpu: found 4, expected text", id="text"),
    pytest.param(
        "cores = 4",
        "cores = true",
        "cores: found True, expected a whole number greater than zero",
        id="cores boolean",
    ),
    pytest.param("cores = 4\n", "", "cores: found nothing, expected a whole", id="missing cores"),
    pytest.param('"ina3221"', '" "', "meter: found ' ', expected text", id="blank meter"),
    pytest.param(
        'power_scope = "wall"',
        'power_scope = "rack"',
        "power_scope: found 'rack', expected one of module, board, wall",
        id="unknown scope",
    ),
    pytest.param(
        'power_scope = "wall"\n',
        "",
        "power_scope: found nothing, expected one of module, board, wall, because the file has "
        "idle_watts and load_watts",
        id="power without scope",
    ),
    pytest.param(
        "idle_watts =",
        "idle_watt =",
        "idle_watt: found an unknown key, expected one of ",
        id="unknown key",
    ),
    pytest.param(
        "matmul =",
        "matmuls =",
        "flops_per_second.matmuls: found an unknown key, expected one of convolution, depthwise, "
        "matmul, elementwise, peak; the nearest names are matmul",
        id="unknown operator class",
    ),
    pytest.param(
        IDLE,
        "idle_watts = 2",
        "idle_watts: found 2, expected a table { value, kind, source, date }",
        id="bare number",
    ),
    pytest.param(
        IDLE,
        IDLE.replace("value = 2, ", ""),
        "idle_watts.value: found nothing, expected a finite number greater than zero",
        id="missing value",
    ),
    pytest.param(
        IDLE,
        IDLE.replace("value = 2", 'value = "2"'),
        "idle_watts.value: found '2', expected a finite number",
        id="value as text",
    ),
    pytest.param(
        IDLE,
        IDLE.replace("value = 2", "value = 0"),
        "idle_watts.value: found 0, expected a finite number greater than zero",
        id="zero",
    ),
    pytest.param(
        IDLE,
        IDLE.replace("value = 2", "value = -2"),
        "idle_watts.value: found -2, expected a finite number greater than zero",
        id="negative",
    ),
    pytest.param(
        IDLE,
        IDLE.replace("value = 2", "value = nan"),
        "idle_watts.value: found nan, expected a finite number",
        id="not a number",
    ),
    pytest.param(
        IDLE,
        IDLE.replace('"measured"', '"guessed"'),
        "idle_watts.kind: found 'guessed', expected one of measured, vendor, derived",
        id="unknown kind",
    ),
    pytest.param(
        IDLE,
        IDLE.replace(', source = "plug"', ""),
        "idle_watts.source: found nothing, expected text",
        id="missing source",
    ),
    pytest.param(
        IDLE,
        IDLE.replace(', date = "2024-01"', ""),
        "idle_watts.date: found nothing, expected text YYYY, YYYY-MM or YYYY-MM-DD",
        id="missing date",
    ),
    pytest.param(
        IDLE,
        IDLE.replace("2024-01", "2024-13"),
        "idle_watts.date: found '2024-13', expected text YYYY",
        id="month 13",
    ),
    pytest.param(
        IDLE,
        IDLE.replace("date =", "unit = 3, date ="),
        "idle_watts.unit: found an unknown key",
        id="unknown key of a number",
    ),
    pytest.param(
        "value = 900",
        "value = 1001",
        "usable_memory_bytes: found 1001, expected at most total_memory_bytes = 1000",
        id="usable above total",
    ),
    pytest.param(
        "value = 6.5",
        "value = 1.5",
        "idle_watts: found 2, expected at most load_watts = 1.5",
        id="load below idle",
    ),
    pytest.param(
        "value = 35e9",
        "value = 34e9",
        "flops_per_second.matmul.value: found 34000000000.0, expected 3.5e+10 = "
        "0.7 x flops_per_second.peak",
        id="not what it is derived from",
    ),
    pytest.param(
        "value = 5e9",
        "value = 6e9",
        "bandwidth_bytes_per_second.value: found 6000000000.0, expected 5000000000 = 2 x 2.5e9",
        id="not its derivation",
    ),
    pytest.param(
        "2 x 2.5e9: read and written",
        "read and written",
        "bandwidth_bytes_per_second.derivation: found 'read and written', expected a product",
        id="derivation without product",
    ),
    pytest.param(
        'derivation = "2 x 2.5e9: read and written"',
        "",
        "bandwidth_bytes_per_second: found none of them, expected either derived_from and factor",
        id="derived from nothing",
    ),
    pytest.param(
        ", factor = 0.7",
        "",
        "flops_per_second.matmul: found derived_from, expected either derived_from and factor",
        id="missing factor",
    ),
    pytest.param(
        "factor = 0.7",
        "factor = -0.7",
        "flops_per_second.matmul.factor: found -0.7, expected a finite number greater than zero",
        id="negative factor",
    ),
    pytest.param(
        'derived_from = "flops_per_second.peak"',
        'derived_from = "flops_per_second.matmul"',
        "flops_per_second.matmul.derived_from: found 'flops_per_second.matmul', expected another "
        "number of this file",
        id="derived from itself",
    ),
    pytest.param(
        IDLE,
        IDLE.replace("date =", "factor = 2, date ="),
        "idle_watts.factor: found 2, expected no such key in a number of kind measured",
        id="measured with factor",
    ),
]


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
