"""Programs to solve in tests: small random ones, and their brute force.

`python -m tests.device.programs --count 1000 --seed 0` compares the solver with brute force.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgetune.planning.program import Limit, Maximum, Program, Term, members, total
from edgetune.planning.solution import Solution
from edgetune.planning.solve import solve

MOST_CANDIDATES = 16
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Hidden:
    """Separates `limits`. How much it tells at a time: all, the first, or the most violated.

    fractional: whether it separates fractional selections too.
    """

    program: Program
    limits: tuple[Limit, ...]
    tells: str = "all"
    fractional: bool = True

    def violated(self, selection: int) -> Sequence[Limit]:
        values = [1.0 if selection >> i & 1 else 0.0 for i in range(len(self.program.scores))]
        return self._told(values)

    def violated_fractionally(self, values: Sequence[float]) -> Sequence[Limit]:
        return self._told(values) if self.fractional else ()

    def _told(self, values: Sequence[float]) -> Sequence[Limit]:
        excess = [(_extent(self.program, limit, values) - limit.bound) for limit in self.limits]
        found = [i for i, value in enumerate(excess) if value > 0]
        if self.tells == "first":
            found = found[:1]
        if self.tells == "worst":
            found = sorted(found, key=lambda i: -excess[i])[:1]
        return [self.limits[i] for i in found]


@dataclass(frozen=True)
class Case:
    """A program, what its separation hides, and what exhaustion finds."""

    name: str
    program: Program
    separation: Hidden

    @property
    def limits(self) -> tuple[Limit, ...]:
        return (*self.program.limits, *self.separation.limits)


def brute_force(case: Case) -> tuple[float, float]:
    """(objective, tie-break cost) of the best of all selections, equal within 1e-9."""
    program = case.program
    selections = np.arange(1 << len(program.scores))
    allowed = np.ones(len(selections), bool)
    for group in program.exclusive:
        chosen = selections & group
        allowed &= (chosen & (chosen - 1)) == 0
    maxima = [np.max([_totals(t, selections) for t in sums], axis=0) for sums in program.maxima]
    for limit in case.limits:
        value = _totals(limit.terms, selections)
        for k in limit.maxima:
            value = value + maxima[k]
        allowed &= value <= limit.bound
    scores = sum(s * (selections >> i & 1) for i, s in enumerate(program.scores))
    best = float(np.max(scores[allowed]))
    tied = allowed & (scores >= best - 1e-9 * best)
    return best, float(np.min(_totals(program.tie_break, selections[tied])))


def disagreement(case: Case, solution: Solution) -> str:
    """What is wrong with `solution` as the proven optimum of `case`; empty when nothing is."""
    objective, cost = brute_force(case)
    found = total(case.program.tie_break, solution.selected)
    chosen = [solution.selected & group for group in case.program.exclusive]
    wrong = {
        "it violates a limit": bool(case.program.violated(case.limits, solution.selected)),
        "it selects two of a group": any(group & (group - 1) for group in chosen),
        f"{solution.objective} is not {objective}": not _equal(solution.objective, objective),
        f"the tie-break cost {found} is not {cost}": not _equal(found, cost),
        "it is not proven": (solution.gap, solution.out_of_time) != (0.0, False),
        f"its bound is {solution.bound}": not _equal(solution.bound, objective),
    }
    return "; ".join(text for text, holds in wrong.items() if holds)


def _equal(value: float, expected: float) -> bool:
    return abs(value - expected) <= 1e-9 * expected


def _totals(terms: Sequence[Term], selections: npt.NDArray[np.int64]) -> Floats:
    found = np.zeros(len(selections))
    for term in terms:
        found += term.amount * ((selections & term.any_of) != 0)
    return found


def _extent(program: Program, limit: Limit, values: Sequence[float]) -> float:
    def total(terms: Sequence[Term]) -> float:
        return sum(t.amount * max(values[i] for i in members(t.any_of)) for t in terms)

    return total(limit.terms) + sum(
        max(total(terms) for terms in program.maxima[k]) for k in limit.maxima
    )


def random_cases(count: int, seed: int) -> Iterator[Case]:
    """Small programs whose amounts are small multiples of a power of two: every sum is exact."""
    for number in range(count):
        yield _random_case(f"{seed}.{number}", random.Random(f"{seed}.{number}"))


def _random_case(name: str, draw: random.Random) -> Case:
    count = draw.randint(1, MOST_CANDIDATES)
    masks = _masks(count, draw)
    exclusive = []
    if draw.random() < 0.7:
        width = draw.randint(2, 5)
        exclusive = [((1 << width) - 1) << i for i in range(0, count, width)]
        exclusive = [group & ((1 << count) - 1) for group in exclusive]
        if draw.random() < 0.3:  # overlapping groups
            exclusive.append(draw.choice(masks))
    rich = draw.choice((3, 20, 1000))  # few different scores make ties
    scores = tuple(float(max(0, draw.randint(-1, rich))) for _ in range(count))
    if draw.random() < 0.3:
        scores = tuple(score * draw.random() for score in scores)

    def terms(most: int, unit: float) -> tuple[Term, ...]:
        bits = draw.choice((2, 5, 20, 40))
        return tuple(
            Term(unit * (draw.getrandbits(bits) >> draw.randint(0, bits)), draw.choice(masks))
            for _ in range(draw.randint(1, most))
        )

    units = {name: draw.choice((1.0, 2.0**-20, 2.0**20)) for name in ("memory", "time", "energy")}
    maxima: list[Maximum] = [
        tuple(terms(4, units["memory"]) for _ in range(draw.randint(1, 3)))
        for _ in range(draw.randint(0, 2))
    ]
    program = Program(scores, tuple(exclusive), tuple(maxima), (), terms(8, 0.25))

    density = draw.choice((0.2, 0.4, 0.7))
    within = sum(1 << i for i in range(count) if draw.random() < density)

    def limit(name: str, most: int) -> Limit:
        used = range(len(maxima)) if name == "memory" and draw.random() < 0.6 else ()
        found = Limit(name, 0.0, terms(most, units[name]), tuple(used))
        # Exactly what a selection costs, or a little less or more.
        selection = within | 1 << draw.randrange(count) if draw.random() < 0.3 else within
        off = draw.choice((-1, -0.25, 0, 0, 0, 0.5, 2))
        bound = program.value(found, selection) + units[name] * off
        return replace(found, bound=max(0.0, bound))

    shown = [limit(name, 20) for name in ("time", "energy") if draw.random() < 0.6]
    shown += [limit("memory", 12) for _ in range(draw.randint(0, 3))]
    hidden = tuple(limit("memory", 12) for _ in range(draw.randint(0, 12)))
    program = replace(program, limits=tuple(shown))
    tells = draw.choice(("all", "first", "worst"))
    return Case(name, program, Hidden(program, hidden, tells, draw.random() < 0.7))


def _masks(count: int, draw: random.Random) -> list[int]:
    """Singles, prefixes, prefixes with some more, and anything."""
    singles = [1 << i for i in range(count)]
    prefixes = [(1 << i + 1) - 1 for i in range(count)]
    more = [prefix | draw.choice(singles) for prefix in prefixes]
    anything = [draw.randrange(1, 1 << count) for _ in range(count)]
    kinds = draw.choice(
        ((singles, prefixes), (singles, prefixes, more), (anything,), (singles, more, anything))
    )
    return [mask for kind in kinds for mask in kind]


def main() -> int:
    """Solve random programs and print those on which the solver and brute force disagree."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    wrong = 0
    for case in random_cases(options.count, options.seed):
        problem = disagreement(case, solve(case.program, case.separation))
        if problem:
            wrong += 1
            print(f"{case.name}: {problem}")
    print(f"{options.count - wrong} of {options.count} equal to brute force")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
