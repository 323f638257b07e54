"""What `edgetune plan` and `edgetune export` do on the workstation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edgetune.files.bundle import read_manifest
from edgetune.nouns.candidate import Candidate
from edgetune.nouns.criterion import CRITERIA
from edgetune.nouns.frontier import Axis, FrontierPoint
from edgetune.nouns.plan import UpdatePlan
from edgetune.nouns.plan_request import PlanRequest
from edgetune.nouns.precision import Int8Loss
from edgetune.nouns.timeline import Timeline
from edgetune.planning.choose import Effort
from edgetune.planning.device_budget import within_device
from edgetune.planning.frontier import frontier as frontier_of
from edgetune.planning.step_cost import StepCosts
from edgetune.planning.timeline import timeline_of
from edgetune.runtime.self_test import SelfTestReport
from edgetune_exporters.export import export
from edgetune_exporters.factory import Example, load_example
from edgetune_exporters.frontier_plot import require_plotting, write_frontier_plot
from edgetune_exporters.importance.compare import ComparedCriterion, compare_criteria
from edgetune_exporters.importance.scores import Importance
from edgetune_exporters.int8.calibration import Int8Calibration
from edgetune_exporters.make_plan import (
    PlannedStep,
    Variants,
    importance_for,
    make_plan,
    plan_for,
)
from edgetune_exporters.onnx_import import load_onnx_example
from edgetune_exporters.request_importance import request_importance

SLOW_CRITERIA = ("contribution",)
"""Compared with others only when it is the one that was asked for."""


@dataclass(frozen=True)
class PlanReport:
    """A plan, and what else was asked about it; None or empty where it was not.

    frontier: the best plans, cheapest first, then selections made by hand. comparison: what each
    criterion picks, the request's own first.
    """

    plan: UpdatePlan
    timeline: Timeline | None = None
    frontier: tuple[FrontierPoint, ...] = ()
    comparison: tuple[ComparedCriterion, ...] = ()


@dataclass(frozen=True)
class Exported:
    """A plan, and by format how its export compares with PyTorch.

    int8_loss: what a prefix in 8 bits costs, None where it is fp32.
    """

    plan: UpdatePlan
    reports: Mapping[str, SelfTestReport]
    int8_loss: Int8Loss | None = None


def plan(
    model: str,
    request: PlanRequest,
    sample: str | None,
    loss: str,
    *,
    timeline: bool = False,
    frontier: Axis | None = None,
    plot: Path | None = None,
    compare_criteria: bool = False,
) -> PlanReport:
    """The plan for the model called `model`; sample and loss are for .onnx files.

    plot: where the frontier is drawn. Raises what planning raises, and StorageError.
    """
    if plot is not None:
        require_plotting()
    example = _example(model, sample, loss)
    importance = importance_for(example, request)
    variants = Variants(example, request, importance)
    planned = plan_for(variants, importance, request)
    points: tuple[FrontierPoint, ...] = ()
    if frontier is not None and importance is not None:
        points = _frontier(variants, importance, request, frontier)
    if plot is not None and frontier is not None:
        write_frontier_plot(points, frontier, request.profile.name, plot)
    return PlanReport(
        planned.plan,
        _timeline(planned, request) if timeline else None,
        points,
        _comparison(example, request) if compare_criteria else (),
    )


def export_model(
    model: str,
    request: PlanRequest,
    formats: tuple[str, ...],
    out: Path,
    sample: str | None,
    loss: str,
) -> Exported:
    """Plan, write and verify bundles in the folder `out`."""
    example = _example(model, sample, loss)
    planned = make_plan(example, request)
    int8 = Int8Calibration(request.calibration_samples, request.seed, request.int8_tolerance)
    reports = export(example, planned, formats, out, int8)
    int8_loss = read_manifest(out)[0].int8 if planned.plan.precision == "int8" else None
    return Exported(planned.plan, reports, int8_loss)


def _example(model: str, sample: str | None, loss: str) -> Example:
    if model.endswith(".onnx"):
        return load_onnx_example(Path(model), sample, loss)
    return load_example(model)


def _timeline(planned: PlannedStep, request: PlanRequest) -> Timeline:
    plan, graph = planned.plan, planned.step.graph
    costs = StepCosts(graph, plan.batch, plan.optimizer, request.profile, plan.precision)
    return timeline_of(costs, costs.bits_of(plan.selection))


def _frontier(
    variants: Variants, importance: Importance, request: PlanRequest, axis: Axis
) -> tuple[FrontierPoint, ...]:
    ways = tuple(variants)
    scores = importance.of(ways[0].graph.candidates)
    effort = Effort(request.gap, request.time_limit_seconds)
    budget = within_device(request.budget, request.profile)
    return frontier_of(ways, scores, axis, budget, effort)


def _comparison(example: Example, request: PlanRequest) -> tuple[ComparedCriterion, ...]:
    others = [c for c in CRITERIA if c not in (request.criterion, *SLOW_CRITERIA)]
    requests = [request, *(replace(request, criterion=c, scores_file=None) for c in others)]
    importances = [request_importance(example, each) for each in requests]

    def choose(importance: Importance) -> tuple[Candidate, ...]:
        planned = plan_for(Variants(example, request, importance), importance, request)
        return planned.step.graph.selected(planned.plan.selection)

    return compare_criteria(importances, choose)
