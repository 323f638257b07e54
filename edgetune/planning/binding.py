"""Which limits hold the best selection back."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from edgetune.planning.program import Program, Separation
from edgetune.planning.relaxation import Fractional

_CHECKS = 24  # exchanges that are tried


def binding(
    program: Program,
    separation: Separation,
    selected: int,
    live: Sequence[int],
    relaxed: Fractional | None,
) -> tuple[str, ...]:
    """The limits with a price, and those that alone forbid an exchange that scores more.

    An exchange is one candidate more of those that are `live`, or in place of its rivals; those are
    tried at which the relaxation's optimum loses least.
    """
    losses = relaxed.losses if relaxed else [0.0] * len(program.scores)
    prices = relaxed.prices if relaxed else {}
    rivals = program.rivals()
    forbidden: list[set[str]] = []
    for i in sorted(live, key=losses.__getitem__):
        replaced = selected & rivals[i] | selected & 1 << i
        if program.scores[i] > program.score(replaced) and len(forbidden) < _CHECKS:
            forbidden.append(_violated(program, separation, selected ^ replaced | 1 << i))
    found = {name for name, price in prices.items() if price > 0}
    found.update(*(names for names in forbidden if len(names) == 1))
    return tuple(sorted(found or set().union(*forbidden)))


def _violated(program: Program, separation: Separation, selection: int) -> set[str]:
    """Names of limits that `selection` violates; of the separated ones, of the first."""
    violated = program.violated(program.limits, selection)
    separated = itertools.islice(separation.violated(selection), 1)
    return {limit.name for limit in (*violated, *separated)}
