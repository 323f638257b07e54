from __future__ import annotations

import pytest

from edgetune.planning.settled import OPEN, Settled, by_losses, chain, probed

PREFIXES = [(2 << i) - 1 for i in range(8)]
HALF = dict.fromkeys(PREFIXES, 0.5)


@pytest.mark.parametrize(
    ("settled", "any_of", "extent"),
    [
        pytest.param(OPEN, 0b11, None, id="open"),
        pytest.param(Settled(excluded=0b11), 0b11, 0, id="all-are-excluded"),
        pytest.param(Settled(excluded=0b01), 0b11, None, id="one-is-excluded"),
        pytest.param(Settled(included=0b01), 0b11, 1, id="one-is-included"),
        pytest.param(Settled(reached=(0b11,)), 0b111, 1, id="a-set-within-is-reached"),
        pytest.param(Settled(reached=(0b11,)), 0b101, None, id="a-set-partly-within-is-reached"),
    ],
)
def test_the_extent_of_a_set_follows_from_what_is_settled(
    settled: Settled, any_of: int, extent: int | None
) -> None:
    assert settled.extent(any_of) == extent


def test_of_nested_sets_that_are_reached_only_the_smallest_is_kept() -> None:
    assert OPEN.reaching(0b111).reaching(0b11).reaching(0b1111) == Settled(reached=(0b11,))
    assert OPEN.reaching(0b110).reaching(0b11) == Settled(reached=(0b110, 0b11))


def test_a_candidate_that_is_lost_stays_as_it_was_and_its_rivals_go_where_it_is_selected() -> None:
    settled = by_losses(OPEN, [0, 2], [1.0, 0.0, 0.0, 0.5], [0b11, 0b11, 0b100, 0b1000])
    assert settled == Settled(included=0b01, excluded=0b110)


def test_a_chain_leaves_side_branches_out() -> None:
    assert chain([0b1111, 0b0001, 0b1001, 0b0111, 0b0011]) == [0b0001, 0b0011, 0b0111, 0b1111]
    assert chain([]) == []


@pytest.mark.parametrize("least", range(8))
@pytest.mark.parametrize("most", range(8))
def test_probes_find_how_far_every_good_selection_reaches(least: int, most: int) -> None:
    """Those are good whose lowest candidate is from `least` to `most`."""
    asked = 0

    def is_good(settled: Settled) -> bool:
        nonlocal asked
        asked += 1
        reachable = (i for i in range(least, most + 1) if not settled.excluded >> i & 1)
        return any(all(inside >> i for inside in settled.reached) for i in reachable)

    settled = probed(OPEN, HALF, is_good)
    assert asked <= 8
    if least <= most:
        assert settled.excluded == (1 << least) - 1
        assert settled.reached == ((2 << most) - 1,)


def test_what_is_reached_wholly_or_not_at_all_is_not_probed() -> None:
    def is_good(_: Settled) -> bool:
        raise AssertionError

    assert probed(OPEN, {0b1: 0.0, 0b11: 1.0, 0b111: 1 - 1e-9}, is_good) == OPEN
    assert probed(Settled(excluded=0b111), HALF | {0b11111111: 1.0}, lambda _: True).reached == ()
