"""The reference that every export is checked against: PyTorch's autograd and optimizers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from edgetune.errors import ExportError
from edgetune.nouns.bundle_names import SCALE
from edgetune.nouns.loss import Array
from edgetune.nouns.optimizer import Optimizer
from edgetune.nouns.selection import Selection
from edgetune.nouns.slices import take_slices
from edgetune.runtime.self_test import CLIP_NORMS, LEARNING_RATE, SelfTest, synthetic_gradients
from edgetune.runtime.session import MicroBatch
from edgetune_exporters.capture import evaluation_mode, quiet
from edgetune_exporters.dense_step import DenseStep
from edgetune_exporters.factory import Example, first_samples
from edgetune_exporters.losses import prediction


def record_reference(
    example: Example, step: DenseStep, selection: Selection, optimizer: Optimizer
) -> SelfTest:
    """Loss and gradients of the sample micro-batch, and three updates, all by PyTorch.

    Of a tensor of which a share is trained, gradient and updates are of its slices alone.
    The loss is the user's own loss of the user's own module, so that capture and folding are
    checked too. Raises ExportError when the captured model predicts something else than the module.
    """
    sample = first_samples(example, step.graph.batch)
    outputs = _call(sample)
    _check_capture(prediction(outputs), prediction(step.model.outputs()))
    targets = {name: value.numpy() for name, value in step.targets.items()}
    weights = np.ones(step.graph.batch, np.float32)
    normalizer = step.loss.spec.normalizer(targets["targets"], weights)
    batch = MicroBatch(
        {name: value.detach().numpy() for name, value in step.model.inputs.items()},
        targets,
        (weights / normalizer).astype(np.float32),
    )
    with torch.no_grad():
        loss = float(sample.loss(outputs, sample.targets).double().mean())
    with _exact_convolutions():
        gradients = _gradients(step, selection, torch.from_numpy(batch.scale))
    return SelfTest(batch, loss, gradients, _updates(step, selection, optimizer))


def record_from_features(
    recorded: SelfTest, step: DenseStep, selection: Selection, features: Mapping[str, Array]
) -> SelfTest:
    """`recorded` with loss and gradients as PyTorch has them behind these `features`.

    features: what the frozen prefix hands on, by tensor. PyTorch's operators run the joint graph,
    with the features in the place of what it computes there itself. Raises ExportError for a
    feature that is no result of the joint graph's.
    """
    joint = step.joint
    given = {
        node: torch.from_numpy(features[tensor])
        for node, tensor in step.lowered.tensors.items()
        if tensor in features
    }
    missing = set(features) - {step.lowered.tensors[node] for node in given}
    if missing:
        raise ExportError(
            f"the gradients behind an 8-bit prefix cannot be checked: {', '.join(sorted(missing))} "
            "lies within an operator of PyTorch's; use --precision fp32"
        )
    batch = recorded.batch
    arrays = {**batch.inputs, **batch.targets, SCALE: batch.scale}
    values = {
        **step.model.parameters,
        **step.model.constants,
        **{name: torch.from_numpy(array) for name, array in arrays.items()},
    }
    with torch.no_grad(), _exact_convolutions():
        flat = _Given(joint.graph, given).run(*[values[name] for name in joint.placeholders])
    results = dict(zip(joint.results, flat, strict=True))
    gradients = {
        name: _trained(results[f"gradient:{name}"], name, selection) for name in selection.trainable
    }
    return replace(recorded, loss=float(results["loss"]), gradients=gradients)


@contextmanager
def _exact_convolutions() -> Iterator[None]:
    """PyTorch's own kernels: oneDNN's convolutions round more.

    Of ResNet-18's gradients at 160 pixels theirs are within 7e-7 of float64's, as shares of the
    largest element, oneDNN's within 1.5e-4 (torch 2.13, AVX-512).
    """
    with quiet(), torch.backends.mkldnn.flags(enabled=False):
        yield


class _Given(fx.Interpreter):
    """Runs a graph with some nodes' results given, by name."""

    def __init__(self, graph: fx.GraphModule, given: Mapping[str, Tensor]) -> None:
        super().__init__(graph)
        self._given = given

    def run_node(self, n: fx.Node) -> Any:
        return self._given[n.name] if n.name in self._given else super().run_node(n)


def _call(sample: Example) -> Any:
    with evaluation_mode(sample.model), torch.no_grad():
        if isinstance(sample.inputs, Tensor):
            return sample.model(sample.inputs)
        if isinstance(sample.inputs, Mapping):
            return sample.model(**sample.inputs)
        return sample.model(*sample.inputs)


def _check_capture(expected: Tensor, found: Tensor) -> None:
    largest = float((expected - found).abs().max())
    if not largest <= 1e-3 * max(float(expected.abs().max()), 1.0):
        raise ExportError(
            f"the captured model predicts something else than the module (off by {largest:.3g}): "
            "its forward probably depends on state or on values that capture cannot see"
        )


def _gradients(step: DenseStep, selection: Selection, scale: Tensor) -> dict[str, Any]:
    parameters = {
        name: value.clone().requires_grad_(name in selection)
        for name, value in step.model.parameters.items()
    }
    outputs = step.model.run({**parameters, **step.model.constants, **step.model.inputs})
    (targets,) = step.targets.values()
    total = (step.loss.per_sample(outputs, targets) * scale).sum()
    chosen = [parameters[name] for name in selection.trainable]
    found = torch.autograd.grad(total, chosen)
    gradients = dict(zip(selection.trainable, found, strict=True))
    return {name: _trained(gradient, name, selection) for name, gradient in gradients.items()}


def _trained(whole: Tensor, name: str, selection: Selection) -> Array:
    return take_slices(whole.detach().numpy(), selection.shares.get(name))


def _updates(
    step: DenseStep, selection: Selection, optimizer: Optimizer
) -> tuple[dict[str, Any], ...]:
    """Values after each update of torch.optim with the self-test's synthetic gradients."""
    initial = {n: _trained(step.model.parameters[n], n, selection) for n in selection.trainable}
    values = {name: nn.Parameter(torch.from_numpy(value)) for name, value in initial.items()}
    reference = torch_optimizer(optimizer, list(values.values()), LEARNING_RATE)
    recorded = []
    for number, clip_norm in enumerate(CLIP_NORMS):
        arrays = {name: value.detach().numpy() for name, value in values.items()}
        for name, gradient in synthetic_gradients(arrays, number).items():
            values[name].grad = torch.from_numpy(gradient)
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(list(values.values()), clip_norm)
        reference.step()
        recorded.append({name: value.detach().numpy().copy() for name, value in values.items()})
    return tuple(recorded)


def torch_optimizer(
    optimizer: Optimizer, parameters: list[nn.Parameter], learning_rate: float
) -> torch.optim.Optimizer:
    """The torch.optim optimizer that `optimizer` describes."""
    if optimizer.kind == "adamw":
        return torch.optim.AdamW(
            parameters,
            lr=learning_rate,
            betas=(optimizer.beta1, optimizer.beta2),
            eps=optimizer.epsilon,
            weight_decay=optimizer.weight_decay,
        )
    return torch.optim.SGD(
        parameters,
        lr=learning_rate,
        momentum=optimizer.momentum if optimizer.slots else 0.0,
        nesterov=optimizer.kind == "sgd-nesterov",
        weight_decay=optimizer.weight_decay,
    )
