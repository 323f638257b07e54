"""A graph whose frozen products compute in 8 bits: QuantizeLinear and DequantizeLinear around them.

Static, after Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference" (2018): activations unsigned with a scale and a zero point per
tensor (eq. 1), weights signed and symmetric with a scale per output channel (section 3), biases in
32 bits with the product of both scales (eq. 11). Only standard operators are written: a runtime
fuses the pattern into integer kernels when it loads it, and computes the same where it does not.

Written here because onnxruntime.quantization 1.19, the release that comes with the training API,
stops with a KeyError where only some operators are quantized.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from edgetune_exporters.int8.operations import int8_products, int8_results
from edgetune_exporters.int8.ranges import Ranges
from edgetune_exporters.lowering.emitter import model_of

Floats = npt.NDArray[np.float32]

_UNSIGNED_STEPS, _SIGNED_STEPS = 255, 127
_LEAST_SCALE = 1e-12
_LARGEST_BIAS = 2.0**30


class Int8Rewrite:
    """One graph, and which of its nodes are rewritten.

    frozen: names of the nodes that may be; None for all. `rounded` are the tensors whose ranges
    must be known.
    """

    def __init__(self, model: onnx.ModelProto, frozen: Collection[str] | None = None) -> None:
        self._model = model
        nodes = [n for n in model.graph.node if frozen is None or n.name in frozen]
        self._products = int8_products(model.graph).intersection(n.name for n in nodes)
        results = int8_results(nodes, self._products)
        self._results = results - _clipped_at_once(model.graph, results)
        self.rounded = self._results | {
            n.input[0] for n in nodes if n.name in self._products and n.op_type != "Gather"
        }

    def model(self, ranges: Ranges) -> onnx.ModelProto:
        """The rewritten model."""
        return _Writer(self._model, self._products, self._results, ranges).model()


def _clipped_at_once(graph: onnx.GraphProto, results: Collection[str]) -> set[str]:
    """Results that only a clipping reads, which is then part of what makes them."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {output.name for output in graph.output}
    return {
        name
        for name in results
        if name not in outputs
        and [r.op_type for r in readers.get(name, [])] in (["Clip"], ["Relu"])
        and readers[name][0].output[0] in results
    }


class _Writer:
    def __init__(
        self,
        model: onnx.ModelProto,
        products: Collection[str],
        results: Collection[str],
        ranges: Ranges,
    ) -> None:
        self._source = model
        self._weights = {t.name: t for t in model.graph.initializer}
        self._products, self._results, self._ranges = products, results, ranges
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, npt.NDArray[np.generic]] = {}
        self._rounded: dict[str, str] = {}  # by tensor, its value after rounding

    def model(self) -> onnx.ModelProto:
        outputs = {output.name for output in self._source.graph.output}
        for source in self._source.graph.node:
            node = onnx.NodeProto()
            node.CopyFrom(source)
            name = node.output[0]
            if node.name in self._products:
                lookup = node.op_type == "Gather"
                self._look_up(node) if lookup else self._product(node)
            else:
                node.input[:] = [self._handed_on(tensor) for tensor in node.input]
                self._nodes.append(node)
            if name in self._results:
                if name in outputs:  # the host gets the rounded one under this name
                    node.output[0] = f"{name}.exact"
                    self._round(name, node.output[0], name)
                else:
                    self._round(name, name, f"{name}.rounded")
        read = {tensor for node in self._nodes for tensor in node.input}
        kept = [tensor for tensor in self._source.graph.initializer if tensor.name in read]
        added = [numpy_helper.from_array(value, n) for n, value in self._constants.items()]
        graph = self._source.graph
        return model_of(
            helper.make_graph(self._nodes, graph.name, graph.input, graph.output, [*kept, *added])
        )

    def _handed_on(self, tensor: str) -> str:
        """What others than products read: rounded only where it is handed on in 8 bits."""
        return self._rounded[tensor] if tensor in self._results else tensor

    def _round(self, tensor: str, exact: str, rounded: str) -> str:
        """Round `exact` to 8 bits and back, as the value of `tensor` from here on."""
        scale, zero = _scale_and_zero(*self._ranges[tensor])
        scale_name = self._constant(f"{tensor}.scale", scale)
        zero_name = self._constant(f"{tensor}.zero", zero)
        parameters = [scale_name, zero_name]
        self._emit("QuantizeLinear", [exact, *parameters], f"{tensor}.int8")
        self._emit("DequantizeLinear", [f"{tensor}.int8", *parameters], rounded)
        self._rounded[tensor] = rounded
        return rounded

    def _product(self, node: onnx.NodeProto) -> None:
        data, weight = node.input[0], node.input[1]
        rounded = self._rounded.get(data) or self._round(data, data, f"{data}.rounded")
        values = numpy_helper.to_array(self._weights[weight])
        axis = _output_axis(node, values.ndim)
        scales = _symmetric_scales(values, tuple(i for i in range(values.ndim) if i != axis))
        inputs = [rounded, f"{node.name}.weight.rounded"]
        if len(node.input) > 2:
            bias = numpy_helper.to_array(self._weights[node.input[2]])
            of_data = _scale_and_zero(*self._ranges[data])[0]
            # A channel of tiny weights has a tiny scale, in which its bias must still fit 32 bits.
            scales = np.maximum(scales, np.abs(bias) / (of_data * _LARGEST_BIAS))
            product = (of_data * scales).astype(np.float32)
            exact = np.rint(np.broadcast_to(bias, scales.shape) / product)
            self._dequantized(f"{node.name}.bias", exact.astype(np.int32), product, 0)
            inputs.append(f"{node.name}.bias.rounded")
        shape = [1] * values.ndim
        shape[axis] = len(scales)
        stored = np.rint(values / scales.reshape(shape)).astype(np.int8)
        self._dequantized(f"{node.name}.weight", stored, scales, axis)
        node.input[:] = inputs
        self._nodes.append(node)

    def _dequantized(
        self, name: str, stored: npt.NDArray[np.generic], scales: Floats, axis: int
    ) -> None:
        inputs = [
            self._constant(f"{name}.int8", stored),
            self._constant(f"{name}.scale", scales),
            self._constant(f"{name}.zero", np.zeros(scales.shape, stored.dtype)),
        ]
        self._emit("DequantizeLinear", inputs, f"{name}.rounded", axis=axis)

    def _look_up(self, node: onnx.NodeProto) -> None:
        """Rows of a table: each has a scale of its own, looked up beside it."""
        table, result = node.input[0], node.output[0]
        values = numpy_helper.to_array(self._weights[table])
        scales = _symmetric_scales(values, (1,))[:, None]
        rounded = np.rint(values / scales).astype(np.int8)
        indices = node.input[1]
        rows = [self._constant(f"{table}.int8", rounded), indices]
        self._emit("Gather", rows, f"{result}.int8")
        self._emit("Cast", [f"{result}.int8"], f"{result}.steps", to=onnx.TensorProto.FLOAT)
        self._emit("Gather", [self._constant(f"{table}.scale", scales), indices], f"{result}.scale")
        self._emit("Mul", [f"{result}.steps", f"{result}.scale"], result)

    def _constant(self, name: str, value: npt.NDArray[np.generic] | np.generic) -> str:
        self._constants[name] = np.asarray(value)
        return name

    def _emit(self, kind: str, inputs: Sequence[str], result: str, **attributes: int) -> None:
        node = helper.make_node(kind, inputs, [result], name=f"{kind}:{result}")
        node.attribute.extend(helper.make_attribute(n, v) for n, v in attributes.items())
        self._nodes.append(node)


def _scale_and_zero(least: float, greatest: float) -> tuple[np.float32, np.uint8]:
    """eq. 1 of Jacob et al.: value = scale * (stored - zero)."""
    scale = np.float32(max((greatest - least) / _UNSIGNED_STEPS, _LEAST_SCALE))
    return scale, np.uint8(np.clip(np.rint(-least / scale), 0, _UNSIGNED_STEPS))


def _symmetric_scales(values: Floats, axes: tuple[int, ...]) -> Floats:
    largest = np.abs(values).max(axis=axes)
    scales: Floats = np.maximum(largest / _SIGNED_STEPS, _LEAST_SCALE).astype(np.float32)
    return scales


def _output_axis(node: onnx.NodeProto, rank: int) -> int:
    if node.op_type == "Conv":
        return 0
    transposed: Mapping[str, int] = {a.name: a.i for a in node.attribute}
    return 0 if transposed.get("transB") else rank - 1
