"""What the step of a bundle is predicted to cost on a device, from the bundle's own cost table."""

from __future__ import annotations

from edgetune.nouns.cost import StepCost
from edgetune.nouns.plan import UpdatePlan
from edgetune.nouns.profile import DeviceProfile
from edgetune.nouns.step_graph import StepGraph
from edgetune.planning.step_cost import StepCosts


def predicted_cost(graph: StepGraph, plan: UpdatePlan, profile: DeviceProfile) -> StepCost:
    """The cost of one step of `plan` by the numbers of `profile`.

    graph: the dense step that the bundle was cut from.
    """
    costs = StepCosts(graph, plan.batch, plan.optimizer, profile, plan.precision)
    return costs.cost(costs.bits_of(plan.selection))
