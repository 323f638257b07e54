"""`edgetune replan`: on the device, what a bundle would better train, within its own cost table.

Where that is part of what the bundle trains, `--out` makes a bundle of it, there as well.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgetune.cli.budget_options import (
    add_budget_options,
    add_search_options,
    budget_from,
    budget_problems,
    search_problems,
    time_limit_from,
)
from edgetune.cli.describe import candidate_names, describe_plan, few, plan_json
from edgetune.cli.output import add_json_option, beside, print_json
from edgetune.errors import CheckpointError, UsageError, raise_all
from edgetune.files.atomic import check_writable
from edgetune.files.bundle import read_manifest
from edgetune.files.checkpoint import read_checkpoint, write_checkpoint
from edgetune.files.cost_table import read_cost_table
from edgetune.files.device_profiles import load_profile
from edgetune.files.scores_file import read_scores
from edgetune.nouns.manifest import Manifest
from edgetune.nouns.plan import UpdatePlan
from edgetune.nouns.step_graph import StepGraph
from edgetune.units import parse_joules

_CHECKPOINT = ".checkpoint"  # behind the bundle's name, where `train` looks for it


def add_to(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = commands.add_parser(
        "replan", help="choose again what a bundle should train, with new scores or budgets"
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument(
        "--scores",
        type=Path,
        metavar="FILE.json",
        help='fresh importance: {"head.weight": 2.5, ...} by the name of a parameter or of a share '
        "such as conv.weight:in/4 (default: the plan's scores, of what the bundle trains)",
    )
    parser.add_argument("--device", help="a device id, or your own .toml (default: the plan's)")
    add_budget_options(parser, "what is not given is as in the bundle's plan")
    add_search_options(parser)
    parser.add_argument(
        "--measured-energy-per-step",
        metavar="JOULES",
        help="what a step of the bundle took here, by `train` or `profile`, such as 0.8J: the "
        "predictions are taken to be off by the same factor for all that could be trained",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="write the bundle of the new plan to this new folder: for plans that drop tensors, "
        "and shares that the bundle does not train are then left aside",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        help="with --out: start from the values of this checkpoint of the bundle, and write "
        "OUT.checkpoint, which `train OUT --resume` continues",
    )
    add_json_option(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    # Here, because the solver takes memory that the other commands of a device do without.
    from edgetune.planning.choose import Effort  # noqa: PLC0415
    from edgetune.planning.measured_energy import (  # noqa: PLC0415
        as_measured,
        as_predicted,
        energy_factor,
    )
    from edgetune.planning.predict import predicted_cost  # noqa: PLC0415
    from edgetune.planning.replan import (  # noqa: PLC0415
        replan,
        scores_of_candidates,
        scores_of_what_is_there,
        train_patterns,
    )

    problems = [*budget_problems(options), *search_problems(options), *_output_problems(options)]
    raise_all(UsageError, "cannot use these options", problems)
    manifest, _ = read_manifest(options.bundle)
    before = manifest.plan
    budget = budget_from(options, before.budget)
    profile = load_profile(options.device or before.device)
    graph = read_cost_table(options.bundle, manifest)
    given, criterion = _scores(options, before, graph)
    effort = Effort(options.gap or 0.0, time_limit_from(options))
    scores = scores_of_candidates(graph, given)
    if options.out:
        scores = scores_of_what_is_there(graph, before, scores, given)
    factor = 1.0
    if options.measured_energy_per_step:
        measured = parse_joules(options.measured_energy_per_step)
        factor = energy_factor(measured, predicted_cost(graph, before, profile), profile.id)
    within = as_predicted(budget, factor)
    plan = as_measured(
        replan(graph, before, scores, criterion, within, profile, effort), budget, factor
    )
    if not options.scores:  # these are of what the bundle trains alone, not of all there is
        everything = before.certificate.everything
        plan = replace(plan, certificate=replace(plan.certificate, everything=everything))
    names, old = candidate_names(plan), [c.name for c in graph.selected(before.selection)]
    added = [name for name in names if name not in old]
    dropped = [name for name in old if name not in names]
    patterns = train_patterns(names, graph)
    written = _write(options, manifest, plan, graph) if options.out else {}
    if options.json:
        difference = {"added": added, "dropped": dropped, "train": patterns}
        print_json({**plan_json(plan), **difference, "written": written})
        return
    print(describe_plan(plan))
    print(_difference(added, dropped))
    for what, path in written.items():
        print(f"{what:12} {path}")
    if (added or dropped) and not written:
        print(_export(plan, patterns, options.scores))


def _output_problems(options: argparse.Namespace) -> Iterator[str]:
    if options.checkpoint and not options.out:
        yield "--checkpoint goes on in the bundle that --out writes: give that too"
    if options.out and options.out.exists():
        yield f"--out {options.out} exists: choose a new folder"
    if options.checkpoint and options.out and beside(options.out, _CHECKPOINT).exists():
        yield f"there is a checkpoint at {beside(options.out, _CHECKPOINT)}: remove it first"


def _write(
    options: argparse.Namespace, manifest: Manifest, plan: UpdatePlan, graph: StepGraph
) -> dict[str, str]:
    """Write the bundle of `plan`, and the checkpoint that goes on in it; where, by what it is."""
    # Here, because without --out nothing of a runtime is needed.
    from edgetune.runtime.trimmed_bundle import write_trimmed_bundle  # noqa: PLC0415
    from edgetune.runtime.trimmed_checkpoint import trimmed_checkpoint  # noqa: PLC0415

    if not options.checkpoint:
        write_trimmed_bundle(options.bundle, plan, graph, options.out)
        return {"bundle": str(options.out)}
    saved = read_checkpoint(options.checkpoint)
    if saved.bundle_digest != read_manifest(options.bundle)[1]:
        raise CheckpointError(
            f"{options.checkpoint} was made from another bundle than {options.bundle}"
        )
    target = beside(options.out, _CHECKPOINT)
    check_writable(target)
    values = {name: saved.state[name] for name in manifest.plan.selection.trainable}
    write_trimmed_bundle(options.bundle, plan, graph, options.out, values)
    digest = read_manifest(options.out)[1]
    write_checkpoint(target, trimmed_checkpoint(saved, manifest.plan, plan, digest))
    return {"bundle": str(options.out), "checkpoint": str(target)}


def _scores(
    options: argparse.Namespace, plan: UpdatePlan, graph: StepGraph
) -> tuple[dict[str, float], str]:
    """Scores by name, and what they measure. Raises UsageError where there are none."""
    if options.scores:
        known = {*graph.parameters, *(candidate.name for candidate in graph.candidates)}
        return read_scores(options.scores, known), "user"
    if not plan.scores:
        raise UsageError(
            f"the plan of {options.bundle} was made by {plan.certificate.method} and has no "
            "scores: give --scores FILE.json"
        )
    return dict(plan.scores), plan.criterion


def _difference(added: list[str], dropped: list[str]) -> str:
    if not added and not dropped:
        return "difference   none: by these scores the bundle trains the best already"
    lines = [f"{len(names)}: {few(names)}" if names else "nothing" for names in (added, dropped)]
    return f"added        {lines[0]}\ndropped      {lines[1]}"


def _export(plan: UpdatePlan, patterns: list[str], scores: Path | None) -> str:
    optimizer, memory = plan.optimizer, plan.budget.memory_bytes
    of_shares = any(":" in pattern for pattern in patterns)  # which slices depends on the scores
    options = {
        "--device": plan.device,
        "--memory": _bytes(memory) if memory is not None else None,
        "--batch": plan.batch,
        "--micro-batch": plan.micro_batch,
        "--optimizer": optimizer.kind,
        "--weight-decay": optimizer.weight_decay or None,
        "--momentum": optimizer.momentum if "momentum_buffer" in optimizer.slots else None,
        "--scores": scores if of_shares else None,
        "--criterion": plan.criterion if of_shares and scores is None else None,
    }
    given = [f"{k} {shlex.quote(str(v))}" for k, v in options.items() if v is not None]
    train = [f"--train {shlex.quote(pattern)}" for pattern in patterns]
    return (
        "to export    the bundle's graphs are fixed; on the workstation: edgetune export MODEL "
        f"--out BUNDLE {' '.join([*given, *train])}"
    )


def _bytes(count: int) -> str:
    return f"{count // 2**20}MiB" if count % 2**20 == 0 else f"{count}B"
