"""`edgetune doctor`: what this installation, this machine and a bundle lack, and what to do."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgetune.cli.output import add_json_option, print_json
from edgetune.doctor.examine import examine
from edgetune.doctor.finding import Finding
from edgetune.errors import EdgetuneError

_WIDTH = 100


def add_to(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = commands.add_parser(
        "doctor", help="what this installation and this machine lack, and what to do about it"
    )
    parser.add_argument(
        "bundle", type=Path, nargs="?", help="look also whether this one can be trained here"
    )
    add_json_option(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    findings = tuple(examine(options.bundle))
    problems = sum(finding.verdict == "problem" for finding in findings)
    if options.json:
        print_json({"findings": findings, "problems": problems})
    else:
        print(described(findings))
    return EdgetuneError.exit_code if problems else 0


def described(findings: Sequence[Finding]) -> str:
    """One line per finding, what to do below it, and the sum."""
    topics = max(len(finding.topic) for finding in findings)
    lines = []
    for finding in findings:
        margin = f"{finding.verdict:9}{finding.topic:{topics}}  "
        indent = " " * len(margin)
        lines.append(margin + finding.found)
        lines += textwrap.wrap(
            finding.advice,
            _WIDTH,
            initial_indent=indent,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
    problems, notes = (
        sum(finding.verdict == verdict for finding in findings) for verdict in ("problem", "note")
    )
    return "\n".join([*lines, f"problems: {problems}, notes: {notes}"])
