"""`edgetune delta`: what changed, made from a checkpoint, shown, or applied."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edgetune.cli.output import add_json_option, print_json, table
from edgetune.cli.tuned_session import open_tuned
from edgetune.files.delta import apply_delta_to_model, read_delta, write_delta
from edgetune.runtime.open_session import open_session
from edgetune.runtime.tuned_bundle import write_tuned_bundle
from edgetune.units import format_bytes


def add_to(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = commands.add_parser("delta", help="make, show or apply what training changed")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    make = actions.add_parser("make", help="from a checkpoint")
    make.add_argument("bundle", type=Path)
    make.add_argument("--checkpoint", required=True, type=Path)
    make.add_argument("--out", required=True, type=Path)
    make.set_defaults(run=_make, delta=None)
    show = actions.add_parser("show", help="names, shapes and sizes")
    show.add_argument("delta", type=Path)
    add_json_option(show)
    show.set_defaults(run=_show)
    apply = actions.add_parser("apply", help="to a bundle, or to an .onnx inference model")
    apply.add_argument("delta", type=Path)
    apply.add_argument("--to", required=True, type=Path, metavar="BUNDLE|MODEL.onnx")
    apply.add_argument("--out", required=True, type=Path)
    apply.set_defaults(run=_apply)


def _make(options: argparse.Namespace) -> None:
    base = open_session(options.bundle)
    tuned = open_tuned(options)
    shares = base.manifest.plan.selection.shares
    write_delta(options.out, base.values(), tuned.values(), base.digest, shares)
    print(f"written      {options.out} ({format_bytes(options.out.stat().st_size)})")


def _show(options: argparse.Namespace) -> None:
    delta = read_delta(options.delta)
    rows = [
        {"name": name, "shape": list(array.shape), "bytes": array.nbytes}
        for name, array in delta.tensors.items()
    ]
    if options.json:
        print_json({"bundle": delta.bundle_digest, "tensors": rows})
        return
    lines = [(str(r["name"]), str(r["shape"]), str(r["bytes"])) for r in rows]
    print(table([("tensor", "shape", "bytes"), *lines]))


def _apply(options: argparse.Namespace) -> None:
    if options.to.is_dir():
        write_tuned_bundle(options.to, options.delta, options.out)
    else:
        apply_delta_to_model(read_delta(options.delta), options.to, options.out)
    print(f"written      {options.out}")
