"""A checkpoint that goes on in a bundle that trains part of what its own trains."""

from __future__ import annotations

from dataclasses import replace

from edgetune.files.checkpoint import Checkpoint
from edgetune.nouns.bundle_names import slot_name
from edgetune.nouns.plan import UpdatePlan


def trimmed_checkpoint(
    saved: Checkpoint, before: UpdatePlan, after: UpdatePlan, digest: str
) -> Checkpoint:
    """`saved`, of a run with the plan `before`, for the bundle of the plan `after`.

    digest: that of the new bundle. What remains goes on with its optimizer state. Where something
    was dropped the best epoch so far is forgotten: its values went together with others of that.
    """
    dropped = [n for n in before.selection.trainable if n not in after.selection.trainable]
    moved = replace(saved, bundle_digest=digest)
    if not dropped:
        return moved
    gone = {*dropped, *(slot_name(s, n) for s in before.optimizer.slots for n in dropped)}
    return replace(
        moved,
        state={name: value for name, value in saved.state.items() if name not in gone},
        best_metric=None,
        best_epoch=None,
        stale_epochs=0,
        best_values={},
    )
