"""The options of every command that plans: what a step may cost, and how hard to search."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from edgetune.nouns.budget import Budget
from edgetune.units import parse_bytes, parse_joules, parse_seconds


def add_budget_options(parser: argparse.ArgumentParser, otherwise: str) -> None:
    """Add the budgets. otherwise: what holds for those that are not given."""
    budget = parser.add_argument_group(f"budget ({otherwise})")
    budget.add_argument("--memory", help="peak of the whole process on the device, such as 96MiB")
    budget.add_argument("--energy-per-step", help="energy of one update, such as 0.5J or 200mJ")
    budget.add_argument("--step-seconds", help="duration of one update, such as 250ms or 2s")
    budget.add_argument(
        "--energy-per-run", help="energy of all --steps updates together, such as 500J or 2Wh"
    )
    budget.add_argument("--steps", type=int, help="updates of a run, such as 1000")


def add_search_options(parser: argparse.ArgumentParser) -> None:
    """Add when the search may stop before it has proven its plan the best."""
    search = parser.add_argument_group(
        "search (by default until the plan is proven to be the best)"
    )
    search.add_argument(
        "--gap",
        type=float,
        help="stop when no plan can be better by more than this share, such as 0.01 for 1 %%",
    )
    search.add_argument(
        "--time-limit",
        help="stop after this time, such as 30s, with the best plan found and its gap",
    )


def budget_from(options: argparse.Namespace, otherwise: Budget) -> Budget:
    """The budget that the options make; what is not given as in `otherwise`. Raises UsageError."""
    given: dict[str, Any] = {}
    if options.memory:
        given["memory_bytes"] = parse_bytes(options.memory)
    if options.energy_per_step:
        given["energy_joules"] = parse_joules(options.energy_per_step)
    if options.step_seconds:
        given["step_seconds"] = parse_seconds(options.step_seconds)
    if options.energy_per_run:
        given["run_energy_joules"] = parse_joules(options.energy_per_run)
        given["run_steps"] = options.steps
    return replace(otherwise, **given)


def time_limit_from(options: argparse.Namespace) -> float | None:
    """The seconds of --time-limit. Raises UsageError."""
    return parse_seconds(options.time_limit) if options.time_limit else None


def budget_problems(options: argparse.Namespace) -> Iterator[str]:
    """What is wrong with the budget's numbers."""
    if options.energy_per_run and options.steps is None:
        yield "--energy-per-run needs to know of how many updates: give --steps, such as 1000"
    if options.steps is not None and not options.energy_per_run:
        yield "--steps counts the updates of --energy-per-run: give that too, or leave --steps out"
    if options.steps is not None and options.steps < 1:
        yield f"--steps is {options.steps}: expected at least one update"


def search_problems(options: argparse.Namespace) -> Iterator[str]:
    """What is wrong with the search's numbers."""
    if options.gap is not None and not 0 <= options.gap < 1:
        yield f"--gap is {options.gap}: expected a share from 0 to below 1, such as 0.01"
