"""Small models of which shares of some tensors are trained, planned and exported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from edgetune_exporters.dense_step import DenseStep, dense_step
from edgetune_exporters.export import export
from edgetune_exporters.factory import TARGETS, Example
from edgetune_exporters.make_plan import PlannedStep
from edgetune_exporters.slicing.share_gradients import with_share_gradients
from edgetune_exporters.step_graph import step_graph
from torch import Tensor, nn

from edgetune.files.device_profiles import load_profile
from edgetune.nouns.budget import Budget
from edgetune.nouns.candidate import Share
from edgetune.nouns.cost import StepCost
from edgetune.nouns.optimizer import Optimizer
from edgetune.nouns.plan import Certificate, UpdatePlan
from edgetune.nouns.selection import Selection
from edgetune.runtime.session import MicroBatch

BATCH = 4
FORMATS = ("portable", "ort-training")


class Text(nn.Module):
    """Embedded tokens, a hidden layer on each, their mean, classes."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(40, 8)
        self.hidden = nn.Linear(8, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = torch.tanh(self.hidden(self.embedding(tokens)))
        classes: Tensor = self.head(hidden.mean(1))
        return classes


def mlp() -> Example:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 3)
    )
    return Example(model, torch.randn(BATCH, 12), torch.arange(BATCH) % 3, nn.CrossEntropyLoss())


def cnn() -> Example:
    """Strided, depthwise, pointwise and plain convolutions."""
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.ReLU6(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.ReLU6(),
        nn.Conv2d(8, 16, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(16, 8, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(72, 3),
    )
    images = torch.randn(BATCH, 3, 10, 10)
    return Example(model, images, torch.arange(BATCH) % 3, nn.CrossEntropyLoss())


def text() -> Example:
    torch.manual_seed(2)
    tokens = torch.randint(0, 40, (BATCH, 6))
    return Example(Text(), tokens, torch.arange(BATCH) % 3, nn.CrossEntropyLoss())


EXAMPLES = {"mlp": mlp, "cnn": cnn, "text": text}


@dataclass(frozen=True)
class Case:
    """What is trained of a model: shares of some tensors, others whole."""

    model: str
    shares: Mapping[str, Share]
    whole: tuple[str, ...] = ()

    def example(self) -> Example:
        return EXAMPLES[self.model]()

    def selection(self) -> Selection:
        parameters = [name for name, _ in self.example().model.named_parameters()]
        chosen = tuple(name for name in parameters if name in {*self.shares, *self.whole})
        return Selection(chosen, self.shares)


CASES = {
    "mlp, inputs": Case("mlp", {"2.weight": Share(1, (0, 3, 4, 15)), "4.weight": Share(1, (7,))}),
    "mlp, outputs and wholes": Case(
        "mlp",
        {"0.weight": Share(0, (1, 2, 9)), "2.weight": Share(0, (0, 15))},
        ("2.bias", "4.weight", "4.bias"),
    ),
    "cnn, inputs": Case(
        "cnn",
        {"0.weight": Share(1, (1,)), "4.weight": Share(1, (0, 5)), "6.weight": Share(1, (2, 3))},
        ("0.bias", "9.bias"),
    ),
    "cnn, outputs": Case(
        "cnn",
        {
            "0.weight": Share(0, (0, 7)),
            "2.weight": Share(0, (1, 2, 6)),
            "4.weight": Share(0, (3, 8, 15)),
            "6.weight": Share(0, (0, 1, 2, 3)),
        },
    ),
    "cnn, its last layers": Case(
        "cnn", {"6.weight": Share(1, (0, 4)), "9.weight": Share(1, (5, 6, 70))}, ("9.bias",)
    ),
    "text, rows and inputs": Case(
        "text",
        {"embedding.weight": Share(0, tuple(range(3, 40, 5))), "hidden.weight": Share(1, (2, 6))},
        ("head.bias",),
    ),
    "text, outputs": Case(
        "text", {"hidden.weight": Share(0, (1, 4)), "head.weight": Share(0, (2,))}
    ),
}


def step_with(example: Example, shares: Mapping[str, Share]) -> DenseStep:
    """The dense step with a gradient for each share, as candidates beside the whole tensors."""
    step = dense_step(example, BATCH)
    named = {f"{name}:in/8": (name, share) for name, share in shares.items()}
    lowered, candidates = with_share_gradients(step.lowered, named)
    return replace(step, lowered=lowered, graph=step_graph(lowered, (TARGETS,), candidates))


def planned(case: Case, optimizer: Optimizer = Optimizer()) -> PlannedStep:  # noqa: B008  (frozen)
    plan = UpdatePlan(
        device="generic-x86",
        selection=case.selection(),
        batch=BATCH,
        micro_batch=BATCH,
        optimizer=optimizer,
        budget=Budget(),
        cost=StepCost(0, 0, 0, 0, 0, "", 0.0, 0, None, None),
        certificate=Certificate("patterns", 0.0),
        parameter_count=1,
        trainable_count=1,
    )
    step = step_with(case.example(), case.shares)
    return PlannedStep(plan, step, load_profile(plan.device))


def exported(
    case: Case,
    out: Path,
    optimizer: Optimizer = Optimizer(),  # noqa: B008  (frozen)
    formats: tuple[str, ...] = FORMATS,
) -> dict[str, Path]:
    """Bundles by format; exporting verifies each against PyTorch."""
    export(case.example(), planned(case, optimizer), formats, out)
    return {name: out / name if len(formats) > 1 else out for name in formats}


def batch_of(example: Example, seed: int) -> MicroBatch:
    """The example's samples in some order, their targets, and unequal weights."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(BATCH)
    name = "tokens" if isinstance(example.model, Text) else "input"
    return MicroBatch(
        {name: example.inputs.numpy()[order]},
        {TARGETS: example.targets.numpy()[generator.permutation(BATCH)]},
        generator.uniform(0.1, 0.4, BATCH).astype(np.float32),
    )
