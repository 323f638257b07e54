"""A selection near a fractional one."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def rounded(
    order: Sequence[int],
    run: int,
    rivals: Sequence[int],
    violates: Callable[[int], bool],
    checks: int,
) -> int:
    """Candidates in `order`, in runs of which each fits with those before.

    run: how many are tried together at first. rivals: of every candidate, those of its groups, of
    which one is selected at most. checks: how often it is asked at most whether a selection
    `violates` a limit.
    """
    chosen, position = 0, 0
    for _ in range(checks):
        more = chosen
        for i in order[position : position + run]:
            if not more & rivals[i]:
                more |= 1 << i
        if more == chosen or not violates(more):
            position += run
            run = 2 * run if chosen else 1
            chosen = more
        elif run > 1:
            run //= 2
        else:
            position += 1
    return chosen
