"""`edgetune merge`: one inference model with the tuned weights."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edgetune.cli.tuned_session import add_tuned_options, open_tuned
from edgetune.units import format_bytes


def add_to(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = commands.add_parser(
        "merge", help="write one inference model with the tuned weights, for stock onnxruntime"
    )
    parser.add_argument("bundle", type=Path)
    add_tuned_options(parser)
    parser.add_argument("--out", required=True, type=Path, metavar="MODEL.onnx")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    open_tuned(options).write_inference_model(options.out)
    print(f"written      {options.out} ({format_bytes(options.out.stat().st_size)})")
