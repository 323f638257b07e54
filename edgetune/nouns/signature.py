"""What a bundle takes and returns: named arrays of fixed shape."""

from __future__ import annotations

from dataclasses import dataclass

# The element types that cross the boundary between user data and the graphs.
DTYPES = ("float32", "float16", "float64", "int64", "int32", "int8", "uint8", "bool")


@dataclass(frozen=True)
class ArraySpec:
    """One named array. `shape` is that of ONE sample, without the leading batch dimension."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[batch, {', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Signature:
    """Inputs and targets of training, outputs of prediction, all per sample."""

    inputs: tuple[ArraySpec, ...]
    targets: tuple[ArraySpec, ...]
    outputs: tuple[ArraySpec, ...]
