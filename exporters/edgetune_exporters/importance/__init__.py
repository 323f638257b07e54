"""How much each tensor, and each share of its channels or rows, is worth training."""

from __future__ import annotations

from edgetune_exporters.importance.compare import ComparedCriterion, compare_criteria
from edgetune_exporters.importance.measure import measure_importance, user_importance
from edgetune_exporters.importance.scores import Importance, TensorScores

__all__ = [
    "ComparedCriterion",
    "Importance",
    "TensorScores",
    "compare_criteria",
    "measure_importance",
    "user_importance",
]
