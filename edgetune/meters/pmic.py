"""The power chip of the Raspberry Pi 5, read with vcgencmd.

It measures voltage and current of twelve rails that it makes itself. What it does not see: whatever
hangs on 5 V directly (USB devices, HATs, a fan, the PCIe connector) and its own losses. The sum is
therefore below what the board draws. The correction that people pass on, 1.1451 x sum + 0.5879 W,
is not applied: it cannot know what is attached.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgetune.errors import MeterError, NoSensorError
from edgetune.meters.boards import this_machine
from edgetune.meters.meter import Sensor, plausible_watts
from edgetune.nouns.profile import PowerScope

_PLACES = ("usr/bin/vcgencmd", "opt/vc/bin/vcgencmd")
_LONGEST_SECONDS = 2.0
_LINE = re.compile(r"\s*(\w+)_([AV])\s+(?:current|volt)\(\d+\)=(-?\d+(?:\.\d+)?)[AV]\s*")
_CORE = "VDD_CORE"  # the rail of the CPU: without it the sum means nothing


@dataclass(frozen=True)
class PmicMeter(Sensor):
    """The sum of V x I over the rails of the power chip. command: the vcgencmd to run."""

    command: Path
    name: ClassVar[str] = "vcgencmd-pmic"
    scope: ClassVar[PowerScope] = "board"
    update_seconds: ClassVar[float] = 0.0

    @property
    def source(self) -> str:
        """What is read, and what is missed."""
        return "vcgencmd-pmic: rails of the power chip, without what hangs on 5 V"

    def watts(self) -> float:
        """Power of all rails now, in watts. Raises MeterError.

        Starts a process, about the cost of which the sampler knows: it samples more slowly.
        """
        return plausible_watts(rails_watts(self._ask()), self.source)

    def _ask(self) -> str:
        try:
            ran = subprocess.run(
                [str(self.command), "pmic_read_adc"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_LONGEST_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise MeterError(f"{self.command} did not answer in {_LONGEST_SECONDS:g} s") from None
        except OSError as error:
            raise MeterError(f"cannot run {self.command}: {error.strerror}") from error
        if ran.returncode != 0:
            said = (ran.stderr.strip() or ran.stdout.strip())[-200:]
            raise MeterError(
                f"{self.command} pmic_read_adc failed ({ran.returncode}): {said or 'no message'}; "
                f"if it may not open its device: sudo usermod -aG video $USER, and log in again"
            )
        return ran.stdout


def rails_watts(text: str) -> float:
    """The sum of V x I over the rails in what `vcgencmd pmic_read_adc` printed, in watts.

    Rails with a voltage alone (EXT5V, BATT) carry no current that is known. Raises MeterError when
    a rail has a current and no voltage, or the CPU's is missing.
    """
    volts: dict[str, float] = {}
    amperes: dict[str, float] = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match:
            rail, unit, value = match.groups()
            (volts if unit == "V" else amperes)[rail] = float(value)
    if _CORE not in amperes or not amperes.keys() <= volts.keys():
        raise MeterError(
            f"cannot understand what vcgencmd pmic_read_adc printed: expected lines such as "
            f"'{_CORE}_A current(7)=1.1A' and '{_CORE}_V volt(15)=0.75V' for every rail, "
            f"found {text.strip()[:80]!r}"
        )
    return sum(value * volts[rail] for rail, value in amperes.items())


def open_pmic(root: Path = Path("/")) -> PmicMeter:
    """The meter of this Raspberry Pi 5. Raises MeterError on any other, and without vcgencmd."""
    machine = this_machine(root)
    if not machine.is_raspberry_pi:
        raise NoSensorError("this is not a Raspberry Pi")
    if not machine.has_pi5_power_chip:
        raise NoSensorError(
            f"the {machine.model or 'Raspberry Pi'} does not sense its power, only a Pi 5 does; "
            f"use an external meter"
        )
    command = next((root / place for place in _PLACES if (root / place).exists()), None)
    if command is None:
        raise MeterError(
            f"there is no vcgencmd in {root / 'usr/bin'}: sudo apt install raspi-utils (in a "
            f"container, pass it and /dev/vcio in)"
        )
    return PmicMeter(command)
