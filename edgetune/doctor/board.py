"""Which of the shipped device profiles this machine is."""

from __future__ import annotations

from dataclasses import dataclass

from edgetune.doctor.finding import Finding
from edgetune.files.device_profiles import load_profile
from edgetune.meters.boards import Machine, jetson_board

# Words of /proc/device-tree/model, in lower case, and the profiles of boards that say so.
_MODELS = (
    ("raspberry pi zero 2 w", ("raspberry-pi-zero-2-w",)),
    ("raspberry pi 3 model b plus", ("raspberry-pi-3b-plus",)),
    (
        "raspberry pi 4 model b",
        (
            "raspberry-pi-4b-1gb",
            "raspberry-pi-4b-2gb",
            "raspberry-pi-4b-4gb",
            "raspberry-pi-4b-8gb",
        ),
    ),
    (
        "raspberry pi 5 model b",
        ("raspberry-pi-5-4gb", "raspberry-pi-5-8gb", "raspberry-pi-5-16gb"),
    ),
    ("pinephone (", ("pinephone-2gb", "pinephone-3gb")),  # the Pro is another machine
)
_JETSONS = {
    "Jetson Nano": "jetson-nano-4gb",
    "Jetson TX2": "jetson-tx2-8gb",
    "Jetson Xavier NX": "jetson-xavier-nx-8gb",
    "Jetson Orin Nano": "jetson-orin-nano-8gb",
    "Jetson Orin NX": "jetson-orin-nx-16gb",
    "Jetson AGX Orin": "jetson-agx-orin-64gb",
}
_GENERIC = {
    "x86_64": "generic-x86",
    "AMD64": "generic-x86",
    "aarch64": "generic-aarch64",
    "arm64": "generic-aarch64",
}
_USABLE_AT_LEAST = 0.6
"""Of what is fitted, so much at least is the kernel's to give: an Orin Nano gives two thirds, and
a board of the next smaller size a half.
"""


@dataclass(frozen=True)
class Match:
    """profile: an id. is_generic: it stands for any machine of this architecture."""

    profile: str
    is_generic: bool = False


def matching_profile(machine: Machine, memory_bytes: int | None, architecture: str) -> Match | None:
    """The profile of this board with this memory, else that of its architecture; None without one.

    memory_bytes: MemTotal. Power modes are not told apart. Raises DeviceError where the shipped
    profiles are missing.
    """
    for profile in _of_model(machine):
        total = load_profile(profile).total_memory_bytes
        fitted = total.value if total is not None else 0.0
        if memory_bytes is not None and _USABLE_AT_LEAST * fitted <= memory_bytes <= fitted:
            return Match(profile)
    generic = _GENERIC.get(architecture)
    return Match(generic, is_generic=True) if generic else None


def _of_model(machine: Machine) -> tuple[str, ...]:
    if machine.is_jetson:
        board = jetson_board(machine)
        return (_JETSONS[board.name],) if board is not None and board.name in _JETSONS else ()
    model = machine.model.lower()
    return next((profiles for words, profiles in _MODELS if words in model), ())


def board_finding(name: str, match: Match | None) -> Finding:
    """name: of the machine, for people."""
    if match is None:
        advice = "edgetune calibrate measures this machine and writes its profile"
        return Finding("device", "note", f"{name}; no profile is of its kind", advice)
    found = f"{name}; profile {match.profile}"
    if not match.is_generic:
        return Finding("device", "ok", found)
    advice = (
        "no profile is of this very machine: edgetune calibrate measures it, and plans made for "
        "what it writes are truer"
    )
    return Finding("device", "note", found, advice)
