"""A loss appended to an ONNX graph in primitives.

Under the contract of edgetune.nouns.loss: inputs `targets` and `scale`, first output
`sum_n scale[n] * l[n]`, then `correct` where that has a meaning, then the model's own outputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgetune.errors import ExportError, nearest, raise_all
from edgetune.nouns.loss import LossSpec

Array = npt.NDArray[Any]

_LOSSES = ("cross_entropy", "mean_squared_error", "mean_absolute_error", "binary_cross_entropy")


def attach_loss(
    model: onnx.ModelProto, loss: LossSpec, output: str | None = None
) -> onnx.ModelProto:
    """A copy of `model` with `loss` of its `output` (the first when None) in front of its outputs.

    Adds the inputs `targets` (the output's shape, without the class dimension for cross entropy)
    and `scale` (float32, (batch,)). Raises ExportError when the loss or the shapes cannot serve.
    """
    if loss.kind not in _LOSSES:
        raise ExportError(
            f"a {loss.kind} loss cannot be attached to an .onnx model: expected one of "
            f"{', '.join(_LOSSES)}"
        )
    result = onnx.ModelProto()
    result.CopyFrom(onnx.shape_inference.infer_shapes(model))
    prediction = _find_output(result, output)
    shape = _fixed_shape(prediction)
    _check_free_names(result)
    writer = _LossWriter(result.graph, prediction.name, shape)
    if loss.kind == "cross_entropy":
        outputs = writer.cross_entropy(loss)
    else:
        outputs = writer.element_wise(loss.kind)
    own = list(result.graph.output)
    del result.graph.output[:]
    result.graph.output.extend([*outputs, *own])
    return result


def _find_output(model: onnx.ModelProto, output: str | None) -> onnx.ValueInfoProto:
    outputs: dict[str, onnx.ValueInfoProto] = {value.name: value for value in model.graph.output}
    name = next(iter(outputs), "") if output is None else output
    if name not in outputs:
        raise ExportError(f"the model has no output {name!r}{nearest(name, outputs)}")
    return outputs[name]


def _fixed_shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    kind = value.type.tensor_type
    dims = [d.dim_value if d.HasField("dim_value") else 0 for d in kind.shape.dim]
    if kind.elem_type != TensorProto.FLOAT or not dims or 0 in dims:
        name = TensorProto.DataType.Name(kind.elem_type).lower()
        found = ", ".join(str(dim) if dim else "?" for dim in dims)
        raise ExportError(
            f"the output {value.name!r} is {name}[{found}]: a loss needs float32 of a fixed shape "
            "that starts with the micro-batch"
        )
    return tuple(dims)


def _check_free_names(model: onnx.ModelProto) -> None:
    graph = model.graph
    taken = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    taken.update(name for node in graph.node for name in node.output)
    problems = [
        f"the model has a value called {name!r}, which the loss needs: rename it"
        for name in ("targets", "scale", "loss", "correct")
        if name in taken
    ]
    raise_all(ExportError, "cannot attach the loss", problems)


class _LossWriter:
    """Appends the nodes of a loss to a graph. Names start with `loss/`."""

    def __init__(self, graph: onnx.GraphProto, prediction: str, shape: tuple[int, ...]) -> None:
        self._graph, self._prediction, self._shape = graph, prediction, shape

    def cross_entropy(self, loss: LossSpec) -> list[onnx.ValueInfoProto]:
        """Prediction (batch, classes, ...), int64 targets (batch, ...)."""
        if len(self._shape) < 2:
            raise ExportError(f"cross entropy takes (batch, classes, ...), found {self._shape}")
        classes = self._shape[1]
        if loss.classes not in (None, classes):
            raise ExportError(
                f"the model predicts {classes} classes, and the loss has {loss.classes}"
            )
        self._inputs(TensorProto.INT64, self._shape[:1] + self._shape[2:])
        per_class = (1, classes, *[1] * (len(self._shape) - 2))
        indices = self._constant("classes", np.arange(classes).reshape(per_class))
        axis = self._constant("class_axis", np.array([1]))
        column = self._node("Unsqueeze", ["targets", axis], "column")
        hit = self._node("Cast", [self._node("Equal", [column, indices], "is")], "hit", to=1)
        weights = self._constant("weights", _class_weights(loss, classes).reshape(per_class))
        weighted = self._node("Mul", [hit, weights], "weighted")
        log = self._node("LogSoftmax", [self._prediction], "log", axis=1)
        terms = self._node("Neg", [self._node("Mul", [log, weighted], "picked")], "terms")
        self._reduce(terms)
        best = self._node("ArgMax", [self._prediction], "best", axis=1, keepdims=0)
        return [self._loss_output(), self._correct("Equal", [best, "targets"])]

    def element_wise(self, kind: str) -> list[onnx.ValueInfoProto]:
        """Prediction and float32 targets of the same shape."""
        self._inputs(TensorProto.FLOAT, self._shape)
        if kind == "binary_cross_entropy":
            self._reduce(self._logistic_terms())
            zero = self._constant("zero_logit", np.float32(0))
            half = self._constant("half", np.float32(0.5))
            guess = self._node("Greater", [self._prediction, zero], "guess")
            truth = self._node("Greater", ["targets", half], "truth")
            return [self._loss_output(), self._correct("Equal", [guess, truth])]
        error = self._node("Sub", [self._prediction, "targets"], "error")
        squared = kind == "mean_squared_error"
        inputs = [error, error] if squared else [error]
        self._reduce(self._node("Mul" if squared else "Abs", inputs, "terms"))
        return [self._loss_output()]

    def _logistic_terms(self) -> str:
        """max(x, 0) - x * t + log(1 + exp(-|x|)), which does not overflow."""
        x = self._prediction
        zero, one = self._constant("zero", np.float32(0)), self._constant("one", np.float32(1))
        positive = self._node("Max", [x, zero], "positive")
        linear = self._node("Sub", [positive, self._node("Mul", [x, "targets"], "xt")], "linear")
        size = self._node("Neg", [self._node("Abs", [x], "abs")], "minus_abs")
        above = self._node("Add", [self._node("Exp", [size], "exp"), one], "above_one")
        return self._node("Add", [linear, self._node("Log", [above], "tail")], "terms")

    def _inputs(self, kind: int, shape: tuple[int, ...]) -> None:
        targets = helper.make_tensor_value_info("targets", kind, shape)
        scale = helper.make_tensor_value_info("scale", TensorProto.FLOAT, self._shape[:1])
        self._graph.input.extend([targets, scale])

    def _reduce(self, terms: str) -> None:
        """Sum the terms of each sample, then the samples by their scale, into `loss`."""
        sums = terms
        if len(self._shape) > 1:
            axes = self._constant("axes", np.arange(1, len(self._shape)))
            sums = self._node("ReduceSum", [terms, axes], "per_sample", keepdims=0)
        scaled = self._node("Mul", [sums, "scale"], "scaled")
        self._append("ReduceSum", [scaled], "loss", keepdims=0)

    def _correct(self, compare: str, inputs: list[str]) -> onnx.ValueInfoProto:
        """Right predictions of the samples whose scale is not 0: padding does not count."""
        right = self._node(compare, inputs, "right")
        nothing = self._constant("nothing", np.float32(0))
        counts = self._node("Not", [self._node("Equal", ["scale", nothing], "pads")], "counts")
        rank = len(_shape_of(self._graph, "targets"))
        if rank > 1:
            spread = self._constant("spread", np.arange(1, rank))
            counts = self._node("Unsqueeze", [counts, spread], "counts_everywhere")
        counted = self._node("And", [right, counts], "counted")
        whole = self._node("Cast", [counted], "whole", to=TensorProto.INT64)
        self._append("ReduceSum", [whole], "correct", keepdims=0)
        return helper.make_tensor_value_info("correct", TensorProto.INT64, [])

    def _loss_output(self) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info("loss", TensorProto.FLOAT, [])

    def _constant(self, name: str, value: npt.ArrayLike) -> str:
        array = np.asarray(value)
        self._graph.initializer.append(numpy_helper.from_array(array, f"loss/{name}"))
        return f"loss/{name}"

    def _node(
        self,
        kind: str,
        inputs: list[str],
        name: str,
        *,
        axis: int | None = None,
        keepdims: int | None = None,
        to: int | None = None,
    ) -> str:
        self._append(kind, inputs, f"loss/{name}", axis=axis, keepdims=keepdims, to=to)
        return f"loss/{name}"

    def _append(
        self,
        kind: str,
        inputs: list[str],
        output: str,
        *,
        axis: int | None = None,
        keepdims: int | None = None,
        to: int | None = None,
    ) -> None:
        node = helper.make_node(kind, inputs, [output], output, axis=axis, keepdims=keepdims, to=to)
        self._graph.node.append(node)


def _shape_of(graph: onnx.GraphProto, name: str) -> list[int]:
    (value,) = [value for value in graph.input if value.name == name]
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def _class_weights(loss: LossSpec, classes: int) -> Array:
    """(classes,) float32; the class to ignore, where it is one, weighs nothing."""
    weights = np.asarray(loss.class_weights or np.ones(classes), np.float32).copy()
    if loss.ignore_index is not None and 0 <= loss.ignore_index < classes:
        weights[loss.ignore_index] = 0
    return weights
