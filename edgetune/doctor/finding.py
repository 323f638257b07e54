"""One thing that was looked at, and how it stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """verdict: "problem" keeps training, or this bundle, from working; "note" is worth knowing.

    topic: what was looked at. found: what is so here. advice: what to do, empty where nothing is.
    """

    topic: str
    verdict: Verdict
    found: str
    advice: str = ""
