"""The options that `plan` and `export` share: a model, a device, a budget, an optimizer."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

from edgetune.errors import RuntimeSetupError
from edgetune.files.device_profiles import load_profile
from edgetune.nouns.budget import Budget
from edgetune.nouns.optimizer import KINDS, Optimizer
from edgetune.nouns.plan import UpdatePlan
from edgetune.nouns.plan_request import PlanRequest
from edgetune.units import (
    format_bytes,
    format_joules,
    format_seconds,
    parse_bytes,
    parse_joules,
    parse_seconds,
)


def add_request_options(parser: argparse.ArgumentParser) -> None:
    """Add MODEL, the device, the budgets, and what is trained how."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="path/to/file.py:factory or package.module:factory, where factory() returns "
        "(model, (inputs, targets), loss); or an .onnx file",
    )
    parser.add_argument("--device", required=True, help="a device id, or a profile file")
    budget = parser.add_argument_group("budget (what is not given is unbounded)")
    budget.add_argument("--memory", help="peak of the whole process, such as 96MiB")
    budget.add_argument("--energy-per-step", help="energy of one update, such as 0.5J")
    budget.add_argument("--step-seconds", help="duration of one update, such as 250ms")
    training = parser.add_argument_group("training")
    training.add_argument(
        "--train",
        action="append",
        default=[],
        metavar="PATTERN",
        help="train the parameters matching this shell-style pattern, such as 'head.*'; repeat for "
        "more; without it edgetune chooses within the budget",
    )
    training.add_argument("--batch", type=int, default=8, help="samples per update (default 8)")
    training.add_argument("--micro-batch", type=int, help="samples at once; divides the batch")
    training.add_argument("--optimizer", choices=KINDS, default="adamw", help="(default adamw)")
    training.add_argument("--weight-decay", type=float, default=0.0, help="(default 0)")
    training.add_argument("--momentum", type=float, default=0.9, help="of SGD (default 0.9)")
    training.add_argument(
        "--calibration-samples",
        type=int,
        default=64,
        help="samples of the factory's batch that importance is measured on (default 64)",
    )
    onnx_input = parser.add_argument_group("for an .onnx file")
    onnx_input.add_argument("--sample", metavar="FILE.npz", help="inputs by name, and targets")
    onnx_input.add_argument("--loss", default="cross-entropy", help="cross-entropy, mse, l1 or bce")


def request_from(options: argparse.Namespace) -> PlanRequest:
    """The request that the options make. Raises UsageError, DeviceError."""
    budget = Budget(
        memory_bytes=parse_bytes(options.memory) if options.memory else None,
        energy_joules=parse_joules(options.energy_per_step) if options.energy_per_step else None,
        step_seconds=parse_seconds(options.step_seconds) if options.step_seconds else None,
    )
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
        calibration_samples=options.calibration_samples,
    )


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


def describe_plan(plan: UpdatePlan) -> str:
    """A plan in a few lines."""
    cost = plan.cost
    # A bound: no profile knows onnxruntime's overhead per operator before it is calibrated.
    seconds = "unknown" if cost.seconds is None else f"at least {format_seconds(cost.seconds)}"
    joules = "unknown" if cost.joules is None else format_joules(cost.joules)
    names = plan.selection.trainable
    shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    return "\n".join(
        [
            f"device       {plan.device}",
            f"trainable    {plan.trainable_count:,} of {plan.parameter_count:,} "
            f"({plan.trainable_share:.1%}) in {len(names)} tensors: {shown}",
            f"batch        {plan.batch} in micro-batches of {plan.micro_batch}, "
            f"{plan.optimizer.kind}",
            f"peak memory  {format_bytes(cost.peak_bytes)} predicted: process "
            f"{format_bytes(cost.base_bytes)}, weights {format_bytes(cost.weight_bytes)}, "
            f"optimizer {format_bytes(cost.state_bytes)}, activations "
            f"{format_bytes(cost.activation_bytes)}",
            f"step         {seconds}, {joules} predicted",
            f"chosen by    {plan.certificate.method}",
        ]
    )
