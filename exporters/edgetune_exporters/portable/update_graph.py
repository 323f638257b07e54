"""The optimizer as an ONNX graph: accumulated gradients and state to new values and state.

The formulas are those of torch.optim (SGD and AdamW: Loshchilov and Hutter, 2019, algorithm 2), and
torch.nn.utils.clip_grad_norm_ for clipping by the global norm. Scalars are computed in double
precision, as PyTorch computes them in Python: 1 - beta2 at step 1 would lose four digits in fp32.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgetune.nouns.bundle_names import ACCUMULATED, NEXT, slot_name
from edgetune.nouns.optimizer import Optimizer
from edgetune.nouns.slices import NO_SHARES, Shares
from edgetune_exporters.lowering.emitter import Attributes, Emitter, model_of

_NONE: Attributes = {}
_SCALARS = ("learning_rate", "step", "clip_norm")


def update_graph(
    optimizer: Optimizer,
    tensors: Sequence[tuple[str, tuple[int, ...]]],
    shares: Shares = NO_SHARES,
) -> onnx.ModelProto:
    """The update of `tensors`, (name, shape) each; of those in `shares` only of these slices.

    Inputs: every value, accumulated gradient and slot by its name (edgetune.nouns.bundle_names);
    double scalars learning_rate, step (1 for the first update), clip_norm (infinity for none) and
    the optimizer's hyperparameters. Outputs: the next values and slots, and grad_norm before
    clipping. Values are whole; gradients and slots have the shape of what is trained.
    """
    emitter = _Update(optimizer, shares)
    trained = [
        (name, shares[name].shape(shape) if name in shares else shape) for name, shape in tensors
    ]
    names = [name for name, _ in tensors]
    coefficient = emitter.clipping([ACCUMULATED + name for name in names])
    for name, shape in tensors:
        rank = len(shape)
        if optimizer.kind == "adamw":
            emitter.adamw(name, ACCUMULATED + name, coefficient, rank)
        else:
            gradient = emitter.op("Mul", [ACCUMULATED + name, emitter.of_rank(coefficient, rank)])
            emitter.sgd(name, gradient, rank)
    slots = [(slot_name(slot, n), shape) for slot in optimizer.slots for n, shape in trained]
    gradients = [(ACCUMULATED + name, shape) for name, shape in trained]
    scalars = [
        helper.make_tensor_value_info(name, TensorProto.DOUBLE, [])
        for name in (*_SCALARS, *optimizer.hyperparameters())
    ]
    changed = [(NEXT + name, shape) for name, shape in (*tensors, *slots)]
    graph = helper.make_graph(
        emitter.nodes,
        "update",
        [_float(*named) for named in (*tensors, *gradients, *slots)] + scalars,
        [_float(*named) for named in changed] + [_float("grad_norm", ())],
        [numpy_helper.from_array(value, name) for name, value in emitter.constants.items()],
    )
    return model_of(graph)


def _float(name: str, shape: Sequence[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


class _Update(Emitter):
    def __init__(self, optimizer: Optimizer, shares: Shares) -> None:
        super().__init__()
        self._shares = shares
        self._nesterov = optimizer.kind == "sgd-nesterov"
        self._momentum = "momentum_buffer" in optimizer.slots

    def result(
        self, kind: str, inputs: Sequence[str], name: str, attributes: Attributes = _NONE
    ) -> str:
        """An operator whose result is a graph output.

        Everything that reads the tensor it replaces is computed before it, so a runtime may bind
        the output to the very buffer of the input.
        """
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def value(self, name: str) -> str:
        """What is trained of a tensor."""
        share = self._shares.get(name)
        if share is None:
            return name
        return self.op("Gather", [name, self.integers(share.indices)], {"axis": share.axis})

    def change(self, name: str, kind: str, inputs: Sequence[str], rank: int) -> None:
        """An operator whose result takes the place of what is trained of a tensor."""
        share = self._shares.get(name)
        if share is None:
            self.result(kind, inputs, NEXT + name)
            return
        slices = self.op(kind, inputs)
        if share.axis == 0:
            rows = self.constant(np.array(share.indices, np.int64)[:, None])
            self.result("ScatterND", [name, rows, slices], NEXT + name)
            return
        # ScatterElements wants an index per element. Its size is taken from the slices at run time,
        # so that it is made when it is needed; int32 takes half the memory.
        places = np.array(share.indices, np.int32).reshape(-1, *[1] * (rank - share.axis - 1))
        spread = self.op("Expand", [self.constant(places), self.op("Shape", [slices])])
        self.result("ScatterElements", [name, spread, slices], NEXT + name, {"axis": share.axis})

    def of_rank(self, scalar: str, rank: int) -> str:
        """A scalar as a tensor of that rank, all dimensions 1.

        A scalar beside [N, C, 1, 1] makes onnxruntime broadcast element by element, 50 times slower
        than with a factor of the same rank (1.19 and 1.32).
        """
        return self.op("Reshape", [scalar, self.integers([1] * rank)])

    def single(self, name: str, rank: int = 0) -> str:
        """A double scalar as float32, to be combined with tensors of that rank."""
        single = self.op("Cast", [name], {"to": TensorProto.FLOAT})
        return self.of_rank(single, rank) if rank else single

    def one_minus(self, name: str) -> str:
        return self.op("Sub", [self.constant(np.float64(1)), name])

    def clipping(self, gradients: Sequence[str]) -> str:
        """The factor min(1, clip_norm / (norm + 1e-6)); the norm is an output too."""
        squares = [self.op("ReduceSumSquare", [g], {"keepdims": 0}) for g in gradients]
        total = squares[0] if len(squares) == 1 else self.op("Sum", squares)
        norm = self.result("Sqrt", [total], "grad_norm")
        bound = self.op("Add", [norm, self.constant(np.float32(1e-6))])
        ratio = self.op("Div", [self.single("clip_norm"), bound])
        return self.op("Min", [ratio, self.constant(np.float32(1))])

    def sgd(self, name: str, gradient: str, rank: int) -> None:
        value = self.value(name)
        decay = self.op("Mul", [value, self.single("weight_decay", rank)])
        direction = self.op("Add", [gradient, decay])
        if self._momentum:
            slot, factor = slot_name("momentum_buffer", name), self.single("momentum", rank)
            kept = self.op("Mul", [slot, factor])
            buffer = self.result("Add", [kept, direction], NEXT + slot)
            ahead = self.op("Mul", [buffer, factor])
            direction = self.op("Add", [direction, ahead]) if self._nesterov else buffer
        step = self.op("Mul", [direction, self.single("learning_rate", rank)])
        self.change(name, "Sub", [value, step], rank)

    def adamw(self, name: str, gradient: str, coefficient: str, rank: int) -> None:
        first, second = slot_name("exp_avg", name), slot_name("exp_avg_sq", name)
        # Scalars are multiplied with each other first: what they would take of every element, a
        # tensor after the other, is what an update takes.
        clipped = self.op("Cast", [coefficient], {"to": TensorProto.DOUBLE})
        taken1 = self.op("Mul", [self.one_minus("beta1"), clipped])
        taken2 = self.op("Mul", [self.op("Sqrt", [self.one_minus("beta2")]), clipped])
        taken = self.op("Mul", [gradient, self.single(taken1, rank)])
        kept = self.op("Mul", [first, self.single("beta1", rank)])
        mean = self.result("Add", [kept, taken], NEXT + first)
        scaled = self.op("Mul", [gradient, self.single(taken2, rank)])
        square = self.op("Mul", [scaled, scaled])
        faded = self.op("Mul", [second, self.single("beta2", rank)])
        variance = self.result("Add", [faded, square], NEXT + second)
        corrected1 = self.one_minus(self.op("Pow", ["beta1", "step"]))
        corrected2 = self.one_minus(self.op("Pow", ["beta2", "step"]))
        bias2 = self.op("Sqrt", [corrected2])
        size = self.op("Mul", [self.op("Div", ["learning_rate", corrected1]), bias2])
        least = self.single(self.op("Mul", ["epsilon", bias2]), rank)
        bound = self.op("Add", [self.op("Sqrt", [variance]), least])
        change = self.op("Mul", [self.op("Div", [mean, bound]), self.single(size, rank)])
        decay = self.one_minus(self.op("Mul", ["learning_rate", "weight_decay"]))
        decayed = self.op("Mul", [self.value(name), self.single(decay, rank)])
        self.change(name, "Sub", [decayed, change], rank)
