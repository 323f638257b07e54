"""Power meters: what a device says that it draws, sampled and integrated, with its error bound.

No library was found right on these boards, so sensors are read here; each is a few small files.
jetson-stats (looked at: its power.py) needs a service that runs as root, takes VDD_IN or POM_5V_IN
as the total or else adds up all rails, which counts VDDQ_VDD2_1V8AO of the AGX Orin twice, and
swaps current and voltage of the iio driver; energymon knows no Orin; pyJoules and codecarbon have
RAPL and none of these boards. docs/meters.md says what is read on which board.
"""

from edgetune.meters.battery import BatteryMeter, open_battery
from edgetune.meters.external import ExternalMeter
from edgetune.meters.find import MeterSearch, find_meter
from edgetune.meters.ina2xx import Ina2xxMeter, open_ina2xx
from edgetune.meters.ina3221 import Ina3221Meter, open_ina3221
from edgetune.meters.meter import EnergyCounter, Meter, PowerMeter
from edgetune.meters.model import ModelMeter
from edgetune.meters.pmic import PmicMeter, open_pmic
from edgetune.meters.rapl import RaplCounter, open_rapl
from edgetune.meters.replay import ReplayMeter, ScriptedMeter
from edgetune.meters.sampler import Mark, Sampler
from edgetune.meters.trace import read_trace, trace_energy, write_trace

__all__ = [
    "find_meter",
    "MeterSearch",
    "Sampler",
    "Mark",
    "PowerMeter",
    "EnergyCounter",
    "Meter",
    "Ina3221Meter",
    "open_ina3221",
    "Ina2xxMeter",
    "open_ina2xx",
    "PmicMeter",
    "open_pmic",
    "RaplCounter",
    "open_rapl",
    "BatteryMeter",
    "open_battery",
    "ExternalMeter",
    "ModelMeter",
    "ReplayMeter",
    "ScriptedMeter",
    "read_trace",
    "write_trace",
    "trace_energy",
]
