"""Random step graphs from a seed, without hypothesis: for runs of thousands."""

from __future__ import annotations

import random

from edgetune.nouns.candidate import Candidate, Share
from edgetune.nouns.step_graph import Operation, StepGraph

_SIZES = range(4, 260, 4)
_KINDS = ("matmul", "convolution", "depthwise")


def random_step_graph(generator: random.Random, most_candidates: int) -> StepGraph:
    """Layers with residual connections, each with a weight, sometimes a bias, sometimes shares."""
    draft = _Draft(generator, most_candidates)
    x = "x0"
    for layer in range(1, generator.randint(1, 6) + 1):
        x = draft.layer(layer, x)
    return draft.finished(x)


class _Draft:
    def __init__(self, generator: random.Random, most_candidates: int) -> None:
        self._random, self._left = generator, most_candidates
        self._operations: list[Operation] = []
        self._sizes = {"x0": generator.choice(_SIZES), "y": 4, "scale": 4}
        self._parameters: list[str] = []
        self._candidates: list[Candidate] = []
        self._saved: list[tuple[str, str, str, str, str, list[tuple[str, int]]]] = []

    def layer(self, number: int, x: str) -> str:
        weight, kind = f"w{number}", self._random.choice(_KINDS)
        self._sizes[weight] = 8 * self._random.choice(_SIZES)
        shares = []
        for parts in (2, 4):
            if self._random.random() < 0.4:
                part = self._add("elementwise", [x], f"part{parts} of {x}", self._sizes[x] // parts)
                shares.append((part, parts))
        size = self._random.choice(_SIZES)
        before = self._add(kind, [x, weight], f"p{number}", size)
        bias = ""
        if self._random.random() < 0.6:
            bias = f"b{number}"
            self._sizes[bias] = self._random.choice(_SIZES)
            before = self._add("elementwise", [before, bias], f"s{number}", size, True)
        after = self._add("elementwise", [before], f"x{number}", size, self._random.random() < 0.5)
        earlier = [s[2] for s in self._saved if self._sizes[s[2]] == size]
        if earlier:
            after = self._add("elementwise", [after, earlier[-1]], f"r{number}", size)
        if self._random.random() < 0.3:
            after = self._add("view", [after], f"v{number}", size)
        kept = self._random.choice([before, after])
        self._saved.append((kind, x, after, kept, bias, shares))
        return after

    def finished(self, output: str) -> StepGraph:
        labels = ["y", "scale"]
        self._add("elementwise", [output, *labels], "loss", 4)
        slope = self._add("elementwise", [output, *labels], "d", self._sizes[output])
        groups: list[list[Candidate]] = []
        for number in range(len(self._saved), 0, -1):
            kind, x, _, kept, bias, shares = self._saved[number - 1]
            weight = f"w{number}"
            inner = self._add("elementwise", [slope, kept], f"e{number}", self._sizes[kept], True)
            found = [self._candidate(kind, weight, weight, [x, inner], self._sizes[weight], None)]
            for part, parts in shares:
                name, size = f"{weight}:in/{parts}", self._sizes[weight] // parts
                found.append(self._candidate(kind, name, weight, [part, inner], size, parts))
            if bias:
                size = self._sizes[bias]
                found.append(self._candidate("elementwise", bias, bias, [inner], size, None))
            turned = self._add("elementwise", [weight], f"turned {weight}", self._sizes[weight])
            slope = self._add(kind, [inner, turned], f"d{number}", self._sizes[x])
            groups.append(found)
        every = [candidate for group in reversed(groups) for candidate in group]
        kept_ones = every[-self._left :]
        return StepGraph(
            batch=1,
            operations=tuple(self._operations),
            tensor_bytes=self._sizes,
            inputs=("x0",),
            labels=("y", "scale"),
            parameters=tuple(dict.fromkeys(c.parameter for c in every)),
            candidates=tuple(kept_ones),
            loss="loss",
            correct="",
            outputs=(output,),
        )

    def _candidate(
        self, kind: str, name: str, parameter: str, inputs: list[str], size: int, parts: int | None
    ) -> Candidate:
        gradient = self._add(kind, inputs, f"gradient:{name}", size)
        share = None if parts is None else Share(1, tuple(range(parts)))
        return Candidate(name, parameter, gradient, share)

    def _add(
        self, kind: str, inputs: list[str], output: str, size: int, in_place: bool = False
    ) -> str:
        self._sizes[output] = size
        flops = 0.0 if kind == "view" else float(sum(self._sizes[name] for name in inputs))
        self._operations.append(
            Operation(f"make {output}", kind, tuple(inputs), (output,), flops, in_place)
        )
        return output
