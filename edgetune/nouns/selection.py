"""What is trained: a value with laws, never a flag on the model."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from edgetune.errors import SelectionError, nearest, raise_all
from edgetune.nouns.candidate import Candidate, Share

Value = TypeVar("Value")


@dataclass(frozen=True)
class Selection:
    """The names of the trainable tensors, in the model's order; everything else is frozen.

    shares: for tensors of which only some slices are trained, which.
    Law: `combine(*selection.partition(parameters)) == parameters`.
    """

    trainable: tuple[str, ...]
    shares: Mapping[str, Share] = field(default_factory=dict)

    @classmethod
    def of(cls, candidates: Sequence[Candidate]) -> Selection:
        """The selection of these candidates, which are in the model's order."""
        shares = {c.parameter: c.share for c in candidates if c.share is not None}
        return cls(tuple(c.parameter for c in candidates), shares)

    def __contains__(self, name: str) -> bool:
        return name in self.trainable

    def partition(
        self, parameters: Mapping[str, Value]
    ) -> tuple[dict[str, Value], dict[str, Value]]:
        """(trainable, frozen) parts of `parameters`, each in the order of `parameters`."""
        chosen = set(self.trainable)
        trainable = {name: value for name, value in parameters.items() if name in chosen}
        frozen = {name: value for name, value in parameters.items() if name not in chosen}
        return trainable, frozen


def combine(trainable: Mapping[str, Value], frozen: Mapping[str, Value]) -> dict[str, Value]:
    """One mapping from the two parts; raises SelectionError when a name is in both."""
    both = sorted(set(trainable) & set(frozen))
    if both:
        raise SelectionError(f"names both trainable and frozen: {', '.join(both)}")
    return {**trainable, **frozen}


def select_by_patterns(patterns: Sequence[str], names: Sequence[str]) -> Selection:
    """The `names` that match any shell-style pattern (`head.*`, `*.bias`), in their order.

    Raises SelectionError listing every pattern that matches nothing, with the nearest names.
    """
    problems = [
        f"the pattern {pattern!r} matches no parameter{nearest(pattern, names)}"
        for pattern in patterns
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names)
    ]
    raise_all(SelectionError, "cannot select what to train", problems)
    chosen = tuple(n for n in names if any(fnmatch.fnmatchcase(n, p) for p in patterns))
    if not chosen:
        raise SelectionError("cannot select what to train: no pattern was given")
    return Selection(chosen)
