"""`edgetune verify`: does this bundle compute here what PyTorch computed?"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edgetune.cli.output import add_json_option, print_json
from edgetune.errors import BundleError, raise_all
from edgetune.runtime.open_session import open_as_exported
from edgetune.runtime.self_test import read_self_test, run_every_self_test


def add_to(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = commands.add_parser(
        "verify", help="check every digest of a bundle and replay its self-test here"
    )
    parser.add_argument("bundle", type=Path)
    add_json_option(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    session = open_as_exported(options.bundle)
    recorded = read_self_test(options.bundle)
    report = run_every_self_test(session, recorded)
    if options.json:
        print_json({"report": report, "files": len(session.manifest.digests)})
    raise_all(BundleError, f"{options.bundle} fails its self-test here", report.problems)
    if not options.json:
        print(
            f"{options.bundle}: {len(session.manifest.digests)} files have their digests; loss, "
            f"gradients and updates agree with {recorded.reference} ({report.loss:.1%}, "
            f"{report.gradients:.1%} and {report.updates:.1%} of what is tolerated)"
        )
