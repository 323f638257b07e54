"""What is compared: models, what of them is trained, and the sides that train it."""

from __future__ import annotations

from dataclasses import dataclass

from edgetune.nouns.precision import Precision

EVERYTHING = ("*",)


@dataclass(frozen=True)
class Trained:
    """A selection by name. patterns: of parameters, shell style, the same on all sides."""

    name: str
    patterns: tuple[str, ...]

    @property
    def has_prefix(self) -> bool:
        """Whether something stays frozen."""
        return self.patterns != EVERYTHING


@dataclass(frozen=True)
class Workload:
    """name: also of its factory in workloads/plain.py."""

    name: str
    selections: tuple[Trained, ...]


FULL = Trained("full", EVERYTHING)
HEAD = Trained("head", ("head.*",))

WORKLOADS = (
    Workload(
        "mobilenet_v2",
        (HEAD, Trained("last two", ("blocks.15.*", "blocks.16.*", "last.*", "head.*")), FULL),
    ),
    Workload("resnet18", (Trained("last block", ("blocks.7.*", "head.*")), FULL)),
    Workload("bert6", (Trained("last two", ("layers.4.*", "layers.5.*", "head.*")), FULL)),
    Workload("motion", (FULL,)),
)


@dataclass(frozen=True)
class EdgetuneSide:
    """A bundle. micro_batch: samples at once, None is the planner's choice without a budget.

    cached: timed are the steps that read what the prefix made of their samples.
    """

    name: str
    format: str = "portable"
    precision: Precision = "fp32"
    micro_batch: int | None = None
    cached: bool = False

    @property
    def needs_prefix(self) -> bool:
        """Whether it differs from the first side only where something stays frozen."""
        return self.precision == "int8" or self.cached or self.micro_batch is not None


@dataclass(frozen=True)
class TorchSide:
    """PyTorch. keeps_memory: malloc is told to keep what it has."""

    name: str
    compiled: bool = False
    keeps_memory: bool = False


@dataclass(frozen=True)
class PeerSide:
    """A runtime that trains by itself."""

    name: str


Side = EdgetuneSide | TorchSide | PeerSide

TORCH = (
    TorchSide("torch-eager"),
    TorchSide("torch-malloc", keeps_memory=True),
    TorchSide("torch-compile", compiled=True, keeps_memory=True),
)
ORT_TRAINING = PeerSide("onnxruntime-training")
EXECUTORCH = PeerSide("executorch")
SIDES: tuple[Side, ...] = (
    EdgetuneSide("edgetune-fp32"),
    EdgetuneSide("edgetune-fp32-micro1", micro_batch=1),
    EdgetuneSide("edgetune-int8", precision="int8"),
    EdgetuneSide("edgetune-int8-micro1", precision="int8", micro_batch=1),
    EdgetuneSide("edgetune-cached", cached=True),
    EdgetuneSide("edgetune-ort-training", format="ort-training"),
    *TORCH,
    ORT_TRAINING,
    EXECUTORCH,
)


def runs(side: Side, trained: Trained) -> bool:
    """Whether the side has anything of its own to show for this selection."""
    return trained.has_prefix or not (isinstance(side, EdgetuneSide) and side.needs_prefix)
