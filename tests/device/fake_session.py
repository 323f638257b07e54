"""A training session in numpy: linear softmax regression with momentum, exact and fast."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetune.data.dataset import Dataset
from edgetune.errors import CheckpointError, DataError, TrainingError
from edgetune.nouns.budget import Budget
from edgetune.nouns.cost import StepCost
from edgetune.nouns.loss import LossSpec
from edgetune.nouns.manifest import Manifest
from edgetune.nouns.optimizer import Optimizer
from edgetune.nouns.plan import Certificate, UpdatePlan
from edgetune.nouns.selection import Selection
from edgetune.nouns.signature import ArraySpec, Signature
from edgetune.runtime.expected_arrays import check_expected_arrays
from edgetune.runtime.session import MicroBatch, MicroResult

Array = npt.NDArray[Any]

FEATURES, CLASSES = 5, 3


def make_manifest(
    batch: int = 8, micro_batch: int = 4, class_weights: tuple[float, ...] | None = None
) -> Manifest:
    cost = StepCost(0, 0, 0, 0, 0, "", 0.0, 0, None, None)
    plan = UpdatePlan(
        device="generic-x86",
        selection=Selection(("weight", "bias")),
        batch=batch,
        micro_batch=micro_batch,
        optimizer=Optimizer("sgd-momentum"),
        budget=Budget(),
        cost=cost,
        certificate=Certificate("patterns", 0.0),
        parameter_count=FEATURES * CLASSES + CLASSES,
        trainable_count=FEATURES * CLASSES + CLASSES,
    )
    signature = Signature(
        inputs=(ArraySpec("x", "float32", (FEATURES,)),),
        targets=(ArraySpec("y", "int64", ()),),
        outputs=(ArraySpec("logits", "float32", (CLASSES,)),),
    )
    loss = LossSpec("cross_entropy", CLASSES, class_weights, ignore_index=-100)
    return Manifest("portable", signature, loss, plan, (), (), {})


def make_dataset(samples: int = 21, seed: int = 0) -> Dataset:
    """Three clouds of points that a linear model tells apart."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, CLASSES, samples)
    centres = np.random.default_rng(99).normal(size=(CLASSES, FEATURES)) * 2
    x = (centres[y] + generator.normal(size=(samples, FEATURES))).astype(np.float32)
    return Dataset({"x": x}, {"y": y})


def handed_out(arrays: dict[str, Array], copy: bool) -> dict[str, Array]:
    if copy:
        return {name: array.copy() for name, array in arrays.items()}
    views = {name: array.view() for name, array in arrays.items()}
    for view in views.values():
        view.flags.writeable = False
    return views


class FakeSession:
    """Implements `TrainingSession`; computes in float64, so that sums in any order agree."""

    def __init__(self, manifest: Manifest | None = None, digest: str = "a" * 64) -> None:
        self.manifest = make_manifest() if manifest is None else manifest
        self.digest = digest
        generator = np.random.default_rng(7)
        self._values = {
            "weight": generator.normal(size=(CLASSES, FEATURES)) * 0.1,
            "bias": np.zeros(CLASSES),
        }
        self._momentum = {name: np.zeros_like(value) for name, value in self._values.items()}
        self._gradients = {name: np.zeros_like(value) for name, value in self._values.items()}
        self.updates = 0
        self.discarded = 0

    def _forward(self, batch: MicroBatch) -> tuple[Array, Array, MicroResult]:
        """(probabilities, weight of each sample's term, loss and right predictions)."""
        loss_spec, y = self.manifest.loss, batch.targets["y"]
        logits = batch.inputs["x"].astype(np.float64) @ self._values["weight"].T
        logits += self._values["bias"]
        shifted = logits - logits.max(axis=1, keepdims=True)
        probabilities = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
        counted = y != loss_spec.ignore_index
        safe = np.where(counted, y, 0)
        weight = batch.scale.astype(np.float64) * counted
        if loss_spec.class_weights is not None:
            weight = weight * np.asarray(loss_spec.class_weights)[safe]
        terms = -np.log(probabilities[np.arange(len(y)), safe])
        right = (logits.argmax(axis=1) == y) & (batch.scale > 0) & counted
        return probabilities, weight, MicroResult(float((weight * terms).sum()), int(right.sum()))

    def accumulate(self, batch: MicroBatch) -> MicroResult:
        assert len(batch.scale) == self.manifest.plan.micro_batch
        probabilities, weight, result = self._forward(batch)
        y = np.where(weight > 0, batch.targets["y"], 0)
        error = (probabilities - np.eye(CLASSES)[y]) * weight[:, None]
        self._gradients["weight"] += error.T @ batch.inputs["x"].astype(np.float64)
        self._gradients["bias"] += error.sum(axis=0)
        return result

    def update(self, learning_rate: float, clip_norm: float | None) -> float:
        norm = float(np.sqrt(sum((g**2).sum() for g in self._gradients.values())))
        if not np.isfinite(norm):
            raise TrainingError("the gradients' norm is not finite")
        factor = 1.0 if clip_norm is None else min(1.0, clip_norm / (norm + 1e-6))
        momentum = self.manifest.plan.optimizer.momentum
        for name, gradient in self._gradients.items():
            # In place, as real sessions do: who keeps what `copy=False` gave sees it.
            self._momentum[name][...] = momentum * self._momentum[name] + gradient * factor
            self._values[name] -= learning_rate * self._momentum[name]
        self.updates += 1
        self._forget()
        return norm

    def gradients(self) -> dict[str, Array]:
        return {name: gradient.copy() for name, gradient in self._gradients.items()}

    def load_gradients(self, gradients: Mapping[str, Array]) -> None:
        doubles = {name: np.array(gradient, np.float64) for name, gradient in gradients.items()}
        check_expected_arrays("gradients", doubles, self._values, DataError)
        self._gradients = {name: doubles[name] for name in self._values}

    def write_inference_model(self, out: Path) -> None:
        raise NotImplementedError("a fake has no graph")

    def discard(self) -> None:
        self.discarded += 1
        self._forget()

    def smaller(self) -> bool:
        return False  # a bundle carries one micro-batch

    def evaluate(self, batch: MicroBatch) -> MicroResult:
        return self._forward(batch)[2]

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        logits = inputs["x"] @ self._values["weight"].T + self._values["bias"]
        return {"logits": logits.astype(np.float32)}

    def values(self, *, copy: bool = True) -> dict[str, Array]:
        return handed_out(self._values, copy)

    def load_values(self, values: Mapping[str, Array]) -> None:
        if {n: v.shape for n, v in values.items()} != {n: v.shape for n, v in self._values.items()}:
            raise DataError("the values do not fit this session")
        self._values = {name: np.array(value) for name, value in values.items()}

    def state(self, *, copy: bool = True) -> dict[str, Array]:
        values, momentum = handed_out(self._values, copy), handed_out(self._momentum, copy)
        return {
            **{f"value/{name}": value for name, value in values.items()},
            **{f"momentum/{name}": value for name, value in momentum.items()},
            "updates": np.array(self.updates),
        }

    def load_state(self, state: Mapping[str, Array], *, copy: bool = True) -> None:
        if set(state) != set(self.state()):
            raise CheckpointError("the state does not fit this session")
        self._values = {name: np.array(state[f"value/{name}"]) for name in self._values}
        self._momentum = {name: np.array(state[f"momentum/{name}"]) for name in self._values}
        self.updates = int(state["updates"])
        self._forget()

    def _forget(self) -> None:
        self._gradients = {name: np.zeros_like(value) for name, value in self._values.items()}
