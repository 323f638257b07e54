"""Small random training steps: a chain of layers with its loss and backward, as StepGraphs.

Layer i: x{i} = act(op(x{i-1}, w{i}) + b{i}), sometimes seen through a view or added to an earlier
output of the same size. The backward has what autograd makes: a gradient per parameter, and one per
layer's input, through a transposed copy of the weight. With shares, half of the inputs of a layer
can be trained: what is kept of its input is gathered in the forward, and its product is smaller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from edgetune.nouns.candidate import Candidate, Share
from edgetune.nouns.profile import DeviceProfile, Quantity
from edgetune.nouns.step_graph import Operation, StepGraph

# The same examples in every run, however slow the machine is.
fixed = settings(derandomize=True, deadline=None)

SIZES = st.integers(1, 64).map(lambda n: 4 * n)


def quantity(value: float, unit: str) -> Quantity:
    return Quantity(value, unit, "measured", "made up", "2026")


PROFILE = DeviceProfile(
    id="made-up",
    name="A device of round numbers",
    cpu="none",
    cores=1,
    total_memory_bytes=None,
    usable_memory_bytes=None,
    bandwidth_bytes_per_second=quantity(1000, "byte/s"),
    flops_per_second={
        "convolution": quantity(100, "flop/s"),
        "depthwise": quantity(10, "flop/s"),
        "matmul": quantity(200, "flop/s"),
    },
    dispatch_seconds=quantity(0.5, "s"),
    idle_watts=None,
    load_watts=quantity(2, "W"),
    power_scope="board",
    meter=None,
    notes="",
)


def profile(**changes: Any) -> DeviceProfile:
    return replace(PROFILE, **changes)


class _Step:
    def __init__(self, first: int) -> None:
        self.operations: list[Operation] = []
        self.sizes: dict[str, int] = {"x0": first, "y": 4, "scale": 4}

    def add(
        self, kind: str, inputs: list[str], output: str, size: int, in_place: bool = False
    ) -> str:
        self.sizes[output] = size
        flops = 0.0 if kind == "view" else float(sum(self.sizes[name] for name in inputs))
        self.operations.append(
            Operation(f"make {output}", kind, tuple(inputs), (output,), flops, in_place)
        )
        return output


@st.composite
def step_graphs(draw: st.DrawFn, most_layers: int = 5, shares: bool = False) -> StepGraph:
    """A step of 1 to `most_layers` layers, with shares of some weights if asked."""
    step = _Step(draw(SIZES))
    layers = draw(st.integers(1, most_layers))
    parameters: list[str] = []
    halves: dict[int, str] = {}  # half of a layer's input
    saved: list[tuple[str, str, str, str]] = []  # kind, input, before and after the activation
    x = "x0"
    for i in range(1, layers + 1):
        kind = draw(st.sampled_from(["matmul", "convolution", "depthwise"]))
        step.sizes[f"w{i}"], step.sizes[f"b{i}"] = draw(SIZES), draw(SIZES)
        parameters += [f"w{i}", f"b{i}"]
        size = draw(SIZES)
        if shares and draw(st.booleans()):
            halves[i] = step.add("elementwise", [x], f"h{i}", step.sizes[x] // 2)
        product = step.add(kind, [x, f"w{i}"], f"p{i}", size)
        before = step.add("elementwise", [product, f"b{i}"], f"s{i}", size, in_place=True)
        after = step.add("elementwise", [before], f"x{i}", size, in_place=draw(st.booleans()))
        saved.append((kind, x, before, after))
        if draw(st.booleans()):
            after = step.add("view", [after], f"v{i}", size)
        x = after
    output = x
    step.add("elementwise", [output, "y", "scale"], "loss", 4)
    step.add("elementwise", [output, "y", "scale"], "correct", 4)
    slope = step.add("elementwise", [output, "y", "scale"], f"d{layers}", step.sizes[output])
    gradients: dict[str, str] = {}
    for i in range(layers, 0, -1):
        kind, source, before, after = saved[i - 1]
        kept = draw(st.sampled_from([before, after]))
        inner = step.add("elementwise", [slope, kept], f"e{i}", step.sizes[before], in_place=True)
        gradients[f"b{i}"] = step.add("elementwise", [inner], f"gb{i}", step.sizes[f"b{i}"])
        gradients[f"w{i}"] = step.add(kind, [source, inner], f"gw{i}", step.sizes[f"w{i}"])
        if i in halves:
            size = step.sizes[f"w{i}"] // 2
            gradients[f"w{i}:in/2"] = step.add(kind, [halves[i], inner], f"gh{i}", size)
        turned = step.add("elementwise", [f"w{i}"], f"t{i}", step.sizes[f"w{i}"])
        slope = step.add(kind, [inner, turned], f"d{i - 1}", step.sizes[source])
    return StepGraph(
        batch=1,
        operations=tuple(step.operations),
        tensor_bytes=step.sizes,
        inputs=("x0",),
        labels=("y", "scale"),
        parameters=tuple(parameters),
        candidates=tuple(
            Candidate(name, name.partition(":")[0], gradients[name], _share(name))
            for name in sorted(gradients, key=lambda n: (parameters.index(n.partition(":")[0]), n))
        ),
        loss="loss",
        correct="correct",
        outputs=(output,),
    )


def _share(name: str) -> Share | None:
    return Share(1, (0,)) if ":" in name else None


def in_micro_batches(graph: StepGraph, samples: int) -> StepGraph:
    """The same step for micro-batches of `samples`: what depends on data grows with them."""
    on_data = set(graph.inputs) | set(graph.labels)
    for operation in graph.operations:
        if on_data.intersection(operation.inputs):
            on_data.update(operation.outputs)
    of_weights = {candidate.gradient for candidate in graph.candidates}
    growing = on_data - of_weights
    return replace(
        graph,
        batch=samples,
        operations=tuple(
            replace(o, flops=o.flops * samples) if growing.intersection(o.inputs) else o
            for o in graph.operations
        ),
        tensor_bytes={
            name: size * samples if name in growing else size
            for name, size in graph.tensor_bytes.items()
        },
    )


def makers(graph: StepGraph) -> Mapping[str, Operation]:
    return {name: operation for operation in graph.operations for name in operation.outputs}
