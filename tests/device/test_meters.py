from __future__ import annotations

import os
import sys
from dataclasses import replace
from errno import EACCES
from pathlib import Path

import pytest

from edgetune.errors import MeterError
from edgetune.files.device_profiles import load_profile
from edgetune.meters import (
    BatteryMeter,
    ExternalMeter,
    ModelMeter,
    find_meter,
    open_battery,
    open_ina2xx,
    open_pmic,
    open_rapl,
    sysfs,
)
from edgetune.meters.pmic import rails_watts
from tests.device.sensor_trees import board, hwmon, rapl, supply, vcgencmd, write

PMIC = """\
 3V7_WL_SW_A current(0)=0.09466522A
   3V3_SYS_A current(1)=0.08197812A
  VDD_CORE_A current(7)=1.11625000A
 3V7_WL_SW_V volt(8)=3.62925200V
   3V3_SYS_V volt(9)=3.31652900V
  VDD_CORE_V volt(15)=0.74944980V
     EXT5V_V volt(24)=5.08530000V
      BATT_V volt(25)=0.00000000V
"""
PMIC_WATTS = 0.09466522 * 3.629252 + 0.08197812 * 3.316529 + 1.11625 * 0.7494498
RANGE_UJ = 1_000_000


# ------------------------------------------------------------------------------ Raspberry Pi 5


def test_the_pi_5_is_the_sum_of_the_rails_that_have_a_current(tmp_path: Path) -> None:
    vcgencmd(board(tmp_path, "pi-5"), f"test \"$1\" = pmic_read_adc && cat <<'END'\n{PMIC}END")
    meter = open_pmic(tmp_path)
    assert meter.watts() == pytest.approx(PMIC_WATTS)
    assert (meter.name, meter.scope) == ("vcgencmd-pmic", "board")
    assert "without what hangs on 5 V" in meter.source


GARBLED = {
    "nothing": "",
    "another language": "error=1 error_msg='Command not registered'",
    "cut off after the currents": PMIC.partition("3V7_WL_SW_V")[0],
    "the CPU's current is missing": PMIC.replace("VDD_CORE_A", "VDD_CARE_A"),
    "a number is broken": PMIC.replace("=1.11625000A", "=1.1?25000A"),
}


@pytest.mark.parametrize("case", GARBLED)
def test_what_the_pi_5_prints_must_be_whole(case: str) -> None:
    with pytest.raises(MeterError, match="cannot understand what vcgencmd pmic_read_adc printed"):
        rails_watts(GARBLED[case])


FAILING = {
    "echo 'VCHI initialization failed' >&2; exit 255": "failed (255): VCHI initialization failed; "
    "if it may not open its device: sudo usermod -aG video $USER",
    "exit 1": "pmic_read_adc failed (1): no message",
}


@pytest.mark.parametrize("script", FAILING)
def test_a_vcgencmd_that_fails_says_what_to_do(tmp_path: Path, script: str) -> None:
    vcgencmd(board(tmp_path, "pi-5"), script)
    with pytest.raises(MeterError) as error:
        open_pmic(tmp_path).watts()
    assert FAILING[script] in str(error.value)


def test_a_vcgencmd_that_is_no_program_or_gone_is_an_error(tmp_path: Path) -> None:
    command = vcgencmd(board(tmp_path, "pi-5"), f"echo '{PMIC}'")
    meter = open_pmic(tmp_path)
    command.chmod(0o644)
    with pytest.raises(MeterError, match=r"cannot run .*vcgencmd: Permission denied"):
        meter.watts()
    command.unlink()
    with pytest.raises(MeterError, match=r"cannot run .*vcgencmd: No such file"):
        meter.watts()
    with pytest.raises(
        MeterError, match=r"there is no vcgencmd in .*: sudo apt install raspi-utils"
    ):
        open_pmic(tmp_path)


def test_other_raspberry_pis_do_not_sense_their_power(tmp_path: Path) -> None:
    vcgencmd(board(tmp_path, "pi-4", "Raspberry Pi 4 Model B Rev 1.4"), f"echo '{PMIC}'")
    with pytest.raises(MeterError, match=r"the Raspberry Pi 4 Model B Rev 1\.4 does not sense"):
        open_pmic(tmp_path)


# ------------------------------------------------------------------------------ RAPL


def test_packages_and_their_memory_are_added_and_nothing_twice(tmp_path: Path) -> None:
    zones = {
        "intel-rapl:0": ("package-0", 100),
        "intel-rapl:0:0": ("core", 50),
        "intel-rapl:0:1": ("dram", 30),
        "intel-rapl:1": ("package-1", 200),
        "intel-rapl:2": ("psys", 900),
        "intel-rapl-mmio:0": ("package-0", 100),
    }
    powercap = rapl(tmp_path, zones, RANGE_UJ)
    counter = open_rapl(tmp_path)
    assert counter.source == "powercap: package-0 + package-0's dram + package-1"
    assert counter.joules() == 0.0
    for zone, (_, energy) in zones.items():
        write(powercap / zone / "energy_uj", energy + 1000)
    assert counter.joules() == pytest.approx(3000e-6)
    assert (counter.name, counter.scope) == ("powercap", "module")


def test_a_counter_that_wraps_around_goes_on(tmp_path: Path) -> None:
    zones = {"intel-rapl:0": ("package-0", 900_000), "intel-rapl:1": ("package-1", 10)}
    powercap = rapl(tmp_path, zones, RANGE_UJ)
    counter = open_rapl(tmp_path)
    for energy, expected in ((999_999, 99_999), (50_000, 150_000), (60_000, 160_000)):
        write(powercap / "intel-rapl:0" / "energy_uj", energy)
        assert counter.joules() == pytest.approx(expected * 1e-6)


def test_a_counter_that_began_again_is_no_wrap_around(tmp_path: Path) -> None:
    powercap = rapl(tmp_path, {"intel-rapl:0": ("package-0", 400_000)}, RANGE_UJ)
    counter = open_rapl(tmp_path)
    write(powercap / "intel-rapl:0" / "energy_uj", 5)
    with pytest.raises(MeterError, match="the counter of package-0 went back: the machine slept"):
        counter.joules()
    write(powercap / "intel-rapl:0" / "energy_uj", 1005)
    assert counter.joules() == pytest.approx(1000e-6)


def test_no_permission_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rapl(tmp_path, {"intel-rapl:0": ("package-0", 1)})
    opened = os.open  # the tests may run as root, who may read all

    def refuse(path: Path, flags: int) -> int:
        if path.name == "energy_uj":
            raise PermissionError(EACCES, os.strerror(EACCES), str(path))
        return opened(path, flags)

    monkeypatch.setattr(sysfs.os, "open", refuse)
    with pytest.raises(MeterError) as error:
        open_rapl(tmp_path)
    assert "no permission to read" in str(error.value)
    assert "run as root, or let everybody read it" in str(error.value)
    assert "chmod -R a+r" in str(error.value)


def test_a_machine_without_counters_says_why_there_may_be_none(tmp_path: Path) -> None:
    with pytest.raises(
        MeterError, match=r"no package counter in .*: not an x86 processor with RAPL"
    ):
        open_rapl(tmp_path)
    rapl(tmp_path, {"intel-rapl:0": ("psys", 1)})
    with pytest.raises(MeterError, match="no package counter"):
        open_rapl(tmp_path)
    rapl(tmp_path, {"intel-rapl:1": ("package-0", 1)}, range_uj=0)
    with pytest.raises(MeterError, match="max_energy_range_uj is 0, expected more than zero"):
        open_rapl(tmp_path)


# ------------------------------------------------------------------------------ batteries

GIVES = {
    "power_now": {"status": "Discharging", "power_now": 7_500_000},
    "power_now with a sign": {"status": "Discharging", "power_now": -7_500_000},
    "the kernel's sign": {
        "status": "Discharging",
        "voltage_now": 15_000_000,
        "current_now": -500_000,
    },
    "the old sign": {"status": "Discharging", "voltage_now": 15_000_000, "current_now": 500_000},
    "no status, the kernel's sign": {"voltage_now": 15_000_000, "current_now": -500_000},
    "status unknown": {"status": "Unknown", "voltage_now": 15_000_000, "current_now": -500_000},
}


@pytest.mark.parametrize("case", GIVES)
def test_a_battery_gives_what_the_device_draws_whatever_the_sign(tmp_path: Path, case: str) -> None:
    supply(tmp_path, "BAT0", type="Battery", **GIVES[case])
    assert open_battery(tmp_path).watts() == pytest.approx(7.5)


TAKES = {
    "charging": ({"status": "Charging", "power_now": 20_000_000}, "BAT0 is being charged"),
    "no status, the kernel's sign": (
        {"voltage_now": 15_000_000, "current_now": 500_000},
        "BAT0 is being charged",
    ),
    "full": ({"status": "Full", "power_now": 0}, "no current flows out of battery: BAT0"),
    "not charging": (
        {"status": "Not charging", "power_now": 3},
        "no current flows out of battery: BAT0",
    ),
    "absurd": ({"status": "Discharging", "power_now": 7_500_000_000}, "reads 7500 W, expected 0"),
}


@pytest.mark.parametrize("case", TAKES)
def test_on_the_charger_a_battery_measures_nothing(tmp_path: Path, case: str) -> None:
    properties, message = TAKES[case]
    supply(tmp_path, "BAT0", type="Battery", **properties)
    with pytest.raises(MeterError, match=message):
        open_battery(tmp_path).watts()


def test_several_batteries_add_up_and_other_supplies_are_none(tmp_path: Path) -> None:
    supply(tmp_path, "AC", type="Mains", online=0)
    supply(tmp_path, "BAT0", type="Battery", status="Discharging", power_now=5_000_000)
    supply(tmp_path, "BAT1", type="Battery", status="Full", power_now=0)
    supply(tmp_path, "hidpp_battery_0", type="Battery", scope="Device", power_now=9_000_000)
    supply(tmp_path, "BAT2", type="Battery", present=0, power_now=9_000_000)
    meter = open_battery(tmp_path)
    assert meter.source == "battery: BAT0 + BAT1"
    assert meter.watts() == pytest.approx(5.0)
    assert meter.scope == "board"


def test_a_battery_that_tells_no_power_is_none(tmp_path: Path) -> None:
    with pytest.raises(MeterError, match="no battery in"):
        open_battery(tmp_path)
    supply(tmp_path, "BAT0", type="Battery", voltage_now=15_000_000, capacity=80)
    with pytest.raises(MeterError, match="BAT0 shows neither power_now nor voltage and current"):
        open_battery(tmp_path)


# ------------------------------------------------------------------------------ INA2xx


def test_one_chip_in_the_supply_is_a_meter_and_several_are_a_question(tmp_path: Path) -> None:
    with pytest.raises(MeterError, match=r"no ina219, ina220, ina226 or relative .*dtoverlay"):
        open_ina2xx(tmp_path)
    write(tmp_path / "sys/class/hwmon/hwmon0/name", "cpu_thermal")
    write(tmp_path / "sys/class/hwmon/hwmon2/name", "ina219")
    write(tmp_path / "sys/class/hwmon/hwmon2/power1_input", 4_200_000)
    meter = open_ina2xx(tmp_path, "wall")
    assert (meter.watts(), meter.scope) == (pytest.approx(4.2), "wall")
    write(tmp_path / "sys/class/hwmon/hwmon5/name", "ina226")
    with pytest.raises(
        MeterError, match=r"there are several: ina219 at .*hwmon2, ina226 at .*hwmon5"
    ):
        open_ina2xx(tmp_path)


# ------------------------------------------------------------------------------ external meters


def printing(script: str) -> list[str]:
    return [sys.executable, "-uc", script]


@pytest.mark.parametrize("line", ["5.25", "5.25 W", "  +5.25e0W  ", "# header\\n\\n5.25"])
def test_a_command_prints_watts(line: str) -> None:
    script = f"import time; print('{line}'); time.sleep(60)"
    with ExternalMeter(printing(script), "wall") as meter:
        assert meter.watts() == 5.25
        assert (meter.scope, meter.update_seconds) == ("wall", 0.0)
        assert meter.source.startswith("external: ")


WRONG = {
    "words": ("print('five watts')", "printed 'five watts', expected watts, such as 5.21"),
    "milliwatts": ("print('5250 mW')", "printed '5250 mW', expected watts"),
    "negative": ("print(-3)", "reads -3 W, expected 0 to 10000 W"),
    "not finite": ("print('1e999')", "reads inf W, expected"),
    "silence": ("pass", "printed nothing for 0.3 s; does it flush its output after every line"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_power_is_an_error(case: str) -> None:
    script, message = WRONG[case]
    command = printing(f"import time; {script}; time.sleep(60)")
    with ExternalMeter(command, "wall", stale_seconds=0.3 if case == "silence" else 20.0) as meter:
        with pytest.raises(MeterError) as error:
            meter.watts()
        assert message in str(error.value)


def test_a_command_that_ends_says_how() -> None:
    script = "import sys; print(5); sys.stderr.write('i2c: no device\\n'); sys.exit(3)"
    with ExternalMeter(printing(script), "board") as meter:
        meter._reader.join(20)
        with pytest.raises(MeterError, match="ended with exit code 3: i2c: no device"):
            meter.watts()


@pytest.mark.parametrize("command", [["/no/such/meter"], []])
def test_a_command_that_cannot_be_started_is_an_error(command: list[str]) -> None:
    with pytest.raises(MeterError, match="cannot start the meter"):
        ExternalMeter(command, "wall")


# ------------------------------------------------------------------------------ the model


def test_the_model_is_idle_and_load_by_how_busy_the_cores_are(tmp_path: Path) -> None:
    profile = load_profile("raspberry-pi-5-8gb")
    assert profile.idle_watts and profile.load_watts
    idle, load = profile.idle_watts.value, profile.load_watts.value
    stat = write(tmp_path / "proc/stat", "cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 1 1 1")
    meter = ModelMeter(profile, tmp_path)
    for ticks, busy in (
        ("100 0 100 1800 0", 0.0),
        ("1100 0 100 1800 0", 1.0),
        ("1100 0 100 1800 0", 1.0),  # no tick since: as before
        ("1200 0 100 2000 100", 0.25),
        ("1200 0 100 1000 100", 0.25),  # counters that went back say nothing
    ):
        write(stat, f"cpu  {ticks} 0 0 0 0 0")
        assert meter.watts() == pytest.approx(idle + (load - idle) * busy)
    assert (meter.kind, meter.scope, meter.relative_error) == ("estimated", "wall", 0.3)
    assert "profile raspberry-pi-5-8gb" in meter.source


def test_the_model_needs_to_know_idle_and_load(tmp_path: Path) -> None:
    write(tmp_path / "proc/stat", "cpu  1 2")
    profile = load_profile("raspberry-pi-5-8gb")
    with pytest.raises(MeterError, match="does not know load_watts, power_scope; measure them"):
        ModelMeter(replace(profile, load_watts=None, power_scope=None), tmp_path)
    with pytest.raises(MeterError, match="cannot read how busy the cores are in"):
        ModelMeter(profile, tmp_path)


# ------------------------------------------------------------------------------ the search


def test_the_search_says_what_it_found_or_why_not(tmp_path: Path) -> None:
    search = find_meter(tmp_path)
    assert search.meter is None
    assert [kind for kind, _ in search.absent] == [
        "ina3221",
        "ina2xx",
        "vcgencmd-pmic",
        "battery",
        "powercap",
    ]
    with pytest.raises(MeterError) as error:
        search.require()
    assert str(error.value).startswith(
        "no power meter was found\n  ina3221: this is not a Jetson\n"
    )
    rapl(tmp_path, {"intel-rapl:0": ("package-0", 1)})
    search = find_meter(tmp_path)
    assert search.require().name == "powercap"
    assert search.describe() == "powercap: package-0 (module, measured)"
    assert [kind for kind, _ in search.absent][-1] == "battery"


def test_the_search_takes_what_sees_most_and_can_be_read(tmp_path: Path) -> None:
    rapl(tmp_path, {"intel-rapl:0": ("package-0", 1)})
    battery = supply(tmp_path, "BAT0", type="Battery", status="Charging", power_now=5_000_000)
    assert find_meter(tmp_path).require().name == "powercap"
    write(battery / "status", "Discharging")
    assert isinstance(find_meter(tmp_path).meter, BatteryMeter)
    hwmon(board(tmp_path, "orin-nx"), "1-0040", [("VDD_IN", 5000, 1000)])
    assert find_meter(tmp_path).require().name == "ina3221"


def test_only_where_nothing_measures_the_profile_estimates(tmp_path: Path) -> None:
    write(tmp_path / "proc/stat", "cpu  1 0 1 8 0 0 0 0 0 0")
    known = load_profile("raspberry-pi-5-8gb")
    assert find_meter(tmp_path, known).require().kind == "estimated"
    unknown = replace(known, idle_watts=None)
    assert find_meter(tmp_path, unknown).absent[-1][0] == "model"
    rapl(tmp_path, {"intel-rapl:0": ("package-0", 1)})
    assert find_meter(tmp_path, known).require().kind == "measured"
