"""`edgetune train`: fine-tune a bundle on data, here."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgetune.cli.guard_options import (
    add_guard_options,
    check_guard_options,
    limits_from,
    meter_from,
)
from edgetune.cli.output import add_json_option, beside, print_json
from edgetune.cli.replan_advice import forecast_from, replan_advice
from edgetune.data.dataset import load_data
from edgetune.errors import UsageError
from edgetune.files.atomic import check_writable
from edgetune.files.delta import fingerprints, write_changes
from edgetune.guards.guard import STOP_EXIT_CODES
from edgetune.guards.open_watch import open_watch
from edgetune.nouns.energy import EnergyReading
from edgetune.runtime.feature_cache import FeatureCache
from edgetune.runtime.learning_rate import SCHEDULES
from edgetune.runtime.open_session import open_session
from edgetune.runtime.portable_session import PortableSession
from edgetune.runtime.session import TrainingSession
from edgetune.runtime.trainer import Trainer, TrainerConfig, TrainingResult
from edgetune.units import (
    format_bytes,
    format_joules,
    format_seconds,
    format_watts,
    parse_bytes,
)


def add_to(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = commands.add_parser("train", help="train a bundle on data, on this device")
    parser.add_argument("bundle", type=Path)
    parser.add_argument(
        "--data",
        required=True,
        help="an .npz, a folder of images by class, a .csv, or file.py:factory",
    )
    parser.add_argument("--validation", help="data to evaluate on after each epoch")
    parser.add_argument("--epochs", type=int, default=1, help="passes over the data (default 1)")
    parser.add_argument("--learning-rate", "--lr", type=float, default=1e-3, help="(default 1e-3)")
    parser.add_argument(
        "--schedule",
        choices=SCHEDULES,
        default="constant",
        help="of the learning rate (default constant)",
    )
    parser.add_argument(
        "--warmup-steps", type=int, default=0, help="updates of linear warm-up (default 0)"
    )
    parser.add_argument("--batch", type=int, help="samples per update (default: the plan's)")
    parser.add_argument(
        "--clip-norm",
        type=float,
        help="largest global norm of the gradients (default: no clipping)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the order of the samples (default 0)"
    )
    parser.add_argument(
        "--patience",
        type=int,
        help="stop after so many epochs without a better validation result, and keep the best",
    )
    parser.add_argument(
        "--monitor",
        choices=("loss", "accuracy"),
        default="loss",
        help="what --patience watches (default loss)",
    )
    parser.add_argument(
        "--out", type=Path, help="the delta: what changed (default BUNDLE.delta.safetensors)"
    )
    parser.add_argument("--checkpoint", type=Path, help="(default BUNDLE.checkpoint)")
    parser.add_argument(
        "--checkpoint-every", type=int, metavar="STEPS", help="and after every epoch"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue from the checkpoint, with the same other options",
    )
    parser.add_argument(
        "--feature-cache",
        metavar="BYTES",
        default="1GiB",
        help="what the frozen part makes of each sample is kept in BUNDLE.features, up to so much "
        "(default 1GiB; off keeps nothing): from the second epoch on only the trained part is run",
    )
    parser.add_argument("--log", type=Path, help="append JSON lines to this file")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_guard_options(parser)
    add_json_option(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    check_guard_options(options)
    checkpoint = options.checkpoint or beside(options.bundle, ".checkpoint")
    out = options.out or beside(options.bundle, ".delta.safetensors")
    if checkpoint.exists() and not options.resume:
        raise UsageError(
            f"there is a checkpoint at {checkpoint}: continue it with --resume, or remove it to "
            "start again"
        )
    check_writable(out)
    check_writable(checkpoint)
    config = TrainerConfig(
        epochs=options.epochs,
        batch=options.batch,
        seed=options.seed,
        learning_rate=options.learning_rate,
        schedule=options.schedule,
        warmup_steps=options.warmup_steps,
        clip_norm=options.clip_norm,
        patience=options.patience,
        monitor=options.monitor,
        checkpoint_path=checkpoint,
        checkpoint_every_steps=options.checkpoint_every,
        log_path=options.log,
        progress=not (options.quiet or options.json),
    )
    session = open_session(options.bundle)
    manifest = session.manifest
    cache = _feature_cache(session, options)
    train = load_data(options.data, manifest.signature, manifest.loss)
    validation = (
        load_data(options.validation, manifest.signature, manifest.loss)
        if options.validation
        else None
    )
    data_bytes = train.bytes + (validation.bytes if validation else 0)
    # Of the values before the training only digests are kept, so that none is held twice.
    base, shares = fingerprints(session.values(copy=False)), manifest.plan.selection.shares
    limits = limits_from(options, manifest, data_bytes)
    ahead = forecast_from(options, limits, manifest, len(train), checkpoint)
    may_end_early = limits.energy_joules is not None or limits.seconds is not None
    config = replace(config, keep_best=may_end_early)
    with (
        meter_from(options, limits, manifest) as meter,
        open_watch(limits, lambda: session.manifest, data_bytes, meter, ahead=ahead) as watch,
    ):
        result = Trainer(session, config, watch).fit(train, validation, resume=options.resume)
        energy = watch.energy() if watch.energy else None
    stop = result.stopped_by
    if result.steps:
        write_changes(out, base, session.values(copy=False), session.digest, shares)
    written = {"delta": str(out) if result.steps else None, "checkpoint": str(checkpoint)}
    kept = cache.kept() if cache else None
    advice = replan_advice(options, ahead, result, len(train), manifest, checkpoint)
    if options.json:
        told = {"result": result, "data_bytes": data_bytes, "limits": limits, "energy": energy}
        print_json({**told, **written, "features": kept, "replan": advice})
    else:
        print(_describe(result, data_bytes, energy))
        if result.micro_batch != manifest.plan.micro_batch:
            print(f"memory       ran short: from then on {result.micro_batch} samples at once")
        size = f"{out} ({format_bytes(out.stat().st_size)})" if result.steps else None
        print(f"delta        {size or 'not written; nothing changed yet'}")
        print(f"checkpoint   {checkpoint}")
        if kept:
            print(f"features     of {kept.samples:,} samples are kept ({format_bytes(kept.bytes)})")
        for label, command in zip(("to go on", ""), advice, strict=False):
            print(f"{label:12} {command}")
    return 0 if stop is None else STOP_EXIT_CODES[stop.budget]


def _bound(option: str) -> int:
    return 0 if option == "off" else parse_bytes(option)


def _feature_cache(session: TrainingSession, options: argparse.Namespace) -> FeatureCache | None:
    """The cache that `session` now reads: none where there is no prefix, or nothing comes again."""
    folder, bound = beside(options.bundle, ".features"), _bound(options.feature_cache)
    again = options.epochs > 1 or folder.is_dir()
    if not (isinstance(session, PortableSession) and session.manifest.features and bound and again):
        return None
    cache = session.feature_cache(folder, bound)
    session.keep_features(cache)
    return cache


def _describe(result: TrainingResult, data_bytes: int, energy: EnergyReading | None) -> str:
    lines = [f"trained      {result.epochs} epochs, {result.steps} steps{_losses(result)}"]
    stop = result.stopped_by
    if stop is not None:
        lines.append(f"stopped      by the budget of {stop.budget}: {stop.reason}")
    if result.holds_best and result.best_epoch is not None:
        early = "stopped early: " if result.stopped_early else ""
        lines.append(f"best         {early}epoch {result.best_epoch + 1}; the delta holds it")
    peak = "unknown" if result.peak_bytes is None else format_bytes(result.peak_bytes)
    step = result.median_step_seconds
    lines.append(
        f"step         {'-' if step is None else format_seconds(step)} median; peak memory "
        f"of the process {peak}, {format_bytes(data_bytes)} of it data"
    )
    if energy is not None:
        lines.append(
            f"energy       {format_joules(energy.joules)} +- "
            f"{format_joules(energy.error_bound_joules)}, {format_watts(energy.mean_watts)} on the "
            f"mean ({energy.kind}, {energy.scope}: {energy.source})"
        )
    pauses = [f"{format_seconds(s)} for {name}" for name, s in result.paused_seconds.items()]
    return "\n".join([*lines, *([f"paused       {', '.join(pauses)}"] if pauses else [])])


def _losses(result: TrainingResult) -> str:
    if result.train_loss is None:
        return ""
    last = result.history[-1]
    loss = f": loss {result.train_loss:.4f}"
    if last.validation_loss is not None:
        loss += f", validation loss {last.validation_loss:.4f}"
    if last.validation_accuracy is not None:
        loss += f", validation accuracy {last.validation_accuracy:.1%}"
    return loss
