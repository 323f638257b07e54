"""What a bundle says about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgetune.nouns.cost import StepCost
from edgetune.nouns.folding import FoldedBatchNorm
from edgetune.nouns.loss import LossSpec
from edgetune.nouns.plan import UpdatePlan
from edgetune.nouns.precision import Int8Loss
from edgetune.nouns.signature import Signature

SCHEMA_VERSION = 1
FORMATS = ("portable", "ort-training")


@dataclass(frozen=True)
class SmallerMicroBatch:
    """What a run goes over to when memory runs short: the same step in smaller pieces.

    micro_batch: samples per run of its graphs. cost: of the plan, run so. features: as a manifest
    has them.
    """

    micro_batch: int
    cost: StepCost
    features: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """The contents of a bundle's manifest.json.

    format: one of FORMATS. features: names of the tensors that the frozen prefix hands to the
    other graphs, empty when there is no prefix graph.
    folded: BatchNorms that became part of convolutions. digests: SHA-256 by file name, of every
    other file of the bundle. int8: what a prefix in 8 bits costs, None where it is fp32. smaller: a
    smaller micro-batch that the bundle carries too, None where it has but one.
    """

    format: str
    signature: Signature
    loss: LossSpec
    plan: UpdatePlan
    features: tuple[str, ...]
    folded: tuple[FoldedBatchNorm, ...]
    digests: Mapping[str, str]
    int8: Int8Loss | None = None
    smaller: SmallerMicroBatch | None = None
    schema: int = SCHEMA_VERSION
