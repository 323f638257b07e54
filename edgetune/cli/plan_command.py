"""`edgetune plan`: what would be trained within a budget, and what it would cost."""

from __future__ import annotations

import argparse
from typing import Any

from edgetune.cli.output import add_json_option, print_json
from edgetune.cli.request_options import (
    add_request_options,
    describe_plan,
    request_from,
    workstation,
)


def add_to(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = commands.add_parser("plan", help="choose what to train within a budget")
    add_request_options(parser)
    add_json_option(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    request = request_from(options)
    plan = workstation().plan(options.model, request, options.sample, options.loss)
    print_json(plan) if options.json else print(describe_plan(plan))
