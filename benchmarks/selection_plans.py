"""What competes at equal memory: selections made by hand, and edgetune's plans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from acceptance_tasks import Task
from edgetune_exporters.factory import Example
from edgetune_exporters.make_plan import PlannedStep, Variants, make_plan, plan_for
from edgetune_exporters.request_importance import request_importance

from edgetune.errors import BudgetError
from edgetune.files.device_profiles import load_profile
from edgetune.nouns.budget import Budget
from edgetune.nouns.plan_request import PlanRequest

GAP = 0.01
TIME_LIMIT_SECONDS = 20.0


@dataclass(frozen=True)
class Competitor:
    """A selection with a name; planned is None where it does not fit, and why says it."""

    name: str
    planned: PlannedStep | None
    why: str = ""


def competitors(
    task: Task,
    example: Example,
    calibration: Example,
    batch: int,
    reference: int,
    criteria: Sequence[str],
) -> list[Competitor]:
    """All within the memory that row `reference` of the task takes with the batch at once.

    By hand: the head, the biases with it, the reference, and as many of the last tensors as fit.
    Planned by each criterion: within the memory alone, and within the reference's predicted time
    of a step too. Everything but the reference may run in micro-batches and recompute. example:
    what the bundles are made of, and their self-tests. calibration: the same model with the
    samples that importance is measured on.
    """
    request = PlanRequest(
        load_profile(task.device), batch=batch, gap=GAP, time_limit_seconds=TIME_LIMIT_SECONDS
    )
    row, head = task.rows[reference], task.rows[0].patterns
    by_hand = make_plan(example, replace(request, patterns=row.patterns, micro_batch=batch))
    cost = by_hand.plan.cost
    memory = Budget(memory_bytes=cost.peak_bytes)
    within = replace(request, budget=memory)
    whole = Variants(example, within, None)  # made once for all selections of whole tensors
    found = [
        _fitting("head", whole, replace(within, patterns=head)),
        _fitting("biases + head", whole, replace(within, patterns=("*.bias", *head))),
        Competitor(row.selection, by_hand),
        Competitor("as many of the last as fit", _most_of_the_last(whole, within)),
    ]
    as_fast = replace(memory, step_seconds=cost.seconds)
    for criterion in criteria:
        by = f" ({criterion})" if len(criteria) > 1 else ""
        asked = replace(within, criterion=criterion)
        importance = request_importance(calibration, asked)
        variants = Variants(example, asked, importance)
        found.append(Competitor(f"planned{by}", plan_for(variants, importance, asked)))
        asked = replace(asked, budget=as_fast)
        best = plan_for(variants, importance, asked)
        found.append(Competitor(f"planned, step no longer{by}", best))
    return found


def _fitting(name: str, variants: Variants, request: PlanRequest) -> Competitor:
    try:
        return Competitor(name, plan_for(variants, None, request))
    except BudgetError as error:
        return Competitor(name, None, str(error))


def _most_of_the_last(variants: Variants, request: PlanRequest) -> PlannedStep:
    """The longest run of tensors up to the model's last one that fits, found by halving."""
    names = [c.name for c in next(iter(variants)).graph.candidates]
    fits: PlannedStep | None = None
    low, high = 1, len(names)
    while low <= high:
        count = (low + high) // 2
        asked = replace(request, patterns=tuple(names[-count:]))
        planned = _fitting("", variants, asked).planned
        if planned is None:
            high = count - 1
        else:
            fits, low = planned, count + 1
    if fits is None:
        raise BudgetError("not even the last tensor fits: there is nothing to compare")
    return fits
