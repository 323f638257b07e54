"""Loss and accuracy of a session over a dataset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgetune.data.dataset import Dataset, check_data
from edgetune.runtime.batches import evaluation_plan, micro_batches
from edgetune.runtime.session import TrainingSession


@dataclass(frozen=True)
class Evaluation:
    """loss: mean over the whole dataset, as PyTorch's reduction="mean" over one large batch.

    accuracy: share of right predictions, None where the loss has none. count: samples.
    """

    loss: float
    accuracy: float | None
    count: int


def evaluate(session: TrainingSession, dataset: Dataset) -> Evaluation:
    """Evaluate the session's present values on `dataset`. Raises DataError."""
    check_data(dataset, session.manifest.signature, session.manifest.loss)
    evaluation = evaluate_unless(session, dataset, lambda: False)
    assert evaluation is not None  # nothing stopped it
    return evaluation


def evaluate_unless(
    session: TrainingSession, dataset: Dataset, stop: Callable[[], bool]
) -> Evaluation | None:
    """The same for data that is checked already; None as soon as `stop()` is true."""
    plan = evaluation_plan(dataset, session.manifest)
    loss, correct = 0.0, 0
    for batch in micro_batches(dataset, plan, session.manifest.plan.micro_batch):
        if stop():
            return None
        result = session.evaluate(batch)
        loss += result.loss
        correct += result.correct
    return Evaluation(loss, correct / plan.counted if plan.counted else None, len(dataset))
