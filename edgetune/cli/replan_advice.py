"""`train --replan`: when a run shall end for a smaller plan, and how it then goes on."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from edgetune.errors import UsageError
from edgetune.files.checkpoint import read_checkpoint
from edgetune.guards.forecast import Forecast
from edgetune.guards.limits import Limits
from edgetune.nouns.manifest import Manifest
from edgetune.runtime.batches import batch_count
from edgetune.runtime.training_result import TrainingResult


def forecast_from(
    options: argparse.Namespace,
    limits: Limits,
    manifest: Manifest,
    samples: int,
    checkpoint: Path,
) -> Forecast | None:
    """What is ahead of the run, with --replan. Raises UsageError where there is nothing to hold."""
    if not options.replan:
        return None
    planned = manifest.plan.cost.joules
    if limits.energy_joules is None:
        raise UsageError("--replan holds the energy of the run: give --energy too")
    if manifest.format != "portable":
        raise UsageError(f"--replan needs a bundle of the format portable, not {manifest.format}")
    if not planned:
        raise UsageError(
            "--replan compares what is measured with the plan, and the profile of "
            f"{manifest.plan.device} predicts no energy: export with a calibrated profile"
        )
    batches = batch_count(samples, options.batch or manifest.plan.batch)
    done = read_checkpoint(checkpoint).step if options.resume else 0
    return Forecast(options.epochs * batches - done, batches, planned)


def replan_advice(
    options: argparse.Namespace,
    ahead: Forecast | None,
    result: TrainingResult,
    samples: int,
    manifest: Manifest,
    checkpoint: Path,
) -> list[str]:
    """The commands with which the run goes on within what is left; none where nothing is."""
    stop = result.stopped_by
    if ahead is None or stop is None or stop.budget != "energy" or stop.measured is None:
        return []
    batches = batch_count(samples, options.batch or manifest.plan.batch)
    left = options.epochs * batches - result.steps
    done = ahead.steps - left
    joules = stop.allowed - stop.measured
    if done < 1 or joules < stop.measured / done:  # less than another step
        return []
    budget, smaller = f"{joules:.4g}J", f"{options.bundle}.smaller"
    again = {
        "--measured-energy-per-step": f"{stop.measured / done:.4g}J",
        "--energy-per-run": budget,
        "--steps": left,
        "--checkpoint": checkpoint,
        "--out": smaller,
    }
    given = " ".join(f"{option} {shlex.quote(str(value))}" for option, value in again.items())
    return [
        f"edgetune replan {shlex.quote(str(options.bundle))} {given}",
        f"edgetune train {shlex.quote(smaller)} --resume --energy {budget}  "
        "# and the other options as before",
    ]
