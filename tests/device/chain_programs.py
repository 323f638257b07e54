"""Programs as long as real ones: a step of a chain of residual blocks, all shares as candidates.

`python -m tests.device.chain_programs --candidates 10000 --gap 0.01` solves some and prints the gap
and the seconds of each.

Buffers live from one moment of the step to another as long as any of some candidates needs them;
the memory at each of thousands of moments is limited, and separated lazily.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgetune.planning.program import Limit, Program, Term, members, total
from edgetune.planning.solve import solve

# Of every layer: the bias, the whole weight, shares of its input and of its output channels.
_SHARES = (("in", 2), ("in", 4), ("in", 8), ("out", 2), ("out", 4), ("out", 8))
PER_LAYER = 2 + len(_SHARES)


@dataclass(frozen=True)
class Life:
    """`amount` bytes from moment `start` to `stop` (excluded) if any of `any_of` is selected."""

    start: int
    stop: int
    amount: float
    any_of: int


class Moments:
    """Separates the memory of every moment: the worst one of each of some stretches of time."""

    def __init__(self, lives: Sequence[Life], count: int, bound: float, told: int = 16) -> None:
        self.lives = lives
        self.count = count
        self.bound = bound
        self.size = max(life.any_of.bit_length() for life in lives)
        self._stretches = np.array_split(np.arange(count), told)
        masks = sorted({life.any_of for life in lives}, key=lambda mask: (mask.bit_count(), mask))
        number = {mask: i for i, mask in enumerate(masks)}
        self._of_life = np.array([number[life.any_of] for life in lives])
        self._start = np.array([life.start for life in lives])
        self._stop = np.array([life.stop for life in lives])
        self._amount = np.array([life.amount for life in lives])
        # A mask's extent follows from that of a smaller one inside it and the few other members.
        self._parts: list[tuple[int, list[int]]] = []
        for i, mask in enumerate(masks):
            inside = i - 1 if i and masks[i - 1] & ~mask == 0 else -1
            self._parts.append((inside, members(mask & ~masks[inside] if inside >= 0 else mask)))

    def loads(self, values: Sequence[float]) -> npt.NDArray[np.float64]:
        extents: list[float] = []
        for inside, others in self._parts:
            most = max((values[i] for i in others), default=0.0)
            extents.append(max(most, extents[inside]) if inside >= 0 else most)
        extent = np.array(extents)
        amount = self._amount * extent[self._of_life]
        changes = np.zeros(self.count + 1)
        np.add.at(changes, self._start, amount)
        np.add.at(changes, self._stop, -amount)
        return np.cumsum(changes)[: self.count]

    def violated(self, selection: int) -> Sequence[Limit]:
        bits = f"{selection:0{self.size}b}"[::-1]
        return self.violated_fractionally([float(bit) for bit in bits])

    def violated_fractionally(self, values: Sequence[float]) -> Sequence[Limit]:
        loads = self.loads(values)
        worst = [stretch[np.argmax(loads[stretch])] for stretch in self._stretches]
        return [self.limit_at(int(t)) for t in worst if loads[t] > self.bound]

    def limit_at(self, moment: int) -> Limit:
        alive = [life for life in self.lives if life.start <= moment < life.stop]
        return Limit("memory", self.bound, tuple(Term(a.amount, a.any_of) for a in alive))


def chain_program(
    candidates: int,
    memory_share: float,
    time_share: float | None,
    seed: int,
    moments_per_layer: int = 24,
) -> tuple[Program, Moments]:
    """A program of about `candidates` candidates.

    memory_share, time_share: the budgets, as a share of what training everything takes.
    """
    draw = random.Random(seed)
    layers = -(-candidates // PER_LAYER)
    lives: list[Life] = []
    times: list[Term] = []
    scores: list[float] = []
    exclusive: list[int] = []
    end = layers * (1 + moments_per_layer)
    block_start = 0
    width = 2.0**14
    # How unequal the layers' scores are, how they follow sizes, whether early or late ones lead.
    spread, size_power = draw.choice((0.1, 0.5, 1.2)), draw.choice((0, 0.5, 1))
    tilt = draw.uniform(-1, 1)
    for layer in range(layers):
        depth = layer / layers
        kernel = draw.choice((1, 1, 9))
        activation = 4 * round(width * draw.uniform(0.5, 2) * 8 ** (1 - 2 * depth))
        weight = 4 * round(0.02 * kernel * width * draw.uniform(0.5, 2) * 12 ** (2 * depth))
        bias = 4 * round((weight / kernel) ** 0.5)
        first = layer * PER_LAYER
        before = (1 << first) - 1  # everything in earlier layers
        all_here = ((1 << PER_LAYER) - 1) << first
        whole = 1 << first + 1
        outs = sum(1 << first + 2 + k for k, s in enumerate(_SHARES) if s[0] == "out")
        exclusive.append(all_here ^ (1 << first))
        importance = draw.lognormvariate(0, spread) * weight**size_power * 8 ** (tilt * depth)
        flops = activation * kernel * draw.uniform(8, 32)
        scores += [importance * draw.uniform(0.01, 0.2), importance]
        scores += [importance * (1 / n) ** draw.uniform(0.3, 0.8) for _, n in _SHARES]
        # Backward of this layer, in moments: activation, bias, the shares, the input's gradient.
        start = layers + (layers - 1 - layer) * moments_per_layer
        steps = np.linspace(start + 2, start + moments_per_layer - 3, PER_LAYER).astype(int)
        lives.append(Life(layer, start + 1, activation / 4, before | all_here))  # boolean mask
        readers = 0  # candidates that still need the gradient of this layer's output
        for number in range(PER_LAYER - 1, -1, -1):
            readers |= 1 << first + number
            since = start - 1 if number == 0 else int(steps[number - 1])
            lives.append(Life(since, int(steps[number]), activation, before | readers))
        lives.append(Life(int(steps[-1]), start + moments_per_layer, activation, before))
        kept = whole | outs
        for number in range(PER_LAYER - 1, 0, -1):  # the kept activation, till its last reader
            mask = kept & -(1 << first + number)
            since = layer if number == 1 else int(steps[number - 1])
            if mask:
                lives.append(Life(since, int(steps[number]), activation, mask))
        sizes = [bias, weight, *(weight // n for _, n in _SHARES)]
        for number, size in enumerate(sizes):
            candidate = 1 << first + number
            lives.append(Life(0, end, 2 * size, candidate))  # optimizer
            lives.append(Life(int(steps[number]), end, size, candidate))  # gradient
            if number:
                workspace = activation * draw.choice((0, 0, 1, 3))
                lives.append(Life(int(steps[number]), int(steps[number]) + 1, workspace, candidate))
                times.append(Term(flops / (weight / size) / 1e9, candidate))
        for number, (kind, n) in enumerate(_SHARES):
            if kind == "in":
                here = 1 << first + 2 + number
                lives.append(Life(layer, int(steps[2 + number]), activation // n, here))
        if draw.random() < 0.3:  # a residual block ends: its gradient waits for the block's start
            waits = layers + (layers - 1 - block_start) * moments_per_layer
            earlier = (1 << block_start * PER_LAYER) - 1
            if earlier:
                lives.append(Life(start, waits, activation, earlier))
            block_start = layer
        times.append(Term(activation / 1e9, before | all_here))
        times.append(Term(activation / 4e9, all_here))
        if before:
            times.append(Term(flops / 1e9, before))
    lives = [life for life in lives if life.amount and life.start < life.stop and life.any_of]
    free = Moments(lives, end, 0.0)
    everything = [1.0 if i % PER_LAYER < 2 else 0.0 for i in range(layers * PER_LAYER)]
    peak = float(free.loads(everything).max())
    limits: list[Limit] = []
    if time_share is not None:
        trained = sum(1 << i for i, value in enumerate(everything) if value)
        full = total(times, trained)
        limits.append(Limit("time", time_share * full, tuple(times)))
    program = Program(tuple(scores), tuple(exclusive), (), tuple(limits), tuple(times))
    return program, Moments(lives, end, float(round(memory_share * peak)))


def main() -> None:
    """Solve chains with several budgets, and print what is certified and how long it takes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--candidates", type=int, default=500)
    parser.add_argument("--gap", type=float, default=0.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    for number, (memory, seconds) in enumerate(((0.3, None), (0.6, None), (0.5, 0.6))):
        program, moments = chain_program(options.candidates, memory, seconds, number)
        began = time.monotonic()
        solution = solve(program, moments, options.gap, options.seconds)
        print(
            f"{len(program.scores)} candidates, memory {memory:.0%}"
            f"{'' if seconds is None else f', time {seconds:.0%}'}: gap {solution.gap:.2%} in "
            f"{time.monotonic() - began:.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
