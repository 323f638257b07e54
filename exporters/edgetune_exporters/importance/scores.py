"""Importance as a value: a score for every tensor and for any share of its slices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum, sqrt

from edgetune.errors import SelectionError, nearest
from edgetune.nouns.candidate import Candidate, Share


@dataclass(frozen=True)
class TensorScores:
    """A statistic summed over a tensor, and over each slice along its first axes.

    by_axis: per axis (at most 0 and 1: rows or output channels, and input channels) one number for
        each slice; each axis sums to `whole`, up to rounding.
    """

    whole: float
    by_axis: tuple[tuple[float, ...], ...]

    def scaled_to(self, whole: float) -> TensorScores:
        """The same proportions with another sum; equal slices where there are no proportions."""
        if self.whole > 0:
            factor = whole / self.whole
            return TensorScores(whole, tuple(_times(axis, factor) for axis in self.by_axis))
        return TensorScores(whole, tuple((whole / len(axis),) * len(axis) for axis in self.by_axis))


@dataclass(frozen=True)
class Importance:
    """How much what can be trained is worth by one criterion; greater is better.

    criterion: one of edgetune.nouns.criterion.CRITERIA, or "user".
    tensors: by parameter name, in the model's order; tensors that the loss does not depend on, or
        that the user gave no score, are absent.
    root: the score of a set of slices is the root of the summed statistics, as for a norm, instead
        of the sum.
    """

    criterion: str
    tensors: Mapping[str, TensorScores]
    root: bool = False

    def score(self, parameter: str, share: Share | None = None) -> float:
        """Score of a tensor, or of a share of it. Raises SelectionError when there is none."""
        if share is None:
            return self._combined([self._of(parameter).whole])
        slices = self._slices(parameter, share.axis)
        outside = [index for index in share.indices if not 0 <= index < len(slices)]
        if outside:
            raise SelectionError(
                f"{parameter} has {len(slices)} slices along axis {share.axis}: there is no slice "
                f"{', '.join(map(str, outside))}"
            )
        return self._combined(slices[index] for index in share.indices)

    def best_indices(self, parameter: str, axis: int, count: int) -> tuple[int, ...]:
        """The `count` slices of the greatest score along `axis`, ascending.

        Ties go to the lower index. Raises SelectionError when there are not that many.
        """
        slices = self._slices(parameter, axis)
        if not 1 <= count <= len(slices):
            raise SelectionError(
                f"{parameter} has {len(slices)} slices along axis {axis}: cannot choose {count}"
            )
        ranked = sorted(range(len(slices)), key=lambda index: (-slices[index], index))
        return tuple(sorted(ranked[:count]))

    def whole(self) -> dict[str, float]:
        """Score of every tensor that has one, by parameter name."""
        return {name: self.score(name) for name in self.tensors}

    def of(self, candidates: Sequence[Candidate]) -> dict[str, float]:
        """Score of each candidate by its name, of those whose parameter has one."""
        return {c.name: self.score(c.parameter, c.share) for c in candidates if c.parameter in self}

    def __contains__(self, parameter: str) -> bool:
        return parameter in self.tensors

    def _combined(self, statistics: Iterable[float]) -> float:
        total = fsum(statistics)
        return sqrt(total) if self.root else total

    def _of(self, parameter: str) -> TensorScores:
        if parameter not in self.tensors:
            raise SelectionError(
                f"{parameter} has no score by {self.criterion}{nearest(parameter, self.tensors)}"
            )
        return self.tensors[parameter]

    def _slices(self, parameter: str, axis: int) -> tuple[float, ...]:
        by_axis = self._of(parameter).by_axis
        if not 0 <= axis < len(by_axis):
            raise SelectionError(f"{parameter} has no scores along axis {axis}")
        return by_axis[axis]


def _times(values: tuple[float, ...], factor: float) -> tuple[float, ...]:
    return tuple(value * factor for value in values)
