"""The device profiles that come with edgetune: complete, sourced, derived rightly, physical."""

from __future__ import annotations

import re
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from edgetune.files import device_profiles
from edgetune.files.device_profiles import load_profile, profile_ids
from edgetune.nouns.profile import OPERATOR_CLASSES, DeviceProfile, Quantity

tomllib = device_profiles.tomllib  # tomli where Python has none

SHIPPED = [
    "generic-aarch64",
    "generic-x86",
    "jetson-agx-orin-64gb",
    "jetson-agx-orin-64gb-15w",
    "jetson-agx-orin-64gb-30w",
    "jetson-agx-orin-64gb-50w",
    "jetson-nano-4gb",
    "jetson-nano-4gb-5w",
    "jetson-orin-nano-8gb",
    "jetson-orin-nano-8gb-25w",
    "jetson-orin-nano-8gb-7w",
    "jetson-orin-nano-8gb-maxn-super",
    "jetson-orin-nx-16gb",
    "jetson-orin-nx-16gb-10w",
    "jetson-orin-nx-16gb-15w",
    "jetson-orin-nx-16gb-25w",
    "jetson-tx2-8gb",
    "jetson-tx2-8gb-maxq",
    "jetson-xavier-nx-8gb",
    "phone-snapdragon-865-8gb",
    "pinephone-2gb",
    "pinephone-3gb",
    "raspberry-pi-3b-plus",
    "raspberry-pi-4b-1gb",
    "raspberry-pi-4b-2gb",
    "raspberry-pi-4b-4gb",
    "raspberry-pi-4b-8gb",
    "raspberry-pi-5-16gb",
    "raspberry-pi-5-4gb",
    "raspberry-pi-5-8gb",
    "raspberry-pi-zero-2-w",
]
NO_TIME = {"jetson-tx2-8gb", "jetson-tx2-8gb-maxq", "jetson-xavier-nx-8gb"}
"""Devices of which no source gives bandwidth and flops both: no time is predicted for them."""

NO_USABLE_MEMORY = {device for device in SHIPPED if device.startswith("jetson-orin-nx-16gb")}

SHARES = {"convolution": 0.55, "matmul": 0.7, "depthwise": 0.1}
GIB = 1024**3

every_device = pytest.mark.parametrize("device", SHIPPED)


def quantities(profile: DeviceProfile) -> dict[str, Quantity]:
    values = {field.name: getattr(profile, field.name) for field in fields(profile)}
    numbers = {name: value for name, value in values.items() if isinstance(value, Quantity)}
    rates = profile.flops_per_second.items()
    return numbers | {f"flops_per_second.{name}": rate for name, rate in rates}


def raw(device: str) -> dict[str, Any]:
    """The numbers' tables of a device's file and of those it is like, by key path."""
    folder = Path(device_profiles.__file__).parents[1] / "device_profiles"
    folder = folder if folder.is_dir() else folder.parents[1] / "device_profiles"
    document = tomllib.loads((folder / f"{device}.toml").read_text(encoding="utf-8"))
    base = raw(document["like"]) if "like" in document else {}
    flops = document.pop("flops_per_second", {})
    own = {key: value for key, value in document.items() if isinstance(value, dict)}
    return base | own | {f"flops_per_second.{key}": value for key, value in flops.items()}


def arithmetic(derivation: str) -> float:
    """Python's own result of it, from nothing but numbers and signs."""
    text = derivation.split(":", maxsplit=1)[0].replace("x", "*")
    assert re.fullmatch(r"[\d.e+*/ ]+", text)
    return float(eval(text, {"__builtins__": {}}))


def test_the_profiles_that_come_with_edgetune_are_found():
    assert profile_ids() == SHIPPED


@every_device
def test_every_profile_loads_under_its_own_id_and_name(device):
    profile = load_profile(device)
    assert profile.id == device
    assert sum(load_profile(other).name == profile.name for other in SHIPPED) == 1


@every_device
def test_every_number_has_a_unit_kind_source_and_date(device):
    for name, quantity in quantities(load_profile(device)).items():
        assert quantity.unit in {"byte", "byte/s", "flop/s", "s", "W"}, name
        assert quantity.kind in {"measured", "vendor", "derived"}, name
        assert len(quantity.source) > 10, name
        assert "2015" < quantity.date < "2027", name


@every_device
def test_a_measured_number_names_a_project_and_where_in_it(device):
    place = re.compile(
        r"[\w.-]+/[\w.-]+,? (issue #\d+|[\w./-]+\.(md|txt|yml))|\w+\.com, |gathered by the project"
        r"|reference machine of edgetune"
    )
    for name, quantity in quantities(load_profile(device)).items():
        if quantity.kind == "measured":
            assert place.search(quantity.source), f"{name}: {quantity.source}"


@every_device
def test_derived_numbers_are_what_they_derive_from(device):
    numbers, tables = quantities(load_profile(device)), raw(device)
    assert set(numbers) == set(tables)
    for path, table in tables.items():
        if table["kind"] != "derived":
            assert numbers[path].value == table["value"], path
        elif "derivation" in table:
            assert numbers[path].value == pytest.approx(arithmetic(table["derivation"])), path
        else:
            expected = table["factor"] * numbers[table["derived_from"]].value
            assert numbers[path].value == pytest.approx(expected), path


@every_device
def test_the_shares_of_the_peak_are_said_to_be_assumed(device):
    flops = load_profile(device).flops_per_second
    assert set(flops) in ({"peak", *SHARES}, set())
    for name, share in SHARES.items() if flops else ():
        assert flops[name].kind == "derived"
        assert flops[name].value == pytest.approx(share * flops["peak"].value)
        assert flops[name].source.startswith("assumed share of the peak: not measured")
        assert f"{share} x flops_per_second.peak" in flops[name].source


@every_device
def test_what_a_plan_needs_is_known_but_where_no_source_was_found(device):
    profile = load_profile(device)
    assert profile.total_memory_bytes is not None
    assert (profile.usable_memory_bytes is None) == (device in NO_USABLE_MEMORY)
    time = profile.bandwidth_bytes_per_second and profile.flops_per_second
    assert bool(time) == (device not in NO_TIME)


def test_an_unknown_number_is_absent_not_zero():
    nano = load_profile("jetson-nano-4gb")
    assert (nano.idle_watts, nano.load_watts, nano.power_scope) == (None, None, None)
    assert "elementwise" not in nano.flops_per_second
    assert {load_profile(device).dispatch_seconds for device in SHIPPED} == {None}


# physics --------------------------------------------------------------------------------------


@every_device
def test_memory_is_physical(device):
    profile = load_profile(device)
    assert profile.total_memory_bytes is not None
    total = profile.total_memory_bytes.value
    assert total / GIB in (0.5, 1, 2, 3, 4, 8, 16, 64)
    if profile.usable_memory_bytes is not None:
        # The firmware, the kernel and a GPU that shares the memory take a share, never half.
        assert 0.6 * total < profile.usable_memory_bytes.value <= total


@every_device
def test_bandwidth_is_physical(device):
    profile = load_profile(device)
    reached, peak = profile.bandwidth_bytes_per_second, profile.peak_bandwidth_bytes_per_second
    if reached is not None:
        assert 1e9 < reached.value < 50e9
    if reached is not None and peak is not None:
        assert reached.value <= peak.value


@every_device
def test_rates_are_physical(device):
    profile = load_profile(device)
    flops = profile.flops_per_second
    for name in OPERATOR_CLASSES:
        if name in flops:
            assert flops[name].value <= flops["peak"].value
    if flops:
        # A core with one to two 128-bit pipes of fused multiply-adds (x86: two of 256 bits) at 0.9
        # to 3.3 GHz; sgemm on the reference machine stands for the peak there.
        assert 7e9 < flops["peak"].value / profile.cores < 60e9
        # More than one operation per byte: else the cores could not be slower than the memory.
        if profile.bandwidth_bytes_per_second is not None:
            assert 2 < flops["peak"].value / profile.bandwidth_bytes_per_second.value < 30


@every_device
def test_power_is_physical_and_its_scope_known(device):
    profile = load_profile(device)
    idle, load = profile.idle_watts, profile.load_watts
    assert (profile.power_scope is None) == (idle is None and load is None)
    if idle is not None:
        assert 0.3 < idle.value < 10
    if load is not None:
        assert load.value < 30
    if idle is not None and load is not None:
        assert idle.value <= load.value


@pytest.mark.parametrize(
    ("base", "sizes"),
    [("raspberry-pi-4b", (1, 2, 4, 8)), ("raspberry-pi-5", (4, 8, 16)), ("pinephone", (2, 3))],
)
def test_sizes_of_one_board_differ_in_memory_and_grow_in_order(base, sizes):
    profiles = [load_profile(f"{base}-{size}gb") for size in sizes]
    assert [p.total_memory_bytes.value / GIB for p in profiles] == list(sizes)
    usable = [p.usable_memory_bytes.value for p in profiles]
    assert usable == sorted(set(usable))
    assert len({p.flops_per_second["peak"].value for p in profiles}) == 1


@pytest.mark.parametrize(
    "modes",
    [
        ("jetson-nano-4gb-5w", "jetson-nano-4gb"),
        ("jetson-tx2-8gb-maxq", "jetson-tx2-8gb"),
        ("jetson-orin-nano-8gb-7w", "jetson-orin-nano-8gb-25w", "jetson-orin-nano-8gb"),
        ("jetson-orin-nx-16gb-10w", "jetson-orin-nx-16gb-15w", "jetson-orin-nx-16gb-25w"),
        ("jetson-agx-orin-64gb-15w", "jetson-agx-orin-64gb-30w", "jetson-agx-orin-64gb-50w"),
        ("jetson-agx-orin-64gb-50w", "jetson-agx-orin-64gb"),
    ],
)
def test_a_higher_power_mode_of_the_same_board_computes_faster(modes):
    # The 25 W mode of the Orin Nano Super gives the power to its GPU: its CPU is below 15 W's.
    profiles = [load_profile(device) for device in modes]
    assert len({p.total_memory_bytes.value for p in profiles}) == 1
    peaks = [p.flops_per_second["peak"].value for p in profiles]
    assert peaks == sorted(set(peaks))
    for lower, higher in pairwise(profiles):
        assert lower.cores <= higher.cores
