"""`edgetune export`: plan, write the bundle, and verify it against PyTorch."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edgetune.cli.describe import describe_plan, plan_json
from edgetune.cli.output import add_json_option, print_json
from edgetune.cli.request_options import add_request_options, request_from, workstation
from edgetune.nouns.manifest import FORMATS
from edgetune.nouns.precision import Int8Loss


def add_to(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = commands.add_parser("export", help="write a bundle that trains on the device")
    add_request_options(parser)
    parser.add_argument(
        "--format",
        action="append",
        choices=FORMATS,
        help="portable (default): plain ONNX for any onnxruntime; ort-training: artifacts for "
        "onnxruntime.training; repeat to get both, each in its own sub-folder",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="the bundle")
    add_json_option(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    formats = tuple(dict.fromkeys(options.format or ["portable"]))
    exported = workstation().export_model(
        options.model, request_from(options), formats, options.out, options.sample, options.loss
    )
    if options.json:
        report = {"plan": plan_json(exported.plan), "verified": exported.reports}
        int8 = {"int8": exported.int8_loss} if exported.int8_loss else {}
        print_json({**report, **int8, "out": str(options.out)})
        return
    print(describe_plan(exported.plan))
    for name, report in exported.reports.items():
        worst = max(report.loss, report.gradients, report.updates)
        print(
            f"verified     {name}: loss, {len(exported.plan.selection.trainable)} gradients and 3 "
            f"updates agree with PyTorch (largest deviation {worst:.1%} of what is tolerated)"
        )
    if exported.int8_loss:
        print(f"int8         {_describe_int8(exported.int8_loss)}")
    if "ort-training" in formats:
        print(
            "note         the predictions are of the portable step; ort-training runs where "
            "onnxruntime-training 1.19.2 does (x86-64), and takes more memory"
        )
    folders = [options.out / name for name in formats] if len(formats) > 1 else [options.out]
    print(f"written      {' and '.join(map(str, folders))}")


def _describe_int8(int8: Int8Loss) -> str:
    return (
        f"the loss of {int8.samples} calibration samples goes from {int8.fp32_loss:.4g} to "
        f"{int8.int8_loss:.4g} ({int8.rise:+.2%}); the features are off by {int8.feature_error:.1%}"
    )
