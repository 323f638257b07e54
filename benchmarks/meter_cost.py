"""What the sampler costs: its share of one core while nothing else runs.

    .venv-device/bin/python benchmarks/meter_cost.py [--seconds 20] [--rate 10]

Samples this machine's own meter if there is one, and recreated sensors of boards in a temporary
folder: the six rails of an AGX Xavier, RAPL, a battery, and a Pi 5 whose vcgencmd is a shell
script. The share is the processor time of this process and of the commands it ran, over the time
that went by. Files of a real sysfs may cost more, since the kernel then asks the sensor; what costs
more is read less often. Exit code 1 above 1 %.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from edgetune.meters import (
    Meter,
    Sampler,
    find_meter,
    open_battery,
    open_ina3221,
    open_pmic,
    open_rapl,
)

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.device.sensor_trees import board, hwmon, rapl, supply, vcgencmd

HIGHEST_SHARE = 0.01


def recreated(folder: Path) -> dict[str, Meter]:
    """Meters over made-up trees."""
    xavier = board(folder / "xavier", "agx-xavier")
    hwmon(xavier, "1-0040", [("GPU", 19000, 10), ("CPU", 19000, 20), ("SOC", 19000, 50)])
    hwmon(xavier, "1-0041", [("CV", 19000, 0), ("VDDRQ", 19000, 30), ("SYS5V", 5000, 400)], 4)
    supply(folder / "laptop", "BAT0", type="Battery", status="Discharging", power_now=7_500_000)
    rapl(folder / "x86", {"intel-rapl:0": ("package-0", 1), "intel-rapl:0:0": ("dram", 1)})
    pi = board(folder / "pi", "pi-5")
    lines = ["VDD_CORE_A current(7)=1.1A", "VDD_CORE_V volt(15)=0.75V"]
    vcgencmd(pi, "\n".join(f"echo '{line}'" for line in lines))
    return {
        "ina3221, six rails": open_ina3221(xavier),
        "powercap": open_rapl(folder / "x86"),
        "battery": open_battery(folder / "laptop"),
        "vcgencmd-pmic": open_pmic(pi),
    }


def cpu_seconds() -> float:
    """Processor time of this process and of those it has waited for."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def main() -> None:
    """Print the table; exit code 1 when a meter costs too much."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=10.0)
    options = parser.parse_args()
    highest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        meters = recreated(Path(folder))
        own = find_meter().meter
        if own is not None:
            meters[f"this machine's {own.name}"] = own
        print(f"{'meter':<28}  share of a core   samples per second")
        for name, meter in meters.items():
            with Sampler(meter, options.rate) as sampler:
                mark, before, begun = sampler.mark(), cpu_seconds(), time.monotonic()
                time.sleep(options.seconds)
                share = (cpu_seconds() - before) / (time.monotonic() - begun)
                rate = sampler.energy_since(mark).samples / options.seconds
            highest = max(highest, share)
            print(f"{name:<28}  {share:>14.3%}   {rate:>18.1f}")
    sys.exit(highest > HIGHEST_SHARE)


if __name__ == "__main__":
    main()
