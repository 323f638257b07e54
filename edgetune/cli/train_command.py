"""`edgetune train`: fine-tune a bundle on data, here."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edgetune.cli.output import add_json_option, print_json
from edgetune.data.dataset import load_data
from edgetune.errors import UsageError
from edgetune.files.atomic import check_writable
from edgetune.files.delta import fingerprints, write_changes
from edgetune.runtime.feature_cache import FeatureCache
from edgetune.runtime.learning_rate import SCHEDULES
from edgetune.runtime.open_session import open_session
from edgetune.runtime.portable_session import PortableSession
from edgetune.runtime.session import TrainingSession
from edgetune.runtime.trainer import Trainer, TrainerConfig, TrainingResult
from edgetune.units import format_bytes, format_seconds, parse_bytes


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
    add_json_option(parser)
    parser.set_defaults(run=_run)


def beside(bundle: Path, suffix: str) -> Path:
    """A file beside the bundle's folder, named after it."""
    whole = bundle.resolve()
    return whole.with_name(whole.name + suffix)


def _run(options: argparse.Namespace) -> None:
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
    result = Trainer(session, config).fit(train, validation, resume=options.resume)
    write_changes(out, base, session.values(copy=False), session.digest, shares)
    if options.json:
        written = {"delta": str(out), "checkpoint": str(checkpoint)}
        kept = {"features": cache.kept()} if cache else {}
        print_json({"result": result, "data_bytes": data_bytes, **written, **kept})
    else:
        print(_describe(result, data_bytes, out, checkpoint))
        if cache:
            kept_samples, kept_bytes = cache.kept().samples, format_bytes(cache.kept().bytes)
            print(f"features     of {kept_samples:,} samples are kept ({kept_bytes})")


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


def _describe(result: TrainingResult, data_bytes: int, out: Path, checkpoint: Path) -> str:
    last = result.history[-1]
    loss = f"loss {result.train_loss:.4f}"
    if last.validation_loss is not None:
        loss += f", validation loss {last.validation_loss:.4f}"
    if last.validation_accuracy is not None:
        loss += f", validation accuracy {last.validation_accuracy:.1%}"
    stopped = ", stopped early" if result.stopped_early else ""
    if result.stopped_early and result.best_epoch is not None:
        stopped += f" (the delta holds epoch {result.best_epoch + 1}, the best)"
    peak = "unknown" if result.peak_bytes is None else format_bytes(result.peak_bytes)
    step = result.median_step_seconds
    return "\n".join(
        [
            f"trained      {result.epochs} epochs, {result.steps} steps{stopped}: {loss}",
            f"step         {'-' if step is None else format_seconds(step)} median; peak memory "
            f"of the process {peak}, {format_bytes(data_bytes)} of it data",
            f"delta        {out} ({format_bytes(out.stat().st_size)})",
            f"checkpoint   {checkpoint}",
        ]
    )
