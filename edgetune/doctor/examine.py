"""Everything that is looked at, in the order in which a reader mends it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from edgetune.calibration.heat import read_heat
from edgetune.calibration.machine import cpu_name
from edgetune.doctor.board import board_finding, matching_profile
from edgetune.doctor.bundle import bundle_findings
from edgetune.doctor.finding import Finding
from edgetune.doctor.installation import installation_findings, read_installation
from edgetune.doctor.memory import memory_findings
from edgetune.doctor.power import heat_findings, meter_finding
from edgetune.guards.memory_room import memory_files
from edgetune.meters import find_meter
from edgetune.meters.boards import this_machine


def examine(bundle: Path | None = None, root: Path = Path("/")) -> Iterator[Finding]:
    """This installation, the machine whose /proc and /sys are under `root`, and the bundle.

    Raises DeviceError where edgetune's own profiles are missing.
    """
    here = read_installation()
    yield from installation_findings(here)
    files = memory_files(root)
    yield from memory_findings(files)
    match = matching_profile(this_machine(root), files.total_bytes(), here.architecture)
    yield board_finding(cpu_name(root), match)
    yield meter_finding(find_meter(root))
    yield from heat_findings(read_heat(root))
    if bundle is not None:
        yield from bundle_findings(bundle, files, match, _free_disk_bytes(bundle))


def _free_disk_bytes(bundle: Path) -> int:
    whole = bundle.resolve()
    return shutil.disk_usage(next(parent for parent in whole.parents if parent.is_dir())).free
