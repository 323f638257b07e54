"""The self-test of a bundle that trains less: what still holds of the recording, and what does not.

The loss and the gradients of what is still trained are PyTorch's, unless other values took the
place of the exported ones. The updates are others: the synthetic gradients are drawn for all that
is trained in turn, and clipped by the norm of all. What no longer holds is recorded anew from the
bundle's own graphs, which must agree with PyTorch first.
"""

from __future__ import annotations

import numpy as np

from edgetune.runtime.self_test import (
    CLIP_NORMS,
    LEARNING_RATE,
    SelfTest,
    synthetic_gradients,
)
from edgetune.runtime.session import Arrays, TrainingSession

WHOLE_BUNDLE = "the whole bundle"


def record_trimmed(
    session: TrainingSession, recorded: SelfTest, kept: tuple[str, ...], values: Arrays | None
) -> SelfTest:
    """The recording for a bundle that trains `kept` alone, in its order.

    session: of the whole bundle, freshly opened and in agreement with `recorded`; its values and
    state are others afterwards. values: what takes the place of the exported ones, None for those.
    """
    loss, gradients = recorded.loss, recorded.gradients
    if values is not None:
        session.load_values(values)
        session.discard()
        loss = session.accumulate(recorded.batch).loss
        gradients = session.gradients()
    return SelfTest(
        recorded.batch,
        loss,
        {name: gradients[name] for name in kept},
        _updates(session, kept),
        WHOLE_BUNDLE,
    )


def _updates(session: TrainingSession, kept: tuple[str, ...]) -> tuple[Arrays, ...]:
    """Values of `kept` after each update; gradients of zero add nothing to the norm."""
    nothing = {name: np.zeros_like(value) for name, value in session.values().items()}
    updates = []
    for number, clip_norm in enumerate(CLIP_NORMS):
        present = session.values()
        own = synthetic_gradients({name: present[name] for name in kept}, number)
        session.load_gradients({**nothing, **own})
        session.update(LEARNING_RATE, clip_norm)
        present = session.values()
        updates.append({name: present[name] for name in kept})
    return tuple(updates)
