"""From an example, a device and a budget to an UpdatePlan."""

from __future__ import annotations

from dataclasses import dataclass

from edgetune.errors import BudgetError, UsageError
from edgetune.nouns.budget import Budget
from edgetune.nouns.plan import Certificate, UpdatePlan
from edgetune.nouns.plan_request import PlanRequest
from edgetune.nouns.selection import Selection
from edgetune.planning.choose import Choice, choose, require_predictions, violations
from edgetune.planning.step_cost import cost_of
from edgetune_exporters.dense_step import DenseStep, dense_step, select
from edgetune_exporters.factory import Example
from edgetune_exporters.importance import fisher_information


@dataclass(frozen=True)
class PlannedStep:
    """A plan, and the dense step at its micro-batch."""

    plan: UpdatePlan
    step: DenseStep


def make_plan(example: Example, request: PlanRequest) -> PlannedStep:
    """Plan what to train.

    Larger micro-batches come first; a smaller one is tried when the larger leaves something out.
    Raises BudgetError when nothing fits at any, SelectionError for patterns that match nothing.
    """
    budget = _with_device_memory(request)
    scores = {} if request.patterns else fisher_information(example, request.calibration_samples)
    best: tuple[Choice, DenseStep] | None = None
    refusal: BudgetError | None = None
    for micro_batch in _micro_batches(request):
        step = dense_step(example, micro_batch)
        try:
            choice = _choose(step, scores, budget, request)
        except BudgetError as error:
            refusal = error
            continue
        if best is None or choice.certificate.objective > best[0].certificate.objective:
            best = choice, step
        if len(choice.selection.trainable) == len(step.graph.candidates) or request.patterns:
            break
    if best is None:
        assert refusal is not None
        raise refusal
    return PlannedStep(_plan(*best, scores, request), best[1])


def _micro_batches(request: PlanRequest) -> list[int]:
    if request.batch < 1:
        raise UsageError(f"the batch is {request.batch}: expected at least one sample")
    if request.micro_batch is None:
        return [n for n in range(request.batch, 0, -1) if request.batch % n == 0]
    if request.micro_batch < 1 or request.batch % request.micro_batch:
        raise UsageError(
            f"a micro-batch of {request.micro_batch} does not divide the batch of {request.batch}"
        )
    return [request.micro_batch]


def _with_device_memory(request: PlanRequest) -> Budget:
    """The budget, bounded by the memory that the device can give any process."""
    usable = request.profile.usable_memory_bytes
    if usable is None:
        return request.budget
    asked = request.budget.memory_bytes
    bound = int(usable.value) if asked is None else min(asked, int(usable.value))
    return Budget(bound, request.budget.energy_joules, request.budget.step_seconds)


def _choose(
    step: DenseStep, scores: dict[str, float], budget: Budget, request: PlanRequest
) -> Choice:
    if not request.patterns:
        return choose(step.graph, scores, budget, request.batch, request.optimizer, request.profile)
    selection = select(step, list(request.patterns))
    cost = cost_of(step.graph, selection, request.batch, request.optimizer, request.profile)
    require_predictions(cost, budget, request.profile)
    exceeded = violations(cost, budget)
    if exceeded:
        raise BudgetError(
            f"the selection does not fit {request.profile.id}: {'; '.join(exceeded)}; select less, "
            "lower --batch or --micro-batch, or leave --train out and let edgetune choose"
        )
    return Choice(selection, cost, Certificate("patterns", 0.0))


def _plan(
    choice: Choice, step: DenseStep, scores: dict[str, float], request: PlanRequest
) -> UpdatePlan:
    return UpdatePlan(
        device=request.profile.id,
        selection=choice.selection,
        batch=request.batch,
        micro_batch=step.graph.batch,
        optimizer=request.optimizer,
        budget=request.budget,
        cost=choice.cost,
        certificate=choice.certificate,
        parameter_count=step.parameter_count,
        trainable_count=_count(step, choice.selection),
        scores=scores,
    )


def _count(step: DenseStep, selection: Selection) -> int:
    return sum(step.model.parameters[name].numel() for name in selection.trainable)
