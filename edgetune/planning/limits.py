"""The program of one dense step: its costs as limits, and the memory at moments as it is asked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from edgetune.nouns.budget import Budget
from edgetune.planning.moments import Level, Moment, fractional_level, selection_level
from edgetune.planning.process_memory import ALLOCATOR_OVERHEAD, BASE_PROCESS_BYTES
from edgetune.planning.program import Limit, Maximum, Program, Term
from edgetune.planning.step_cost import ROUNDING_BYTES, Amounts, StepCosts

MEMORY, STEP_ENERGY, RUN_ENERGY, TIME = "memory", "energy per step", "energy per run", "time"


def program_of(
    costs: StepCosts, scores: Mapping[str, float], budget: Budget
) -> tuple[Program, PeakMemory]:
    """Maximise the summed scores of a step within `budget`; the memory at moments comes lazily.

    scores: by candidate name; candidates without one are never selected. The budget must be one
    that the profile can predict, and that the forward pass alone keeps.
    """
    memory = PeakMemory(costs, budget.memory_bytes)
    program = Program(
        scores=tuple(max(scores.get(c.name, 0.0), 0.0) for c in costs.graph.candidates),
        exclusive=tuple(mask for mask in costs.needs.of_parameter.values() if mask & (mask - 1)),
        maxima=memory.maxima,
        limits=(*memory.phases(), *_duration_limits(costs, budget)),
        tie_break=_split(costs, costs.seconds or costs.operation_flops())[1],
    )
    return program, memory


def _duration_limits(costs: StepCosts, budget: Budget) -> list[Limit]:
    """Time and energy are both proportional to the seconds of a step."""
    watts = costs.profile.load_watts
    seconds = {TIME: budget.step_seconds}
    if watts is not None:
        per_run = watts.value * (budget.run_steps or 1)
        seconds[STEP_ENERGY] = _quotient(budget.energy_joules, watts.value)
        seconds[RUN_ENERGY] = _quotient(budget.run_energy_joules, per_run)
    if not any(bound is not None for bound in seconds.values()):
        return []
    assert costs.seconds is not None
    constant, terms = _split(costs, costs.seconds)
    return [
        Limit(name, bound * (1 + 1e-12) - constant, terms)  # room for rounding in the sums
        for name, bound in seconds.items()
        if bound is not None
    ]


def _quotient(joules: float | None, watts: float) -> float | None:
    return None if joules is None else joules / watts


def _split(costs: StepCosts, amounts: Amounts) -> tuple[float, tuple[Term, ...]]:
    """What every selection costs, and a term for each set of candidates that costs more."""
    constant, terms = 0.0, dict[int, float]()
    for amount, users in amounts:
        if users & costs.needs.always:
            constant += amount
        elif amount and users:
            terms[users] = terms.get(users, 0.0) + amount
    return constant, tuple(Term(amount, users) for users, amount in terms.items())


def _largest(costs: StepCosts, amounts: Amounts) -> tuple[float, Maximum]:
    """The largest that every selection has, and by how much others exceed it, as a maximum."""
    always = max((a for a, users in amounts if users & costs.needs.always), default=0.0)
    excess: dict[int, float] = {}
    for amount, users in amounts:
        if amount > always and users:
            excess[users] = max(excess.get(users, 0.0), amount - always)
    return always, ((), *((Term(amount, users),) for users, amount in excess.items()))


# Numbers of the program's maxima.
_HELD, _WORKSPACE, _UPDATE = 0, 1, 2


class PeakMemory:
    """Memory as limits: phases at once, the thousands of moments of a step as they are asked for.

    bound: in bytes, None for no limit at all. maxima: the program's: what weights and state take
    at any time, the largest workspace of a kernel, the largest update.
    """

    def __init__(self, costs: StepCosts, bound: int | None) -> None:
        self._costs, self._bound = costs, bound
        always = [*costs.operations_bytes(), *costs.weights, *costs.states()]
        constant, held = _split(costs, always)
        self._constant = BASE_PROCESS_BYTES + constant
        self._workspace, workspaces = _largest(costs, costs.workspaces())
        sizes = range(len(costs.graph.candidates))
        updates = tuple((Term(costs.update_bytes(i), 1 << i),) for i in sizes)
        self.maxima: tuple[Maximum, ...] = ((held,), workspaces, updates)
        self._told: dict[tuple[int, int], Limit] = {}  # by boundary and operation
        self._terms: dict[int, dict[int, Term]] = {}  # by candidates and bytes: moments share them

    def phases(self) -> list[Limit]:
        """Loading, the update and a checkpoint, which have no schedule."""
        if self._bound is None:
            return []
        count = len(self._costs.graph.candidates)
        copies = tuple(Term(self._costs.checkpoint_bytes(i), 1 << i) for i in range(count))
        room = self._bound - self._constant + ROUNDING_BYTES
        return [
            Limit(MEMORY, room - self._costs.loading_bytes(), (), (_HELD,)),
            Limit(MEMORY, room, (), (_HELD, _UPDATE)),
            Limit(MEMORY, room, copies, (_HELD,)),
        ]

    def violated(self, selection: int) -> Iterator[Limit]:
        """The moments at which an integral selection exceeds the bound."""
        return self._violated(selection_level(selection | self._costs.needs.always))

    def violated_fractionally(self, values: Sequence[float]) -> Iterator[Limit]:
        """The same for the values of a linear relaxation."""
        always = [0.0] * (self._costs.needs.always.bit_length() - 1 - len(values))
        return self._violated(fractional_level([*values, *always, 1.0]))

    def _violated(self, level: Level) -> Iterator[Limit]:
        return map(self._limit, self._costs.moments.exceeding(level, self._room(level)))

    def _room(self, level: Level) -> float:
        """Bytes of buffers that the rest of what is selected leaves room for."""
        if self._bound is None:
            return math.inf
        held = (
            self._constant
            + self._workspace
            + sum(
                max((_extent(terms, level) for terms in self.maxima[number]), default=0.0)
                for number in (_HELD, _WORKSPACE)
            )
        )
        return (self._bound + ROUNDING_BYTES - held) / ALLOCATOR_OVERHEAD - self._costs.feeds

    def _limit(self, moment: Moment) -> Limit:
        place = moment.boundary, moment.operation
        if place not in self._told:
            self._told[place] = self._limit_at(moment)
        return self._told[place]

    def _limit_at(self, moment: Moment) -> Limit:
        assert self._bound is not None
        always = self._costs.needs.always
        alive, terms = self._costs.feeds, []
        for users, count in self._costs.moments.terms_at(moment).items():
            if users & always:
                alive += count
            else:
                terms.append(self._term(count, users))
        constant = self._constant + self._workspace + ALLOCATOR_OVERHEAD * alive
        room = self._bound + ROUNDING_BYTES - constant
        return Limit(MEMORY, room, tuple(terms), (_HELD, _WORKSPACE))

    def _term(self, count: int, users: int) -> Term:
        known = self._terms.setdefault(users, {})
        if count not in known:
            known[count] = Term(ALLOCATOR_OVERHEAD * count, users)
        return known[count]


def _extent(terms: Sequence[Term], level: Level) -> float:
    return sum(term.amount * level(term.any_of) for term in terms)
