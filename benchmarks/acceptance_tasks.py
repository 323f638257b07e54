"""What the acceptance run trains: three real tasks, and for each what is selected and how.

The settings were found with PyTorch alone (torch_reference.py), before edgetune was compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from workloads import banking77, motion, signs

EVERYTHING = ("*",)


@dataclass(frozen=True)
class Row:
    """One selection and its recipe: AdamW with a cosine, without weight decay.

    precision: of the frozen part; PyTorch's is fp32 always. note: what a reader must know beside
    the numbers.
    """

    selection: str
    patterns: tuple[str, ...]
    learning_rate: float
    epochs: int
    batch: int
    precision: str = "fp32"
    note: str = ""


@dataclass(frozen=True)
class Part:
    """One training of a task, on files that `write_data` writes: all of it, or one subject's."""

    name: str
    train: str
    test: str


@dataclass(frozen=True)
class Task:
    """device: a profile the bundles are planned for. folds: the model has BatchNorm to fold.

    zero_shot: also measure the accuracy before training, and show every part.
    """

    name: str
    title: str
    device: str
    write_data: Callable[[Path], None]
    rows: tuple[Row, ...]
    parts: tuple[Part, ...] = field(default=(Part("all", "train.npz", "validation.npz"),))
    folds: bool = False
    zero_shot: bool = False

    @property
    def workload(self) -> Path:
        """The file with the model's factory."""
        return Path(__file__).resolve().parent / "workloads" / f"{self.name}.py"


SIGNS = Task(
    name="signs",
    title="MobileNetV2 (ImageNet) on sign-language digits, 96 px, 1,000 to train, 500 to test",
    device="raspberry-pi-4b-4gb",
    write_data=signs.write_data,
    folds=True,
    rows=(
        Row("head", signs.HEAD, 3e-3, 5, 16),
        Row("last two blocks + head", signs.LAST_TWO_BLOCKS_AND_HEAD, 1e-3, 5, 16),
        Row("head, int8 below", signs.HEAD, 3e-3, 5, 16, "int8"),
        Row("last two, int8 below", signs.LAST_TWO_BLOCKS_AND_HEAD, 1e-3, 5, 16, "int8"),
        Row("full", EVERYTHING, 1e-4, 5, 16),
    ),
)

BANKING77 = Task(
    name="banking77",
    title="MiniLM-L6 on Banking77, 77 classes, 2,000 questions to train, 1,000 to test",
    device="raspberry-pi-4b-4gb",
    write_data=banking77.write_data,
    rows=(
        Row("head", banking77.HEAD, 1e-2, 5, 32),
        Row("last two layers + head", banking77.LAST_TWO_LAYERS_AND_HEAD, 1e-3, 3, 16),
        Row("last two, int8 below", banking77.LAST_TWO_LAYERS_AND_HEAD, 1e-3, 3, 16, "int8"),
        Row("full", EVERYTHING, 5e-4, 3, 16),
    ),
)

MOTION = Task(
    name="motion",
    title="1-D CNN taught on phones, adapted to each unseen watch with its first 33 to 42 windows",
    device="raspberry-pi-zero-2-w",
    write_data=motion.write_data,
    zero_shot=True,
    parts=tuple(
        Part(f"subject {s}", f"subject_{s}_adapt.npz", f"subject_{s}_test.npz")
        for s in motion.HELD_OUT_SUBJECTS
    ),
    rows=(
        Row("head", motion.HEAD, 1e-2, 40, 8),
        Row("all but the first layer", motion.ADAPTED, 2e-3, 40, 8),
        Row("full", EVERYTHING, 2e-3, 40, 8),
    ),
)

TASKS = {task.name: task for task in (SIGNS, BANKING77, MOTION)}
