"""The options that `plan` and `export` share: a model, a device, a budget, what is trained how."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

from edgetune.cli.budget_options import (
    add_budget_options,
    add_search_options,
    budget_from,
    time_limit_from,
)
from edgetune.cli.contradictions import check_request
from edgetune.errors import RuntimeSetupError
from edgetune.files.device_profiles import load_profile
from edgetune.nouns.budget import Budget
from edgetune.nouns.criterion import CRITERIA
from edgetune.nouns.optimizer import KINDS, Optimizer
from edgetune.nouns.plan_request import PlanRequest
from edgetune.nouns.precision import PRECISIONS, Precision


def add_request_options(parser: argparse.ArgumentParser) -> None:
    """Add MODEL, the device, the budgets, and what is trained how."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="path/to/file.py:factory or package.module:factory, where factory() returns "
        "(model, (inputs, targets), loss); or an .onnx file",
    )
    parser.add_argument("--device", required=True, help="a device id, or your own profile, a .toml")
    add_budget_options(parser, "what is not given is unbounded")
    _add_selection_options(parser)
    _add_importance_options(parser)
    add_search_options(parser)
    _add_training_options(parser)
    onnx_input = parser.add_argument_group("for an .onnx file")
    onnx_input.add_argument("--sample", metavar="FILE.npz", help="inputs by name, and targets")
    onnx_input.add_argument("--loss", default="cross-entropy", help="cross-entropy, mse, l1 or bce")


def _add_selection_options(parser: argparse.ArgumentParser) -> None:
    selection = parser.add_argument_group(
        "what is trained (by default the best within the budget, proven)"
    )
    selection.add_argument(
        "--train",
        action="append",
        default=[],
        metavar="PATTERN",
        help="the parameters matching this shell-style pattern, such as 'head.*', or shares of "
        "them, such as 'conv.weight:in/4' (a quarter of its input channels; also out/N, and rows/N "
        "of an embedding; N is 2, 4 or 8); repeat for more",
    )
    selection.add_argument(
        "--top-k", type=int, metavar="N", help="the N most important tensors, such as 10"
    )
    selection.add_argument(
        "--threshold",
        type=float,
        metavar="SCORE",
        help="tensors whose importance is at least this, such as 1e-3",
    )
    selection.add_argument(
        "--no-shares", action="store_true", help="whole tensors only, no shares of their channels"
    )
    selection.add_argument(
        "--no-recomputation",
        action="store_true",
        help="keep every activation that the backward reads; by default cheap ones may be made "
        "again there, for less memory",
    )
    selection.add_argument(
        "--precision",
        choices=(*PRECISIONS, "auto"),
        default="fp32",
        help="of the frozen part below what is trained (default fp32): int8 takes a quarter of its "
        "memory and less time; auto lets the plan choose",
    )
    selection.add_argument(
        "--int8-tolerance",
        type=float,
        default=0.02,
        metavar="SHARE",
        help="refuse int8 when the loss of the calibration samples rises by more (default 0.02)",
    )


def _add_importance_options(parser: argparse.ArgumentParser) -> None:
    importance = parser.add_argument_group("importance")
    importance.add_argument(
        "--criterion",
        choices=(*CRITERIA, "user"),
        help="how it is measured (default fisher); contribution trains every tensor alone for a "
        "few steps and is slow; user reads --scores",
    )
    importance.add_argument(
        "--scores",
        metavar="FILE.json",
        help='your own: {"head.weight": 2.5, ...} by parameter name; others are not trained',
    )
    importance.add_argument(
        "--calibration-samples",
        type=int,
        default=64,
        metavar="N",
        help="samples of the factory's batch that it is measured on (default 64)",
    )
    importance.add_argument(
        "--seed", type=int, default=0, help="of the draw of these samples (default 0)"
    )


def _add_training_options(parser: argparse.ArgumentParser) -> None:
    training = parser.add_argument_group("training")
    training.add_argument("--batch", type=int, default=8, help="samples per update (default 8)")
    training.add_argument(
        "--micro-batch",
        type=int,
        help="samples at once; divides the batch (by default edgetune chooses)",
    )
    training.add_argument("--optimizer", choices=KINDS, default="adamw", help="(default adamw)")
    training.add_argument("--weight-decay", type=float, default=0.0, help="(default 0)")
    training.add_argument("--momentum", type=float, default=0.9, help="of SGD (default 0.9)")


def request_from(options: argparse.Namespace) -> PlanRequest:
    """The request that the options make. Raises UsageError, DeviceError."""
    check_request(options)
    budget = budget_from(options, Budget())
    optimizer = Optimizer(
        options.optimizer, weight_decay=options.weight_decay, momentum=options.momentum
    )
    return PlanRequest(
        profile=load_profile(options.device),
        budget=budget,
        optimizer=optimizer,
        patterns=tuple(options.train),
        batch=options.batch,
        micro_batch=options.micro_batch,
        shares=not options.no_shares,
        recomputation=not options.no_recomputation,
        precisions=_precisions(options.precision),
        int8_tolerance=options.int8_tolerance,
        criterion="user" if options.scores else options.criterion or "fisher",
        scores_file=options.scores,
        calibration_samples=options.calibration_samples,
        seed=options.seed,
        top_k=options.top_k,
        threshold=options.threshold,
        gap=options.gap or 0.0,
        time_limit_seconds=time_limit_from(options),
    )


def _precisions(option: str) -> tuple[Precision, ...]:
    """Those to choose from, the faster first."""
    return tuple(p for p in reversed(PRECISIONS) if option in (p, "auto"))


def workstation() -> Any:
    """The module edgetune_exporters.commands.

    Found by name because the device side must not know the workstation side; this is the one place
    where the command line crosses over. Raises RuntimeSetupError when it is not installed.
    """
    try:
        return importlib.import_module("edgetune_exporters.commands")
    except ModuleNotFoundError as error:
        raise RuntimeSetupError(
            f"planning and exporting run on a workstation and need "
            f"{(error.name or '').partition('.')[0]}: "
            "pip install 'edgetune[export]'"
        ) from error
