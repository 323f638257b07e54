"""Recreated /proc and /sys trees of boards, as their drivers lay them out."""

from __future__ import annotations

import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

Channel = tuple[str, int, int]  # label, mV, mA

COMPATIBLE = {
    "nano": ("nvidia,p3449-0000-b00+p3448-0000-b00", "nvidia,jetson-nano", "nvidia,tegra210"),
    "nano-2gb": ("nvidia,p3542-0000+p3448-0003", "nvidia,tegra210"),
    "tx2": ("nvidia,quill", "nvidia,p2597-0000+p3310-1000", "nvidia,tegra186"),
    "xavier-nx": (
        "nvidia,p3449-0000+p3668-0001",
        "nvidia,p3509-0000+p3668-0001",
        "nvidia,tegra194",
    ),
    "agx-xavier": ("nvidia,galen", "nvidia,p2822-0000+p2888-0001", "nvidia,tegra194"),
    "orin-nano": ("nvidia,p3768-0000+p3767-0005", "nvidia,p3767-0005", "nvidia,tegra234"),
    "orin-nx": ("nvidia,p3768-0000+p3767-0000", "nvidia,p3767-0000", "nvidia,tegra234"),
    "agx-orin": ("nvidia,p3737-0000+p3701-0005", "nvidia,p3701-0005", "nvidia,tegra234"),
    "pi-5": ("raspberrypi,5-model-b", "brcm,bcm2712"),
    "pi-4": ("raspberrypi,4-model-b", "brcm,bcm2711"),
}


def write(path: Path, text: str | int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")
    return path


def board(root: Path, name: str, model: str = "") -> Path:
    tree = root / "proc" / "device-tree"
    tree.mkdir(parents=True, exist_ok=True)
    (tree / "compatible").write_bytes("".join(f"{c}\0" for c in COMPATIBLE[name]).encode())
    (tree / "model").write_bytes(f"{model}\0".encode())
    return root


def hwmon(root: Path, address: str, channels: Sequence[Channel], number: int = 3) -> Path:
    """An INA3221 of JetPack 5 and 6, the sum of its shunt voltages and currents included."""
    folder = root / f"sys/bus/i2c/drivers/ina3221/{address}/hwmon/hwmon{number}"
    write(folder / "name", "ina3221")
    write(folder / "in7_label", "Sum of shunt voltages")
    write(folder / "in7_input", 760)
    write(folder / "curr4_input", 360)
    write(folder / "update_interval", 2)
    for place, (label, millivolts, milliamperes) in enumerate(channels, 1):
        write(folder / f"in{place}_label", label)
        write(folder / f"in{place}_input", millivolts)
        write(folder / f"curr{place}_input", milliamperes)
    return folder


def iio(root: Path, address: str, channels: Mapping[str, int], number: int = 0) -> Path:
    """An INA3221 of L4T up to 32; power is in mW."""
    folder = root / f"sys/bus/i2c/drivers/ina3221x/{address}/iio:device{number}"
    for place, (label, milliwatts) in enumerate(channels.items()):
        write(folder / f"rail_name_{place}", label)
        write(folder / f"in_power{place}_input", milliwatts)
        write(folder / f"in_voltage{place}_input", 5000)
        write(folder / f"in_current{place}_input", milliwatts // 5)
    return folder


def rapl(root: Path, zones: Mapping[str, tuple[str, int]], range_uj: int = 262143328850) -> Path:
    """powercap zones: {"intel-rapl:0": ("package-0", energy_uj)}."""
    powercap = root / "sys/class/powercap"
    for zone, (name, energy) in zones.items():
        write(powercap / zone / "name", name)
        write(powercap / zone / "max_energy_range_uj", range_uj)
        write(powercap / zone / "energy_uj", energy)
    return powercap


def supply(root: Path, name: str, **properties: str | int) -> Path:
    folder = root / "sys/class/power_supply" / name
    for key, value in properties.items():
        write(folder / key, value)
    return folder


def vcgencmd(root: Path, script: str) -> Path:
    """An executable that stands in for vcgencmd."""
    path = root / "usr/bin/vcgencmd"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path
