"""What commands print: for people, or with --json for machines."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from edgetune.nouns.plain import to_plain


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument("--json", action="store_true", help="print JSON for machines")


def print_json(value: Any) -> None:
    """Print a noun, or plain values, as one JSON document."""
    print(json.dumps(to_plain(value), indent=1, sort_keys=True))


def table(rows: Iterable[Sequence[str]]) -> str:
    """Rows in aligned columns; the first row is the heading."""
    lines = [list(row) for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def beside(bundle: Path, suffix: str) -> Path:
    """A file beside the bundle's folder, named after it."""
    whole = bundle.resolve()
    return whole.with_name(whole.name + suffix)
