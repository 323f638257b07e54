"""The samples that a prefix in 8 bits is calibrated on, and what it costs on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from edgetune.data.dataset import Dataset
from edgetune.errors import ExportError
from edgetune.nouns.precision import Int8Loss
from edgetune.runtime.batches import evaluation_plan, micro_batches
from edgetune.runtime.portable_session import PortableSession
from edgetune.runtime.session import Arrays, MicroBatch
from edgetune_exporters.dense_step import DenseStep
from edgetune_exporters.factory import TARGETS, Example, draw_rows, take_rows


@dataclass(frozen=True)
class Int8Calibration:
    """samples: how many of the example's, drawn by `seed`. tolerance: by how much their mean loss
    may rise, as a share of that of fp32.
    """

    samples: int = 64
    seed: int = 0
    tolerance: float = 0.02


DEFAULT_CALIBRATION = Int8Calibration()


@dataclass(frozen=True, eq=False)
class Measured:
    """What a session makes of one micro-batch."""

    loss: float
    features: Arrays


def calibration_batches(
    example: Example, step: DenseStep, session: PortableSession, int8: Int8Calibration
) -> list[MicroBatch]:
    """The calibration samples in micro-batches of the session's size."""
    drawn = take_rows(example, draw_rows(len(example.targets), int8.samples, int8.seed))
    inputs = {
        name: leaf.detach().numpy()
        for name, leaf in zip(step.model.inputs, drawn.leaves(), strict=True)
    }
    dataset = Dataset(inputs, {TARGETS: drawn.targets.numpy()})
    plan = evaluation_plan(dataset, session.manifest)
    return list(micro_batches(dataset, plan, session.manifest.plan.micro_batch))


def measure(session: PortableSession, batches: Sequence[MicroBatch]) -> list[Measured]:
    """Loss and features of each of `batches`."""
    return [
        Measured(session.evaluate(batch).loss, session.features(batch.inputs)) for batch in batches
    ]


def int8_loss(
    exact: Sequence[Measured], rounded: Sequence[Measured], int8: Int8Calibration, samples: int
) -> Int8Loss:
    """What rounding costs. Raises ExportError when that is more than is tolerated."""
    deviation, size = 0.0, 0.0
    for one, other in zip(exact, rounded, strict=True):
        for name, values in one.features.items():
            deviation += float(np.square(other.features[name] - values, dtype=np.float64).sum())
            size += float(np.square(values, dtype=np.float64).sum())
    loss = Int8Loss(
        samples,
        sum(each.loss for each in exact),
        sum(each.loss for each in rounded),
        sqrt(deviation / size) if size else 0.0,
    )
    if not loss.rise <= int8.tolerance:
        raise ExportError(
            f"with the frozen prefix in 8 bits the loss of {samples} calibration samples rises "
            f"from {loss.fp32_loss:.4g} to {loss.int8_loss:.4g}, by {loss.rise:.1%}, more than the "
            f"{int8.tolerance:.1%} tolerated (the features are off by {loss.feature_error:.1%}): "
            "use --precision fp32, give the factory more real samples, or raise --int8-tolerance"
        )
    return loss
