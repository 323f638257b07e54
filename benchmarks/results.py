"""Where benchmarks leave their numbers: build/bench/NAME.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

BENCH = Path(__file__).resolve().parent.parent / "build" / "bench"


def write_results(name: str, results: Any) -> None:
    """Write `results` as JSON to build/bench/NAME.json."""
    BENCH.mkdir(parents=True, exist_ok=True)
    (BENCH / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")
