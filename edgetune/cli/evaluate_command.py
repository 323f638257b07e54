"""`edgetune evaluate`: loss and accuracy of a bundle, tuned or not."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edgetune.cli.output import add_json_option, print_json
from edgetune.cli.tuned_session import add_tuned_options, open_tuned
from edgetune.data.dataset import load_data
from edgetune.runtime.evaluation import evaluate


def add_to(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = commands.add_parser("evaluate", help="loss and accuracy on data")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", required=True, help="as for train")
    add_tuned_options(parser)
    add_json_option(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    session = open_tuned(options)
    manifest = session.manifest
    result = evaluate(session, load_data(options.data, manifest.signature, manifest.loss))
    if options.json:
        print_json(result)
        return
    accuracy = "" if result.accuracy is None else f", accuracy {result.accuracy:.2%}"
    print(f"loss {result.loss:.5f}{accuracy} on {result.count} samples")
