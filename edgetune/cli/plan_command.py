"""`edgetune plan`: what would be trained within a budget, and what it would cost."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edgetune.cli.comparison_table import describe_comparison
from edgetune.cli.describe import describe_plan, plan_json
from edgetune.cli.frontier_table import describe_frontier
from edgetune.cli.output import add_json_option, print_json
from edgetune.cli.request_options import add_request_options, request_from, workstation
from edgetune.cli.timeline_table import describe_timeline
from edgetune.files.atomic import check_writable
from edgetune.nouns.frontier import AXES


def add_to(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = commands.add_parser("plan", help="choose what to train within a budget")
    add_request_options(parser)
    more = parser.add_argument_group("more about the plan")
    more.add_argument(
        "--timeline", action="store_true", help="what is alive when, and what holds the peak"
    )
    more.add_argument(
        "--frontier",
        choices=AXES,
        help="what more memory, or energy, would buy; beside head only, last blocks and biases",
    )
    more.add_argument("--plot", type=Path, metavar="FILE", help="draw the frontier, .svg or .png")
    more.add_argument(
        "--compare-criteria",
        action="store_true",
        help="what each criterion picks within the budget (contribution only with --criterion)",
    )
    add_json_option(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    request = request_from(options)
    if options.plot:
        check_writable(options.plot)
    report = workstation().plan(
        options.model,
        request,
        options.sample,
        options.loss,
        timeline=options.timeline,
        frontier=options.frontier,
        plot=options.plot,
        compare_criteria=options.compare_criteria,
    )
    print_json(_json(report)) if options.json else print(_describe(report, options))


def _json(report: Any) -> dict[str, Any]:
    """The plan, and under names of their own what else was asked for."""
    asked = {
        "timeline": report.timeline,
        "frontier": report.frontier,
        "comparison": report.comparison,
    }
    return {**plan_json(report.plan), **{name: each for name, each in asked.items() if each}}


def _describe(report: Any, options: argparse.Namespace) -> str:
    parts = [describe_plan(report.plan)]
    if report.timeline:
        parts.append(describe_timeline(report.timeline))
    if report.frontier:
        parts.append(describe_frontier(report.frontier, options.frontier, report.plan.criterion))
    if report.comparison:
        parts.append(describe_comparison(report.comparison))
    if options.plot:
        parts.append(f"written      {options.plot}")
    return "\n\n".join(parts)
