"""What each criterion picks, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgetune.nouns.candidate import Candidate
from edgetune_exporters.importance.scores import Importance


@dataclass(frozen=True)
class ComparedCriterion:
    """One row of the comparison.

    chosen: names of the candidates, as chosen. tensors: how many tensors they train.
    captured: their summed score over that of all tensors with a positive one, the most there is.
    overlap: Jaccard index of the chosen names with those of the first criterion; 1 when alike.
    """

    criterion: str
    chosen: tuple[str, ...]
    tensors: int
    captured: float
    overlap: float


def compare_criteria(
    importances: Sequence[Importance], choose: Callable[[Importance], Sequence[Candidate]]
) -> tuple[ComparedCriterion, ...]:
    """A row per importance, in order; `choose` is the planner within the user's budget.

    It returns candidates, not names: which channels a share means differs between criteria.
    """
    rows: list[ComparedCriterion] = []
    for importance in importances:
        chosen = choose(importance)
        names = tuple(candidate.name for candidate in chosen)
        most = sum(score for score in importance.whole().values() if score > 0)
        captured = sum(importance.of(chosen).values())
        rows.append(
            ComparedCriterion(
                criterion=importance.criterion,
                chosen=names,
                tensors=len({candidate.parameter for candidate in chosen}),
                captured=captured / most if most else 0.0,
                overlap=_jaccard(names, rows[0].chosen if rows else names),
            )
        )
    return tuple(rows)


def _jaccard(one: Sequence[str], other: Sequence[str]) -> float:
    """Shared over all names (Jaccard, 1901); 1 for two empty sets."""
    union = set(one) | set(other)
    return len(set(one) & set(other)) / len(union) if union else 1.0
