"""The dense training step as the planner sees it: operations in execution order, tensors in bytes.

The exporter makes one from the lowered ONNX graph (operation names are its node names), so what is
simulated is what is emitted. Everything here is independent of torch and onnx.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgetune.errors import SelectionError, raise_all
from edgetune.nouns.candidate import Candidate
from edgetune.nouns.profile import OPERATOR_CLASSES
from edgetune.nouns.selection import Selection

OPERATION_CLASSES = (*OPERATOR_CLASSES, "view")
"""Which of the device's rates an operation runs at; a view runs at none."""


@dataclass(frozen=True)
class Operation:
    """One node of the step.

    name: unique, the node's name in the ONNX graph.
    operator_class: one of OPERATION_CLASSES; "view" moves no bytes and shares its input's buffer.
    in_place: whether the runtime writes the output over the first input where it is of the same
        size and nothing else reads it later.
    flops: multiply and add counted as two.
    module: the model's module it comes from, "" when none is known.
    workspace_bytes: what its kernel allocates besides while it runs.
    reads_in_part: whether it reads of its first input no more than it writes, as a lookup does.
    int8_weight: whether it multiplies data by a weight, or looks up rows of one, and can do so with
        the weight in 8 bits.
    int8_result: whether it can hand on its result in 8 bits, from inputs in 8 bits.
    groups: of a depthwise convolution, samples times groups: what its kernel does one by one.
    """

    name: str
    operator_class: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    flops: float
    in_place: bool = False
    module: str = ""
    workspace_bytes: int = 0
    reads_in_part: bool = False
    int8_weight: bool = False
    int8_result: bool = False
    groups: int = 0


@dataclass(frozen=True)
class StepGraph:
    """The dense step of `batch` samples: forward, loss and the gradient of every parameter.

    operations: in execution order.
    tensor_bytes: size of every tensor, parameters and constants included.
    inputs: the data tensors the prefix may read; labels: targets and sample scales.
    parameters: tensors that can be trained, whole or in shares. candidates: what can be selected.
    loss, correct: scalar results; outputs: the model's predictions. `correct` may be "".
    """

    batch: int
    operations: tuple[Operation, ...]
    tensor_bytes: Mapping[str, int]
    inputs: tuple[str, ...]
    labels: tuple[str, ...]
    parameters: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    loss: str
    correct: str
    outputs: tuple[str, ...]

    def selected(self, selection: Selection) -> tuple[Candidate, ...]:
        """The candidates that make up `selection`, in its order.

        Raises SelectionError naming what this graph has no gradient for.
        """
        known = {(candidate.parameter, candidate.share): candidate for candidate in self.candidates}
        wanted = [(name, selection.shares.get(name)) for name in selection.trainable]
        missing = [f"{key[0]} has no such gradient" for key in wanted if key not in known]
        raise_all(SelectionError, "cannot train this selection", missing)
        return tuple(known[key] for key in wanted)
