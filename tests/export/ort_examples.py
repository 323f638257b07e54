"""Hand-made ONNX graphs with the same functions in torch, and sessions that train them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from edgetune_exporters.ort_training import write_ort_training
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from edgetune.nouns.budget import Budget
from edgetune.nouns.cost import StepCost
from edgetune.nouns.loss import LossSpec
from edgetune.nouns.manifest import Manifest
from edgetune.nouns.optimizer import Optimizer
from edgetune.nouns.plan import Certificate, UpdatePlan
from edgetune.nouns.selection import Selection
from edgetune.nouns.signature import ArraySpec, Signature
from edgetune.runtime import ort_training_session
from edgetune.runtime.session import MicroBatch
from tests.export.onnx_loss import attach_loss

BATCH, CLASSES = 4, 3
CROSS_ENTROPY = LossSpec("cross_entropy", classes=CLASSES)
Values = dict[str, np.ndarray[Any, Any]]
Node = onnx.NodeProto


def normal(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return (np.random.default_rng([seed, *shape]).standard_normal(shape) * 0.5).astype(np.float32)


@dataclass(frozen=True)
class Example:
    """A hand-made inference graph and the same function in torch."""

    nodes: list[Node]
    parameters: Values
    constants: Values
    inputs: Values
    reference: Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]

    def model(self, opset: int = 18) -> onnx.ModelProto:
        """Input by input, output `y`: float32 [BATCH, CLASSES]."""
        infos = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in self.inputs.items()
        ]
        output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [BATCH, CLASSES])
        tensors = {**self.parameters, **self.constants}
        initializers = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
        graph = helper.make_graph(self.nodes, "forward", infos, [output], initializers)
        return helper.make_model(
            graph, ir_version=9, opset_imports=[helper.make_opsetid("", opset)]
        )

    def loss(self, parameters: Mapping[str, Tensor], batch: MicroBatch) -> Tensor:
        tensors = {name: torch.from_numpy(array) for name, array in batch.inputs.items()}
        output = self.reference(parameters, tensors)
        targets = torch.from_numpy(batch.targets["targets"])
        terms = F.cross_entropy(output, targets, reduction="none")
        return (terms * torch.from_numpy(batch.scale)).sum()


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> Node:
    return helper.make_node(kind, inputs.split(), outputs.split(), f"the_{kind}", **attributes)


def mlp() -> Example:
    return Example(
        [
            node("Gemm", "x fc1.weight fc1.bias", "h", transB=1),
            node("Relu", "h", "r"),
            node("Gemm", "r fc2.weight fc2.bias", "y", transB=1),
        ],
        {
            "fc1.weight": normal(16, 8),
            "fc1.bias": np.zeros(16, np.float32),
            "fc2.weight": normal(CLASSES, 16),
            "fc2.bias": np.zeros(CLASSES, np.float32),
        },
        {},
        {"x": normal(BATCH, 8, seed=1)},
        lambda p, i: F.linear(
            F.linear(i["x"], p["fc1.weight"], p["fc1.bias"]).relu(), p["fc2.weight"], p["fc2.bias"]
        ),
    )


def convolutional() -> Example:
    def reference(p: Mapping[str, Tensor], i: Mapping[str, Tensor]) -> Tensor:
        x = F.conv2d(i["x"], p["stem.weight"], p["stem.bias"], padding=1).clamp(0, 6)
        x = F.conv2d(x, p["depthwise.weight"], p["depthwise.bias"], 2, 1, groups=8)
        return F.linear(F.hardswish(x).mean((2, 3)), p["head.weight"], p["head.bias"])

    return Example(
        [
            node("Conv", "x stem.weight stem.bias", "a", pads=[1, 1, 1, 1]),
            node("Clip", "a zero six", "b"),
            node(
                "Conv",
                "b depthwise.weight depthwise.bias",
                "c",
                group=8,
                pads=[1, 1, 1, 1],
                strides=[2, 2],
            ),
            node("HardSwish", "c", "d"),
            node("GlobalAveragePool", "d", "e"),
            node("Flatten", "e", "f"),
            node("Gemm", "f head.weight head.bias", "y", transB=1),
        ],
        {
            "stem.weight": normal(8, 3, 3, 3),
            "stem.bias": np.zeros(8, np.float32),
            "depthwise.weight": normal(8, 1, 3, 3),
            "depthwise.bias": normal(8),
            "head.weight": normal(CLASSES, 8),
            "head.bias": np.zeros(CLASSES, np.float32),
        },
        {"zero": np.float32(0).reshape(()), "six": np.float32(6).reshape(())},
        {"x": normal(BATCH, 3, 8, 8, seed=1) * 4},
        reference,
    )


def attention() -> Example:
    def reference(p: Mapping[str, Tensor], i: Mapping[str, Tensor]) -> Tensor:
        x = F.layer_norm(i["x"], (8,), p["norm.weight"], p["norm.bias"])
        q, k, v = x @ p["q"], x @ p["k"], x @ p["v"]
        mixed = torch.softmax(q @ k.transpose(1, 2) / 8**0.5, -1) @ v
        return (mixed + i["x"]).mean(1) @ p["head.weight"].T

    return Example(
        [
            node("LayerNormalization", "x norm.weight norm.bias", "n", axis=-1),
            *(node("MatMul", f"n {name}", f"n_{name}") for name in "qkv"),
            node("Transpose", "n_k", "kt", perm=[0, 2, 1]),
            node("MatMul", "n_q kt", "s"),
            node("Div", "s root", "scaled"),
            node("Softmax", "scaled", "w"),
            node("MatMul", "w n_v", "m"),
            node("Add", "m x", "residual"),
            node("ReduceMean", "residual one", "pooled", keepdims=0),
            node("Transpose", "head.weight", "ht", perm=[1, 0]),
            node("MatMul", "pooled ht", "y"),
        ],
        {
            "norm.weight": np.ones(8, np.float32),
            "norm.bias": np.zeros(8, np.float32),
            **{name: normal(8, 8, seed=ord(name)) for name in "qkv"},
            "head.weight": normal(CLASSES, 8),
        },
        {"root": np.float32(8**0.5).reshape(()), "one": np.array([1])},
        {"x": normal(BATCH, 5, 8, seed=1)},
        reference,
    )


def embedding() -> Example:
    return Example(
        [
            node("Gather", "table tokens", "e"),
            node("ReduceMean", "e one", "pooled", keepdims=0),
            node("Tanh", "pooled", "t"),
            node("Gemm", "t head.weight head.bias", "y", transB=1),
        ],
        {
            "table": normal(11, 6),
            "head.weight": normal(CLASSES, 6),
            "head.bias": np.zeros(CLASSES, np.float32),
        },
        {"one": np.array([1])},
        {"tokens": np.random.default_rng(1).integers(0, 11, (BATCH, 5))},
        lambda p, i: F.linear(
            F.embedding(i["tokens"], p["table"]).mean(1).tanh(), p["head.weight"], p["head.bias"]
        ),
    )


EXAMPLES = {"mlp": mlp, "conv": convolutional, "attention": attention, "embedding": embedding}


def batch_of(example: Example, seed: int = 0) -> MicroBatch:
    generator = np.random.default_rng(seed)
    order = generator.permutation(BATCH)
    return MicroBatch(
        {name: array[order] for name, array in example.inputs.items()},
        {"targets": generator.integers(0, CLASSES, BATCH)},
        np.array([0.25, 0.5, 0.125, 0.25], np.float32),
    )


def manifest_of(example: Example, trainable: tuple[str, ...], optimizer: Optimizer) -> Manifest:
    cost = StepCost(0, 0, 0, 0, 0, "", 0.0, 0, None, None)
    plan = UpdatePlan(
        "generic-x86", Selection(trainable), BATCH, BATCH, optimizer, Budget(), cost,
        Certificate("patterns", 0.0), 1, 1,
    )  # fmt: skip
    inputs = tuple(ArraySpec(n, str(a.dtype), a.shape[1:]) for n, a in example.inputs.items())
    signature = Signature(
        inputs, (ArraySpec("targets", "int64", ()),), (ArraySpec("y", "float32", (CLASSES,)),)
    )
    return Manifest("ort-training", signature, CROSS_ENTROPY, plan, (), (), {})


def session_of(
    example: Example,
    folder: Path,
    trainable: tuple[str, ...] = (),
    optimizer: Optimizer = Optimizer(),  # noqa: B008  (frozen)
) -> ort_training_session.OrtTrainingSession:
    folder.mkdir(exist_ok=True)
    trainable = trainable or tuple(example.parameters)
    forward = attach_loss(example.model(), CROSS_ENTROPY)
    write_ort_training(forward, trainable, optimizer, folder)
    manifest = manifest_of(example, trainable, optimizer)
    return ort_training_session.OrtTrainingSession(folder, manifest, "digest")


def torch_parameters(example: Example, trainable: tuple[str, ...] = ()) -> dict[str, Tensor]:
    chosen = trainable or tuple(example.parameters)
    return {
        name: torch.tensor(array, requires_grad=name in chosen)
        for name, array in example.parameters.items()
    }


def with_loss(example: Example) -> onnx.ModelProto:
    return attach_loss(example.model(), CROSS_ENTROPY)
