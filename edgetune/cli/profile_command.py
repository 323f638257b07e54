"""`edgetune profile`: what the steps of bundles take here, beside predictions and budgets."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edgetune.calibration.bundle_steps import MeasuredStep, Opened, batches_of, measure_steps
from edgetune.calibration.operator_times import by_module, by_operator
from edgetune.calibration.verdicts import verdicts
from edgetune.cli.budget_options import add_budget_options, budget_from, budget_problems
from edgetune.cli.output import add_json_option, print_json
from edgetune.cli.phase_line import phase_line, silent
from edgetune.cli.profile_tables import Report, compared, described, report_json
from edgetune.data.dataset import load_data
from edgetune.errors import BudgetError, UsageError, raise_all
from edgetune.files.bundle import read_manifest
from edgetune.files.cost_table import read_cost_table
from edgetune.files.device_profiles import load_profile
from edgetune.meters import find_meter
from edgetune.nouns.bundle_names import COSTS
from edgetune.nouns.profile import DeviceProfile
from edgetune.planning.predict import predicted_cost
from edgetune.runtime.open_session import open_session
from edgetune.runtime.self_test import read_self_test

_FEWEST_STEPS = 2


def add_to(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = commands.add_parser(
        "profile", help="what the steps of bundles take here, beside predictions and budgets"
    )
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    parser.add_argument("--repeat", type=int, default=30, help="steps to measure (default 30)")
    parser.add_argument("--data", help="train on these samples (default: the self-test's batch)")
    parser.add_argument(
        "--device",
        metavar="ID",
        help="predict for this device, such as a profile of `edgetune calibrate`, and estimate its "
        "power where there is no meter (default: the plan's predictions)",
    )
    parser.add_argument("--compare", action="store_true", help="all bundles in one table")
    add_budget_options(parser, "what is not given is as in each bundle's plan")
    add_json_option(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    problems = list(budget_problems(options))
    if options.repeat < _FEWEST_STEPS:
        problems.append(f"--repeat is {options.repeat}: expected at least {_FEWEST_STEPS} steps")
    raise_all(UsageError, "cannot use these options", problems)
    profile = load_profile(options.device) if options.device else None
    search = find_meter(profile=profile)
    opened = [_opened(folder, options.data) for folder in options.bundles]
    progress = silent if options.json else phase_line()
    measured = measure_steps(opened, options.repeat, search.meter, progress)
    progress("", 1.0)
    reports = [
        _report(folder, profile, found, options)
        for folder, found in zip(options.bundles, measured, strict=True)
    ]
    if options.json:
        print_json({"meter": search.describe(), "bundles": list(map(report_json, reports))})
    elif options.compare:
        print(compared(reports))
    else:
        print("\n\n".join(described(report, search.describe()) for report in reports))
    over = [
        f"{report.bundle}: {verdict.budget} {verdict.text}"
        for report in reports
        for verdict in report.verdicts
        if verdict.exceeded
    ]
    raise_all(BudgetError, "measured here, over budget", over)


def _opened(folder: Path, data: str | None) -> Opened:
    session = open_session(folder)
    plan = session.manifest.plan
    if data is None:
        batch = read_self_test(folder).batch
        batches = [[batch] * (plan.batch // plan.micro_batch)]
    else:
        loaded = load_data(data, session.manifest.signature, session.manifest.loss)
        batches = batches_of(loaded, session)
    return Opened(folder, lambda: open_session(folder), batches)


def _report(
    folder: Path, profile: DeviceProfile | None, measured: MeasuredStep, options: argparse.Namespace
) -> Report:
    manifest, _ = read_manifest(folder)
    plan = manifest.plan
    graph = read_cost_table(folder, manifest) if COSTS in manifest.digests else None
    predicted = plan.cost
    if profile is not None and graph is not None:
        predicted = predicted_cost(graph, plan, profile)
    peak, joules = measured.memory.process_bytes, measured.joules
    found = verdicts(budget_from(options, plan.budget), peak, joules, measured.median_seconds)
    nodes = measured.nodes or ()
    return Report(
        bundle=str(folder),
        device=plan.device if profile is None or graph is None else profile.id,
        trainable_share=plan.trainable_share,
        predicted=predicted,
        measured=measured,
        verdicts=tuple(found),
        operators=by_operator(nodes),
        modules=by_module(nodes, graph) if graph is not None else (),
    )
