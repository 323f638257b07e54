from __future__ import annotations

import numpy as np
import pytest

from edgetune.nouns.candidate import Share
from edgetune.nouns.plain import from_plain, to_plain
from edgetune.nouns.selection import Selection
from edgetune.nouns.slices import describe_share, put_slices, share_problems, take_slices

WHOLE = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
SHARES = {
    "first axis": (Share(0, (1,)), WHOLE[1:]),
    "middle axis": (Share(1, (0, 2)), WHOLE[:, ::2]),
    "last axis": (Share(2, (0, 1, 3)), WHOLE[:, :, [0, 1, 3]]),
    "all slices": (Share(1, (0, 1, 2)), WHOLE),
    "no share": (None, WHOLE),
}


@pytest.mark.parametrize("case", SHARES)
def test_slices_are_taken_as_copies_and_put_back(case: str) -> None:
    share, expected = SHARES[case]
    found = take_slices(WHOLE, share)
    np.testing.assert_array_equal(found, expected)
    if share is not None:
        assert found.shape == share.shape(WHOLE.shape)
        assert share_problems("w", share, WHOLE.shape) == []
    assert not np.shares_memory(found, WHOLE)
    changed = WHOLE.copy()
    put_slices(changed, share, -found)
    np.testing.assert_array_equal(take_slices(changed, share), -found)
    put_slices(changed, share, found)
    np.testing.assert_array_equal(changed, WHOLE)


@pytest.mark.parametrize("case", ["first axis", "middle axis", "last axis"])
def test_putting_leaves_everything_else_alone(case: str) -> None:
    share, _ = SHARES[case]
    assert share is not None
    changed = WHOLE.copy()
    put_slices(changed, share, np.full(share.shape(WHOLE.shape), -1, np.float32))
    others = [np.delete(array, share.indices, share.axis) for array in (changed, WHOLE)]
    np.testing.assert_array_equal(*others)
    assert (changed == -1).sum() == take_slices(WHOLE, share).size


MISFITS = {
    "axis": (Share(3, (0,)), "w: has slices along axis 3, the tensor is [2, 3, 4]"),
    "axis from behind": (Share(-1, (0,)), "w: has slices along axis -1, the tensor is [2, 3, 4]"),
    "beyond": (Share(1, (0, 3)), "w: there is no slice 3 along axis 1, expected 0 to 2"),
    "negative": (Share(1, (-1, 2)), "w: there is no slice -1 along axis 1, expected 0 to 2"),
    "descending": (Share(2, (1, 0)), "w: the indices of its slices are 1, 0, expected ascending"),
    "twice": (Share(0, (1, 1)), "w: the indices of its slices are 1, 1, expected ascending"),
    "none": (Share(0, ()), "w: the indices of its slices are none, expected ascending"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_what_are_no_slices_of_a_tensor(case: str) -> None:
    share, message = MISFITS[case]
    (problem,) = share_problems("w", share, WHOLE.shape)
    assert problem.startswith(message)


def test_every_index_that_is_outside_is_named() -> None:
    assert len(share_problems("w", Share(2, (-2, 1, 9)), WHOLE.shape)) == 2
    assert len(share_problems("w", Share(2, (7,)), WHOLE.shape)) == 1


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (None, "all of it"),
        (Share(1, (0, 2)), "2 slices along axis 1 (0, 2)"),
        (Share(0, tuple(range(9))), "9 slices along axis 0 (0, 1, 2, 3, ...)"),
    ],
)
def test_a_share_in_words(share: Share | None, words: str) -> None:
    assert describe_share(share) == words


def test_a_selection_with_shares_goes_through_json() -> None:
    selection = Selection(("a", "b"), {"b": Share(1, (0, 5))})
    plain = to_plain(selection)
    assert plain["shares"] == {"b": {"axis": 1, "indices": [0, 5]}}
    assert from_plain(Selection, plain) == selection
    with pytest.raises(ValueError, match=r"Selection.shares.b.indices\[0\] is 'x', expected int"):
        from_plain(Selection, {"trainable": ["b"], "shares": {"b": {"axis": 1, "indices": ["x"]}}})
    # What was written before there were shares.
    assert from_plain(Selection, {"trainable": ["b"]}) == Selection(("b",))
