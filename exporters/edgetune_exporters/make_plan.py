"""From an example, a device and a budget to an UpdatePlan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from edgetune.errors import BudgetError, SelectionError, UsageError, raise_all
from edgetune.nouns.plan import Certificate, UpdatePlan
from edgetune.nouns.plan_request import PlanRequest
from edgetune.nouns.precision import Precision
from edgetune.nouns.profile import DeviceProfile
from edgetune.nouns.selection import Selection
from edgetune.planning.budget_check import require_predictions, violations
from edgetune.planning.choose import Choice, Effort, choose, total_importance
from edgetune.planning.device_budget import within_device
from edgetune.planning.step_cost import StepCosts
from edgetune_exporters.dense_step import DenseStep, dense_step, recomputing, select
from edgetune_exporters.factory import Example
from edgetune_exporters.importance.scores import Importance
from edgetune_exporters.request_importance import request_importance


@dataclass(frozen=True)
class PlannedStep:
    """A plan, the dense step that it runs, and the profile that it was made for."""

    plan: UpdatePlan
    step: DenseStep
    profile: DeviceProfile


def make_plan(example: Example, request: PlanRequest) -> PlannedStep:
    """Plan what to train.

    Raises BudgetError when nothing fits, SelectionError for patterns that match nothing.
    """
    importance = importance_for(example, request)
    return plan_for(Variants(example, request, importance), importance, request)


def importance_for(example: Example, request: PlanRequest) -> Importance | None:
    """What a plan needs: nothing where whole tensors are trained by name."""
    if request.patterns and not any(":" in pattern for pattern in request.patterns):
        return None
    return request_importance(example, request)


class Variants:
    """The ways to run the step, from the fastest to that with the least memory, made when asked.

    Larger micro-batches come first; each is followed by itself with recomputation; of each the
    precisions in the request's order.
    """

    def __init__(
        self, example: Example, request: PlanRequest, importance: Importance | None
    ) -> None:
        self._example, self._request = example, request
        self._importance = importance if request.shares else None
        self._made: list[tuple[DenseStep, StepCosts]] = []
        self._rest = self._make()

    def __iter__(self) -> Iterator[StepCosts]:
        at = 0
        while True:
            if at == len(self._made):
                following = next(self._rest, None)
                if following is None:
                    return
                self._made.append(following)
            yield self._made[at][1]
            at += 1

    def step_of(self, costs: StepCosts) -> DenseStep:
        """The dense step behind one of the variants."""
        (step,) = [step for step, made in self._made if made is costs]
        return step

    def _make(self) -> Iterator[tuple[DenseStep, StepCosts]]:
        for micro_batch in micro_batches(self._request):
            choose = None if self._importance is None else self._slices
            step = dense_step(self._example, micro_batch, choose)
            for precision in self._request.precisions:
                yield step, self._costs(step, precision)
            if self._request.recomputation:
                again = recomputing(step)
                for precision in self._request.precisions:
                    yield again, self._costs(again, precision)

    def _slices(self, parameter: str, axis: int, count: int) -> Sequence[int]:
        """The best slices; of a parameter without a score, which is never chosen, any."""
        if self._importance is None or parameter not in self._importance:
            return range(count)
        return self._importance.best_indices(parameter, axis, count)

    def _costs(self, step: DenseStep, precision: Precision) -> StepCosts:
        request = self._request
        return StepCosts(step.graph, request.batch, request.optimizer, request.profile, precision)


def plan_for(
    variants: Variants, importance: Importance | None, request: PlanRequest
) -> PlannedStep:
    """What the request selects, or else the best by `importance` within its budget."""
    request = replace(request, budget=within_device(request.budget, request.profile))
    first = next(iter(variants))
    scores = importance.of(first.graph.candidates) if importance else {}
    if request.patterns:
        selection = select(variants.step_of(first), list(request.patterns))
        _refuse_unscored_shares(first, selection, scores)
        choice = _fitting(variants, selection, scores, request)
    elif request.top_k is not None or request.threshold is not None:
        choice = _fitting(variants, _ranked(first, scores, request), scores, request)
    else:
        effort = Effort(request.gap, request.time_limit_seconds)
        choice = choose(variants, scores, request.budget, effort)
    step = variants.step_of(choice.costs)
    return PlannedStep(_plan(choice, step, scores, request), step, request.profile)


def _refuse_unscored_shares(
    costs: StepCosts, selection: Selection, scores: Mapping[str, float]
) -> None:
    problems = [
        f"{c.name} needs a score of {c.parameter}, by which its slices are chosen"
        for c in costs.graph.selected(selection)
        if c.share is not None and c.name not in scores
    ]
    raise_all(SelectionError, "cannot select what to train", problems)


def micro_batches(request: PlanRequest) -> list[int]:
    """The micro-batches to try, the largest first. Raises UsageError."""
    if request.batch < 1:
        raise UsageError(f"the batch is {request.batch}: expected at least one sample")
    if request.micro_batch is None:
        return [n for n in range(request.batch, 0, -1) if request.batch % n == 0]
    if request.micro_batch < 1 or request.batch % request.micro_batch:
        raise UsageError(
            f"a micro-batch of {request.micro_batch} does not divide the batch of {request.batch}"
        )
    return [request.micro_batch]


def _ranked(costs: StepCosts, scores: dict[str, float], request: PlanRequest) -> Selection:
    """Whole tensors by a threshold on their score, or the most important ones."""
    whole = [c for c in costs.graph.candidates if c.share is None and c.name in scores]
    least = -float("inf") if request.threshold is None else request.threshold
    order = sorted(whole, key=lambda c: -scores[c.name])[: request.top_k]
    kept = {c.name for c in order if scores[c.name] >= least}
    if not kept:
        best = max((scores[c.name] for c in whole), default=0.0)
        raise UsageError(
            f"the threshold {request.threshold:g} selects nothing: the greatest score is {best:g}"
        )
    return Selection.of([c for c in whole if c.name in kept])


def _fitting(
    variants: Variants, selection: Selection, scores: dict[str, float], request: PlanRequest
) -> Choice:
    """The first variant in which a given selection fits."""
    smallest: list[str] = []
    for costs in variants:
        bits = costs.bits_of(selection)
        cost = costs.cost(bits)
        require_predictions(cost, request.budget, request.profile)
        smallest = violations(cost, request.budget)
        if not smallest:
            chosen = costs.graph.selected(selection)
            method = "patterns" if request.patterns else "top-k" if request.top_k else "threshold"
            objective = sum(scores.get(c.name, 0.0) for c in chosen)
            certificate = Certificate(method, objective, total_importance(costs, scores))
            return Choice(costs, selection, cost, certificate)
    raise BudgetError(
        f"the selection does not fit {request.profile.id}, even in micro-batches of "
        f"{costs.graph.batch}: {'; '.join(smallest)}; select less, or leave the selection out and "
        "let edgetune choose"
    )


def _plan(
    choice: Choice, step: DenseStep, scores: dict[str, float], request: PlanRequest
) -> UpdatePlan:
    chosen = step.graph.selected(choice.selection)
    return UpdatePlan(
        device=request.profile.id,
        selection=choice.selection,
        batch=request.batch,
        micro_batch=step.graph.batch,
        recomputes=step.recomputes,
        precision=choice.costs.precision,
        optimizer=request.optimizer,
        budget=request.budget,
        cost=choice.cost,
        certificate=choice.certificate,
        parameter_count=step.parameter_count,
        trainable_count=sum(step.graph.tensor_bytes[c.gradient] // 4 for c in chosen),
        criterion=request.criterion if scores else "",
        scores={c.name: scores[c.name] for c in chosen if c.name in scores},
    )
