"""Slices of a tensor, seen through another shape."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from edgetune_exporters.slicing.rules import Shape, same_elements
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetune.nouns.candidate import Share

FOUND: dict[str, tuple[Shape, Share, Shape, Share]] = {
    "the same axis": ((4, 6), Share(1, (2, 3)), (4, 6), Share(1, (2, 3))),
    "axes before it joined": ((8, 6), Share(1, (2, 3)), (2, 4, 6), Share(2, (2, 3))),
    "axes behind it joined": ((2, 6, 20), Share(1, (0, 5)), (2, 6, 4, 5), Share(1, (0, 5))),
    "axes of one": ((2, 6), Share(1, (0, 5)), (2, 1, 6, 1, 1), Share(2, (0, 5))),
    "one of two axes that are one": (
        (3, 4),
        Share(1, (1, 2)),
        (12,),
        Share(0, (1, 2, 5, 6, 9, 10)),
    ),
    "the outer of two": ((3, 4), Share(0, (1,)), (12,), Share(0, (4, 5, 6, 7))),
    "whole blocks of an axis": ((12,), Share(0, (4, 5, 6, 7)), (3, 4), Share(0, (1,))),
    "the same of every block": ((12,), Share(0, (1, 5, 9)), (3, 4), Share(1, (1,))),
    "an axis divided anew": ((6, 4), Share(0, (2, 3)), (3, 8), Share(0, (1,))),
}
NOT_FOUND: dict[str, tuple[Shape, Share, Shape]] = {
    "other ones of every block": ((12,), Share(0, (1, 6, 9)), (3, 4)),
    "a part of a block": ((12,), Share(0, (4, 5)), (3, 4)),
    "an empty tensor": ((4, 0), Share(0, (1,)), (4, 0)),
}


@pytest.mark.parametrize("name", FOUND)
def test_the_same_slices_of_another_shape(name: str) -> None:
    shape, share, other, expected = FOUND[name]
    assert same_elements(shape, share, other) == expected


@pytest.mark.parametrize("name", NOT_FOUND)
def test_no_slices_along_one_axis(name: str) -> None:
    assert same_elements(*NOT_FOUND[name]) is None


SIZES = st.lists(st.integers(1, 3), min_size=1, max_size=4)


def joined(sizes: list[int]) -> st.SearchStrategy[Shape]:
    """The sizes, with some neighbours joined to one axis."""

    def join(apart: list[bool]) -> Shape:
        found = [1]
        for size, is_new in zip(sizes, apart, strict=True):
            found = [*found, size] if is_new else [*found[:-1], found[-1] * size]
        return tuple(found)

    return st.lists(st.booleans(), min_size=len(sizes), max_size=len(sizes)).map(join)


def slices_of(shape: Shape, wanted: set[int]) -> Share | None:
    """The slices along one axis that hold exactly the `wanted` elements, by trying each axis."""
    elements = np.arange(prod(shape)).reshape(shape)
    for axis, size in enumerate(shape):
        indices = [i for i in range(size) if wanted.issuperset(elements.take(i, axis).flat)]
        if len(indices) < size and set(elements.take(indices, axis).flat) == wanted:
            return Share(axis, tuple(indices))
    return None


@settings(derandomize=True, deadline=None)
@given(st.data())
def test_slices_are_found_where_there_are_any(data: st.DataObject) -> None:
    sizes = data.draw(SIZES)
    shape, other = data.draw(joined(sizes)), data.draw(joined(sizes))
    axis = data.draw(st.integers(0, len(shape) - 1))
    indices = tuple(sorted(data.draw(st.sets(st.integers(0, shape[axis] - 1), min_size=1))))
    wanted = set(np.arange(prod(shape)).reshape(shape).take(indices, axis).flat)
    found = same_elements(shape, Share(axis, indices), other)
    assert found == (slices_of(other, wanted) if len(indices) < shape[axis] else None)
