"""What can be selected: a whole tensor, or a share of its channels or rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """Some of a tensor's slices along one axis; the others are frozen.

    indices: which slices, ascending, no one twice.
    """

    axis: int
    indices: tuple[int, ...]

    def shape(self, whole: Sequence[int]) -> tuple[int, ...]:
        """Shape of the share of a tensor of the shape `whole`."""
        return (*whole[: self.axis], len(self.indices), *whole[self.axis + 1 :])


@dataclass(frozen=True)
class Candidate:
    """Something that can be selected; at most one candidate of a parameter is.

    name: the parameter's name for the whole tensor; for a share `PARAMETER:KIND/N`, where KIND is
        "in" or "out" (channels of a convolution or a linear layer) or "rows" (of an embedding) and
        one N-th of them is trained.
    gradient: the tensor of the StepGraph that holds its gradient, of the share's shape.
    share: None for the whole tensor.
    """

    name: str
    parameter: str
    gradient: str
    share: Share | None = None
