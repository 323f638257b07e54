"""The same plan in smaller pieces, for a run to go over to when memory runs short."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgetune.planning.step_cost import cost_of
from edgetune_exporters.dense_step import dense_step, recomputing
from edgetune_exporters.factory import Example
from edgetune_exporters.make_plan import PlannedStep


def in_smaller_pieces(example: Example, planned: PlannedStep) -> PlannedStep | None:
    """The plan with the next smaller micro-batch; None where the bundle shall not carry one.

    That is where no less memory was asked for than the device has, where samples are taken one by
    one already, and behind a prefix in 8 bits, which is rounded for one micro-batch.
    """
    plan, usable = planned.plan, planned.profile.usable_memory_bytes
    size = max((n for n in range(1, plan.micro_batch) if plan.micro_batch % n == 0), default=None)
    bound = plan.budget.memory_bytes
    is_held = bound is not None and (usable is None or bound < int(usable.value))
    if size is None or not is_held or plan.precision == "int8":
        return None
    shares = plan.selection.shares

    def chosen(parameter: str, axis: int, count: int) -> Sequence[int]:
        share = shares.get(parameter)
        same = share is not None and share.axis == axis and len(share.indices) == count
        return share.indices if share is not None and same else range(count)

    step = dense_step(example, size, chosen if shares else None)
    if plan.recomputes:
        step = recomputing(step)
    cost = cost_of(step.graph, plan.selection, plan.batch, plan.optimizer, planned.profile)
    return replace(planned, plan=replace(plan, micro_batch=size, cost=cost), step=step)
