"""Runs a command inside a userland, on an emulated processor of a Raspberry Pi.

qemu emulates the program alone and passes its system calls to this machine's kernel. A path that
exists below QEMU_LD_PREFIX is opened there, every other path as it is: so the command sees this
machine's files too, and the checkout under its own name.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.aarch64.userland import Userland

CORES = 1  # more threads wait for each other by spinning, which costs six times the work


@dataclass(frozen=True)
class Processor:
    """boards: that have it. variant, part, revision: as its MIDR register says. features: as Linux
    names them; qemu sets the same ones in the auxiliary vector.
    """

    boards: str
    variant: int
    part: int
    revision: int
    features: str

    @property
    def cpuinfo(self) -> str:
        """What Linux shows as /proc/cpuinfo."""
        core = (
            f"BogoMIPS\t: 108.00\nFeatures\t: {self.features}\nCPU implementer\t: 0x41\n"
            f"CPU architecture: 8\nCPU variant\t: {self.variant:#x}\nCPU part\t: {self.part:#x}\n"
            f"CPU revision\t: {self.revision}\n\n"
        )
        return "".join(f"processor\t: {number}\n{core}" for number in range(CORES))


# What tells them apart: the Cortex-A76 multiplies 8-bit numbers four at a time (asimddp).
PROCESSORS = {
    "cortex-a53": Processor(
        "Raspberry Pi Zero 2 W, 3B+", 0x0, 0xD03, 4, "fp asimd evtstrm crc32 cpuid"
    ),
    "cortex-a72": Processor("Raspberry Pi 4B", 0x0, 0xD08, 3, "fp asimd evtstrm crc32 cpuid"),
    "cortex-a76": Processor(
        "Raspberry Pi 5",
        0x4,
        0xD0B,
        1,
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc "
        "dcpop asimddp",
    ),
}


def run_python(
    userland: Userland, processor: str, *arguments: str, timeout_seconds: float = 600
) -> str:
    """The output of the userland's Python on `processor`, a name of PROCESSORS.

    Raises RuntimeError with what it printed when it fails, is killed or takes too long.
    """
    root = _root(userland, processor)
    python = root / "usr" / "bin" / f"python{userland.version}"
    environment = {
        "QEMU_CPU": processor,
        "QEMU_LD_PREFIX": str(root),
        "PYTHONPATH": str(userland.site),
        "OPENBLAS_NUM_THREADS": "1",  # its threads do not come up under emulation
        "PATH": "/usr/bin:/bin",
        "LC_ALL": "C.UTF-8",
    }
    command = [str(userland.qemu), str(python), *arguments]
    return _output(command, environment, timeout_seconds, f"on an emulated {processor}")


def _output(
    command: Sequence[str], environment: dict[str, str], timeout_seconds: float, where: str
) -> str:
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_seconds,
        )
    except subprocess.TimeoutExpired as expired:
        raise RuntimeError(f"no end after {timeout_seconds:.0f} s {where}") from expired
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip() or "it said nothing"
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"code {done.returncode}"
        raise RuntimeError(f"ended with {how} {where}:\n{said}")
    return done.stdout


def _root(userland: Userland, processor: str) -> Path:
    """The userland's / with the processor's own /proc/cpuinfo and /sys: onnxruntime reads them.

    Without these files it reads those of this machine, which tell of another architecture, and
    its import ends in a segmentation fault.
    """
    root = userland.folder / "processors" / processor
    shutil.rmtree(root, ignore_errors=True)
    cpus = root / "sys" / "devices" / "system" / "cpu"
    cpus.mkdir(parents=True)
    for name in ("possible", "present", "online"):
        (cpus / name).write_text(f"0-{CORES - 1}\n")
    (root / "proc").mkdir()
    (root / "proc" / "cpuinfo").write_text(PROCESSORS[processor].cpuinfo)
    for path in userland.root.iterdir():
        (root / path.name).symlink_to(Path("..", "..", "root", path.name))
    return root
