"""What `edgetune plan` and `edgetune export` do on the workstation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgetune.nouns.plan import UpdatePlan
from edgetune.nouns.plan_request import PlanRequest
from edgetune.runtime.self_test import SelfTestReport
from edgetune_exporters.export import export
from edgetune_exporters.factory import Example, load_example
from edgetune_exporters.make_plan import make_plan
from edgetune_exporters.onnx_import import load_onnx_example


@dataclass(frozen=True)
class Exported:
    """A plan, and by format how its export compares with PyTorch."""

    plan: UpdatePlan
    reports: Mapping[str, SelfTestReport]


def plan(model: str, request: PlanRequest, sample: str | None, loss: str) -> UpdatePlan:
    """The plan for the model called `model`; sample and loss are for .onnx files."""
    return make_plan(_example(model, sample, loss), request).plan


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
    return Exported(planned.plan, export(example, planned, formats, out))


def _example(model: str, sample: str | None, loss: str) -> Example:
    if model.endswith(".onnx"):
        return load_onnx_example(Path(model), sample, loss)
    return load_example(model)
