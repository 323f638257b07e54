from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgetune.errors import MeterError
from edgetune.meters import open_ina3221
from edgetune.meters.boards import jetson_board, this_machine
from tests.device.sensor_trees import COMPATIBLE, board, hwmon, iio, write

Sensors = Callable[[Path], object]

# Every board: its sensors, and the watts of the rails that make up its input.
BOARDS: dict[str, tuple[str, Sensors, float]] = {
    "nano over iio": (
        "nano",
        lambda root: iio(root, "6-0040", {"POM_5V_IN": 2500, "POM_5V_GPU": 40, "POM_5V_CPU": 500}),
        2.5,
    ),
    "nano over the mainline driver": (
        "nano",
        lambda root: hwmon(root, "6-0040", [("VDD_IN", 5000, 600), ("VDD_GPU", 5000, 100)]),
        3.0,
    ),
    "tx2 over iio, with its carrier's sensors": (
        "tx2",
        lambda root: (
            iio(root, "0-0040", {"VDD_SYS_GPU": 152, "VDD_SYS_SOC": 500, "VDD_4V0_WIFI": 19}),
            iio(root, "0-0041", {"VDD_IN": 3200, "VDD_SYS_CPU": 300, "VDD_SYS_DDR": 600}, 1),
            iio(root, "0-0042", {"VDD_MUX": 4000, "VDD_5V_IO_SYS": 900, "VDD_3V3_SYS": 0}, 2),
        ),
        3.2,
    ),
    "xavier nx": (
        "xavier-nx",
        lambda root: hwmon(
            root,
            "7-0040",
            [("VDD_IN", 5000, 800), ("VDD_CPU_GPU_CV", 5000, 200), ("VDD_SOC", 5000, 200)],
        ),
        4.0,
    ),
    "agx xavier sums its six": (
        "agx-xavier",
        lambda root: (
            hwmon(root, "1-0040", [("GPU", 19000, 10), ("CPU", 19000, 20), ("SOC", 19000, 50)]),
            hwmon(
                root, "1-0041", [("CV", 19000, 0), ("VDDRQ", 19000, 30), ("SYS5V", 5000, 400)], 4
            ),
        ),
        19.0 * 0.110 + 5.0 * 0.4,
    ),
    "orin nano": (
        "orin-nano",
        lambda root: hwmon(
            root,
            "1-0040",
            [("VDD_IN", 5064, 960), ("VDD_CPU_GPU_CV", 5064, 120), ("VDD_SOC", 5064, 280)],
        ),
        5.064 * 0.96,
    ),
    "orin nx": (
        "orin-nx",
        lambda root: hwmon(root, "1-0040", [("VDD_IN", 19800, 240), ("VDD_CPU_GPU_CV", 19800, 40)]),
        19.8 * 0.24,
    ),
    "agx orin without the child of VIN_SYS_5V0": (
        "agx-orin",
        lambda root: (
            hwmon(
                root,
                "1-0040",
                [
                    ("VDD_GPU_SOC", 19000, 160),
                    ("VDD_CPU_CV", 19000, 40),
                    ("VIN_SYS_5V0", 4968, 800),
                ],
            ),
            hwmon(root, "1-0041", [("NC", 0, 0), ("VDDQ_VDD2_1V8AO", 4968, 80), ("NC", 0, 0)], 4),
        ),
        19.0 * 0.2 + 4.968 * 0.8,
    ),
}


@pytest.mark.parametrize("case", BOARDS)
def test_a_board_is_the_sum_of_the_rails_that_contain_the_others(tmp_path: Path, case: str) -> None:
    name, sensors, expected = BOARDS[case]
    sensors(board(tmp_path, name))
    meter = open_ina3221(tmp_path)
    assert meter.watts() == pytest.approx(expected)
    assert (meter.name, meter.scope, meter.kind) == ("ina3221", "module", "measured")


def test_the_source_names_rails_and_board_and_the_sensors_interval_is_read(tmp_path: Path) -> None:
    _, sensors, _ = BOARDS["agx orin without the child of VIN_SYS_5V0"]
    sensors(board(tmp_path, "agx-orin"))
    meter = open_ina3221(tmp_path)
    assert meter.source == "ina3221: VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0 of Jetson AGX Orin"
    assert meter.update_seconds == 0.002


MODELS = {
    "NVIDIA Jetson Nano Developer Kit": "Jetson Nano",
    "NVIDIA Jetson Nano 2GB Developer Kit": "Jetson Nano 2 GB",
    "NVIDIA Jetson TX2 Developer Kit": "Jetson TX2",
    "NVIDIA Jetson Xavier NX Developer Kit": "Jetson Xavier NX",
    "Jetson-AGX": "Jetson AGX Xavier",
    "NVIDIA Orin NX Developer Kit": "Jetson Orin NX",
    "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super": "Jetson Orin Nano",
    "Jetson AGX Orin": "Jetson AGX Orin",
    "NVIDIA Jetson AGX Thor Developer Kit": None,
    "Raspberry Pi 5 Model B Rev 1.0": None,
}


@pytest.mark.parametrize("model", MODELS)
def test_a_board_without_part_numbers_is_known_by_its_model(tmp_path: Path, model: str) -> None:
    write(tmp_path / "proc/device-tree/model", model)
    found = jetson_board(this_machine(tmp_path))
    assert (found.name if found else None) == MODELS[model]


def test_the_module_counts_and_not_its_carrier(tmp_path: Path) -> None:
    assert "p3449-0000+p3668" in COMPATIBLE["xavier-nx"][0]  # the carrier of the Nano
    found = jetson_board(this_machine(board(tmp_path, "xavier-nx", "NVIDIA Jetson Nano carrier")))
    assert found is not None
    assert found.name == "Jetson Xavier NX"


def test_orin_nx_and_orin_nano_differ_in_the_last_digits_of_the_module(tmp_path: Path) -> None:
    names = [
        found.name
        for name in ("orin-nx", "orin-nano")
        if (found := jetson_board(this_machine(board(tmp_path / name, name))))
    ]
    assert names == ["Jetson Orin NX", "Jetson Orin Nano"]


REFUSED: dict[str, tuple[str, Sensors, str]] = {
    "not a Jetson": ("pi-4", lambda root: None, "this is not a Jetson"),
    "no sensor on the 2 GB Nano": (
        "nano-2gb",
        lambda root: None,
        "the Jetson Nano 2 GB has no power sensor; use an external meter",
    ),
    "no driver": ("orin-nx", lambda root: None, "the driver is not loaded, or this carrier's"),
    "a rail is missing": (
        "agx-orin",
        lambda root: hwmon(root, "1-0040", [("VDD_GPU_SOC", 19000, 160), ("NC", 0, 0)]),
        "the Jetson AGX Orin must have the rails VDD_CPU_CV, VIN_SYS_5V0, and its sensors show "
        "VDD_GPU_SOC; is the module another one",
    ),
    "a rail without its current": (
        "orin-nx",
        lambda root: (
            hwmon(root, "1-0040", [("VDD_IN", 5000, 1), ("VDD_SOC", 5000, 1)]) / "curr1_input"
        ).unlink(),
        "must have the rail VDD_IN, and its sensors show VDD_SOC",
    ),
    "only unconnected channels": (
        "orin-nx",
        lambda root: hwmon(root, "1-0040", [("NC", 0, 0), ("", 0, 0), ("NC", 0, 0)]),
        "no ina3221 sensor in",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_sum_that_would_be_wrong_is_refused(tmp_path: Path, case: str) -> None:
    name, sensors, message = REFUSED[case]
    sensors(board(tmp_path, name))
    with pytest.raises(MeterError) as error:
        open_ina3221(tmp_path)
    assert message in str(error.value)


def test_rails_of_an_unknown_board_are_not_guessed(tmp_path: Path) -> None:
    write(tmp_path / "proc/device-tree/model", "NVIDIA Jetson AGX Thor Developer Kit")
    hwmon(tmp_path, "1-0040", [("VDD_GPU", 5000, 100), ("VIN", 5000, 400)])
    with pytest.raises(MeterError, match="no table says which of the rails VDD_GPU, VIN contain"):
        open_ina3221(tmp_path)


READINGS = {
    "noise below zero is zero": (5000, -8, 0.0, None),
    "a negative power": (5000, -400, None, r"the rail VDD_IN reads -2 W, expected 0 to 1000 W"),
    "an absurd power": (65535, 65535, None, r"the rail VDD_IN reads 4294\.84 W, expected 0 to"),
    "a high but possible power": (19000, 3000, 57.0, None),
}


@pytest.mark.parametrize("case", READINGS)
def test_readings_are_checked(tmp_path: Path, case: str) -> None:
    millivolts, milliamperes, watts, message = READINGS[case]
    hwmon(board(tmp_path, "orin-nx"), "1-0040", [("VDD_IN", millivolts, milliamperes)])
    meter = open_ina3221(tmp_path)
    if message is None:
        assert meter.watts() == watts
    else:
        with pytest.raises(MeterError, match=message):
            meter.watts()


def test_a_sensor_that_disappears_or_says_nothing_readable_is_an_error(tmp_path: Path) -> None:
    folder = hwmon(board(tmp_path, "orin-nx"), "1-0040", [("VDD_IN", 5000, 1000)])
    meter = open_ina3221(tmp_path)
    assert meter.watts() == 5.0
    write(folder / "curr1_input", "")
    with pytest.raises(MeterError, match=r"curr1_input: '' is not a whole number"):
        meter.watts()
    (folder / "curr1_input").unlink()
    with pytest.raises(MeterError, match=r"cannot read .*curr1_input: No such file or directory"):
        meter.watts()
    write(folder / "curr1_input", 1000)
    assert meter.watts() == 5.0
