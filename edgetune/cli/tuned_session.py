"""Opens a bundle with what training made of it: from a delta or from a checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgetune.errors import CheckpointError
from edgetune.files.checkpoint import read_checkpoint
from edgetune.files.delta import apply_delta, read_delta
from edgetune.runtime.open_session import open_session
from edgetune.runtime.session import TrainingSession


def add_tuned_options(parser: argparse.ArgumentParser) -> None:
    """Add --delta and --checkpoint, of which one may be given."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--delta", type=Path, help="with the values of this delta")
    source.add_argument("--checkpoint", type=Path, help="with the values of this checkpoint")


def open_tuned(options: argparse.Namespace) -> TrainingSession:
    """The session of `options.bundle` with the values that the options name."""
    session = open_session(options.bundle)
    if options.delta:
        shares = session.manifest.plan.selection.shares
        delta = read_delta(options.delta)
        session.load_values(apply_delta(delta, session.values(), shares))
    if options.checkpoint:
        checkpoint = read_checkpoint(options.checkpoint)
        if checkpoint.bundle_digest != session.digest:
            raise CheckpointError(
                f"{options.checkpoint} was made from another bundle than {options.bundle}"
            )
        session.load_state(checkpoint.state)
    return session
