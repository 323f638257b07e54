"""The bundles that make.py writes and the device tests train: one row each, no torch here."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgetune.nouns.optimizer import Optimizer

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("EDGETUNE_TEST_BUNDLES", ROOT / "build" / "test-bundles"))
EPOCHS, SEED = 2, 5


@dataclass(frozen=True)
class Case:
    """One bundle, and how it is trained.

    factory: module of tests.zoo and function. patterns: what is trained. samples: of the data;
    no multiple of the batch, so that the last batch is a partial one.
    training: fields of TrainerConfig. weighted: whether the data has sample weights.
    """

    factory: str
    patterns: tuple[str, ...]
    optimizer: Optimizer
    samples: int = 11
    batch: int = 4
    micro_batch: int = 2
    weighted: bool = False
    training: dict[str, Any] = field(default_factory=dict)


CASES = {
    "cnn1d": Case(
        "sequence:cnn1d",
        ("*",),
        Optimizer("adamw", weight_decay=0.05),
        weighted=True,
        training={"learning_rate": 2e-3, "schedule": "cosine", "clip_norm": 0.5},
    ),
    "mobilenet_v3_small": Case(
        "vision:mobilenet_v3_small",
        ("features.11.*", "features.12.*", "classifier.*"),
        Optimizer("sgd-nesterov", weight_decay=1e-3),
        samples=6,
        training={"learning_rate": 0.01, "schedule": "cosine", "warmup_steps": 2},
    ),
    "distilbert": Case(
        "text:distilbert",
        ("model.distilbert.transformer.layer.1.*", "model.pre_classifier.*", "model.classifier.*"),
        Optimizer("sgd-momentum", weight_decay=1e-2),
        training={"learning_rate": 0.05, "clip_norm": 0.7},
    ),
    "multi_label": Case(
        "mlp:multi_label",
        ("fc2.*", "head.*"),
        Optimizer("adamw"),
        micro_batch=4,
        weighted=True,
        training={"learning_rate": 5e-3},
    ),
    "regression": Case(
        "mlp:regression",
        ("*",),
        Optimizer("sgd", weight_decay=1e-2),
        training={"learning_rate": 0.1, "batch": 7, "clip_norm": 1.0},
    ),
    "lstm_classifier": Case(
        "sequence:lstm_classifier",
        ("*",),
        Optimizer("adamw", weight_decay=0.01),
        micro_batch=1,
        training={"learning_rate": 3e-3, "schedule": "cosine", "warmup_steps": 1},
    ),
}
ORT_TRAINING = "multi_label-ort-training"  # a second format of `multi_label`
INT8 = "mobilenet_v3_small-int8"  # `mobilenet_v3_small` with its frozen prefix in 8 bits, no case
