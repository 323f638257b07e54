"""Which rails make up the power of which board, and what board this is.

Rails are the channels of INA3221 sensors on the module, by the label that the device tree gives
them; some contain others, so that the sum of all is wrong on every board but the AGX Xavier.
Sources: energymon/energymon, jetson/JetsonPowerRails.md (device trees of L4T 32.6.1: Nano to AGX
Xavier, and which of these branch in parallel); the ina3221 nodes of tegra234-p3701.dtsi and
tegra234-p3767.dtsi in Linux (Orin); NVIDIA in forums.developer.nvidia.com/t/200883 (VDD_IN is the
total of the module), /t/73608 (POM_5V_IN is, the others are parts; quoted in rbonghi/jetson_stats
issue #51) and /t/217088 (AGX Orin; issue #344).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgetune.meters.sysfs import read_optional


@dataclass(frozen=True)
class JetsonBoard:
    """One kind of Jetson module.

    modules: part numbers of the module, as they stand in /proc/device-tree/compatible; a carrier's
        part number says nothing.
    models: words of /proc/device-tree/model, in lower case, where the part number is not there.
    rails: what is added up; each by the labels under which it goes. Empty: no sensor.
    contained: rails that these contain, and that must not be added.
    """

    name: str
    modules: tuple[str, ...]
    models: tuple[str, ...]
    rails: tuple[tuple[str, ...], ...]
    contained: tuple[str, ...] = ()


_INPUT = (("VDD_IN",),)

JETSON_BOARDS = (
    JetsonBoard("Jetson Nano 2 GB", ("p3448-0003",), ("nano 2gb",), ()),
    JetsonBoard(
        "Jetson AGX Orin",
        ("p3701",),
        ("agx orin",),
        (("VDD_GPU_SOC",), ("VDD_CPU_CV",), ("VIN_SYS_5V0",)),
        ("VDDQ_VDD2_1V8AO",),
    ),
    JetsonBoard(
        "Jetson Orin NX",
        ("p3767-0000", "p3767-0001"),
        ("orin nx",),
        _INPUT,
        ("VDD_CPU_GPU_CV", "VDD_SOC"),
    ),
    JetsonBoard(
        "Jetson Orin Nano", ("p3767",), ("orin nano",), _INPUT, ("VDD_CPU_GPU_CV", "VDD_SOC")
    ),
    JetsonBoard(
        "Jetson Xavier NX", ("p3668",), ("xavier nx",), _INPUT, ("VDD_CPU_GPU_CV", "VDD_SOC")
    ),
    JetsonBoard(
        "Jetson AGX Xavier",
        ("p2888",),
        ("agx xavier", "jetson-agx"),
        (("GPU",), ("CPU",), ("SOC",), ("CV",), ("VDDRQ",), ("SYS5V",)),
    ),
    JetsonBoard(
        "Jetson TX2",
        ("p3310", "p3489", "p3636"),  # TX2; TX2i and TX2 4 GB; TX2 NX
        ("tx2", "quill"),
        _INPUT,
        ("VDD_SYS_GPU", "VDD_SYS_SOC", "VDD_SYS_CPU", "VDD_SYS_DDR", "VDD_4V0_WIFI"),
    ),
    JetsonBoard(
        "Jetson Nano",
        ("p3448",),
        ("jetson nano",),
        (("POM_5V_IN", "VDD_IN"),),
        ("POM_5V_GPU", "POM_5V_CPU", "VDD_GPU", "VDD_CPU"),
    ),
)
"""The first that matches counts: a more special one stands before the more general."""


@dataclass(frozen=True)
class Machine:
    """What the device tree says this is; both are empty on a machine without one (x86)."""

    model: str
    compatible: tuple[str, ...]

    @property
    def is_jetson(self) -> bool:
        """Whether the processor is one of NVIDIA's Tegra."""
        return any(entry.startswith("nvidia,tegra") for entry in self.compatible) or (
            "jetson" in self.model.lower()
        )

    @property
    def is_raspberry_pi(self) -> bool:
        """Whether it is a Raspberry Pi of any kind."""
        return "raspberry pi" in self.model.lower() or any(
            entry.startswith("raspberrypi,") for entry in self.compatible
        )

    @property
    def has_pi5_power_chip(self) -> bool:
        """Whether it is a Raspberry Pi 5, 500 or Compute Module 5: only these read their rails."""
        return self.is_raspberry_pi and (
            "brcm,bcm2712" in self.compatible or "raspberry pi 5" in self.model.lower()
        )


def this_machine(root: Path) -> Machine:
    """What the device tree under `root` says this is."""
    tree = root / "proc" / "device-tree"
    compatible = read_optional(tree / "compatible")
    return Machine(
        read_optional(tree / "model"), tuple(entry for entry in compatible.split("\0") if entry)
    )


def jetson_board(machine: Machine) -> JetsonBoard | None:
    """The board with its rails; None where it is not in the table."""
    # nvidia,p3509-0000+p3668-0001 is a carrier and, behind the plus, the module.
    parts = [
        part
        for entry in machine.compatible
        for part in entry.partition(",")[2].split("+")[-1:]
        if part
    ]
    for board in JETSON_BOARDS:
        if any(part.startswith(module) for part in parts for module in board.modules):
            return board
    model = machine.model.lower()
    return next((b for b in JETSON_BOARDS if any(word in model for word in b.models)), None)
