"""Every error edgetune raises on purpose, in one tree.

    EdgetuneError                  exit code 1
    ├── UsageError                 2   a command, pattern or option that cannot be understood
    │   └── SelectionError         2   nothing or nothing known is selected
    ├── DataError                  3   data of the wrong shape, type or value
    ├── DeviceError                4   an unknown device, or a profile that is not sound
    │   └── MeterError             4   a power sensor that is missing, unreadable or reads nonsense
    │       └── NoSensorError      4   a machine that has no power sensor of the kind
    ├── BudgetError                5   no plan fits the budget, or what was measured exceeds it
    ├── BundleError                6   a bundle that is missing, damaged, newer or inconsistent
    │   └── CheckpointError        6   the same of a checkpoint
    ├── ExportError                7   a model that cannot be captured, lowered or verified
    ├── RuntimeSetupError          8   the installed packages cannot do what is asked
    ├── TrainingError              9   the loss or a gradient is not a finite number
    └── StorageError              10   a file cannot be written (full disk, no permission)

A message says what was wrong, where, what was expected and what to do. Functions that can find
several problems collect them all and raise once (`raise_all`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class EdgetuneError(Exception):
    """Base of all errors that edgetune raises on purpose."""

    exit_code = 1


class UsageError(EdgetuneError):
    """A command, pattern or option that cannot be understood."""

    exit_code = 2


class SelectionError(UsageError):
    """Nothing is selected, or a name matches nothing."""


class DataError(EdgetuneError):
    """Data of the wrong shape, type or value."""

    exit_code = 3


class DeviceError(EdgetuneError):
    """An unknown device, or a profile that is not sound."""

    exit_code = 4


class MeterError(DeviceError):
    """A power sensor that is missing, cannot be read, or reads nonsense."""


class NoSensorError(MeterError):
    """A machine that has no power sensor of the kind: nothing that could be mended."""


class BudgetError(EdgetuneError):
    """No plan fits the budget, or what was measured exceeds it."""

    exit_code = 5


class BundleError(EdgetuneError):
    """A bundle that is missing, damaged, of a newer schema, or inconsistent."""

    exit_code = 6


class CheckpointError(BundleError):
    """A checkpoint that is missing, damaged, or made from another bundle."""


class ExportError(EdgetuneError):
    """A model that cannot be captured, lowered or verified."""

    exit_code = 7


class RuntimeSetupError(EdgetuneError):
    """The installed packages cannot do what is asked."""

    exit_code = 8


class TrainingError(EdgetuneError):
    """The loss or a gradient stopped being a finite number."""

    exit_code = 9


class StorageError(EdgetuneError):
    """A file cannot be written."""

    exit_code = 10


def raise_all(kind: type[EdgetuneError], headline: str, problems: Sequence[str]) -> None:
    """Raise one `kind` that lists all `problems`; return when there are none."""
    if not problems:
        return
    if len(problems) == 1:
        raise kind(f"{headline}: {problems[0]}")
    lines = "\n".join(f"  - {problem}" for problem in problems)
    raise kind(f"{headline}: {len(problems)} problems\n{lines}")


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """A sentence naming the known names closest to `name`, empty when none is close."""
    close = difflib.get_close_matches(name, list(known), n=count, cutoff=0.4)
    return f"; the nearest names are {', '.join(close)}" if close else ""
