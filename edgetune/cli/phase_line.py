"""How far a command is, on stderr: a line redrawn on a terminal, elsewhere one line per phase."""

from __future__ import annotations

import sys
from collections.abc import Callable


def silent(phase: str, share: float) -> None:
    """Shows nothing."""


def phase_line() -> Callable[[str, float], None]:
    """A function to be told the phase and which share of it is done; no phase clears the line."""
    last = ""

    def show(phase: str, share: float) -> None:
        nonlocal last
        if sys.stderr.isatty():
            text = f"measuring {phase} {share:4.0%}" if phase else ""
            sys.stderr.write(f"\r{text:40}" + ("" if phase else "\r"))
            sys.stderr.flush()
        elif phase and phase != last:
            print(f"measuring {phase}", file=sys.stderr)
        last = phase

    return show
