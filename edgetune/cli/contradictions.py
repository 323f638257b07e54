"""Options of `plan` and `export` that do not go together, each with what to do instead."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from math import isfinite
from pathlib import Path

from edgetune.cli.budget_options import budget_problems, search_problems
from edgetune.errors import UsageError, raise_all

PLOT_SUFFIXES = (".svg", ".png")


def check_request(options: argparse.Namespace) -> None:
    """Raise one UsageError that lists every problem of the options that `plan` and `export` share.

    Options of `plan` alone are checked where `options` has them.
    """
    problems = [
        *budget_problems(options),
        *search_problems(options),
        *_of_the_selection(options),
        *_of_the_scores(options),
        *(_of_the_reports(options) if hasattr(options, "frontier") else ()),
    ]
    raise_all(UsageError, "cannot use these options", problems)


def _of_the_selection(options: argparse.Namespace) -> Iterator[str]:
    ranked = _named(options, "top_k", "threshold")
    searched = _named(options, "gap", "time_limit")
    if options.train and ranked:
        yield f"--train names what is trained, {ranked} ranks it: give one of them"
    if (options.train or ranked) and searched:
        yield (
            f"{searched} would stop a search, and {ranked or '--train'} leaves nothing to search: "
            "leave one of them out"
        )
    shares = [pattern for pattern in options.train if ":" in pattern]
    if shares and options.no_shares:
        yield f"--train {shares[0]} is a share, which --no-shares forbids: leave one of them out"
    if not 0 <= options.int8_tolerance < float("inf"):
        yield f"--int8-tolerance is {options.int8_tolerance}: expected a share such as 0.02"
    if options.precision == "int8" and "ort-training" in (getattr(options, "format", None) or []):
        yield (
            "--format ort-training has no prefix in 8 bits, --precision int8 asks for one: leave "
            "one of them out"
        )
    if options.top_k is not None and options.top_k < 1:
        yield f"--top-k is {options.top_k}: expected at least one tensor"
    if options.threshold is not None and not isfinite(options.threshold):
        yield f"--threshold is {options.threshold}: expected a finite number"


def _of_the_scores(options: argparse.Namespace) -> Iterator[str]:
    given = _named(options, "criterion", "scores")
    if options.train and given and not any(":" in pattern for pattern in options.train):
        yield f"{given} ranks what could be trained, --train decides it: give one of them"
    if options.scores and options.criterion not in (None, "user"):
        yield (
            f"--scores takes the place of --criterion {options.criterion}: leave one of them out"
        )
    if options.criterion == "user" and not options.scores:
        yield "--criterion user needs a file of scores: give --scores FILE.json"


def _of_the_reports(options: argparse.Namespace) -> Iterator[str]:
    decided = "--train" if options.train else _named(options, "top_k", "threshold")
    if options.frontier and decided:
        yield f"--frontier shows the best plans, {decided} decides what they are: give one of them"
    if options.compare_criteria and options.train:
        yield (
            "--compare-criteria shows what each criterion picks, --train decides it: give one of "
            "them"
        )
    if options.plot and not options.frontier:
        yield "--plot draws the frontier: add --frontier memory or --frontier energy"
    if options.plot and Path(options.plot).suffix.lower() not in PLOT_SUFFIXES:
        yield f"--plot {options.plot}: expected a name that ends in {' or '.join(PLOT_SUFFIXES)}"


def _named(options: argparse.Namespace, *names: str) -> str:
    """The given ones of these options, as they are typed."""
    given = [name for name in names if getattr(options, name) is not None]
    return " and ".join(f"--{name.replace('_', '-')}" for name in given)
