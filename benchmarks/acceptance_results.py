"""What an acceptance run measures, and when it is good enough."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

TOLERATED_POINTS = 0.5


@dataclass(frozen=True)
class Trained:
    """One training on one side.

    accuracy, initial_accuracy: on the test samples, after and before; initial is None where it was
    not asked for. losses, step_seconds: one per step. peak_bytes: peak resident memory of the
    process that trained, with the training data in it and without any evaluation.
    """

    accuracy: float
    initial_accuracy: float | None
    losses: list[float]
    step_seconds: list[float]
    peak_bytes: int
    process_seconds: float


@dataclass(frozen=True)
class Run:
    """The same training on both sides: one part of the data, one seed.

    data_bytes: the training arrays, which both sides hold. merged_accuracy: of the merged
    inference model on stock onnxruntime.
    """

    part: str
    seed: int
    test_samples: int
    data_bytes: int
    edgetune: Trained
    torch: Trained
    merged_accuracy: float
    delta_bytes: int
    load_average: float

    @property
    def first_steps_gap(self) -> float:
        """Largest relative difference of the two sides' losses over the first ten steps."""
        pairs = zip(self.edgetune.losses[:10], self.torch.losses[:10], strict=True)
        return max(abs(ours - theirs) / abs(theirs) for ours, theirs in pairs)


@dataclass
class RowResult:
    """All runs of one selection, and what its export said and predicted.

    same_features: whether the frozen part computes what PyTorch's does; in 8 bits it does not.
    """

    selection: str
    recipe: str
    same_features: bool = True
    note: str = ""
    trainable_count: int = 0
    trainable_share: float = 0.0
    predicted_peak_bytes: int = 0
    export_seconds: float = 0.0
    runs: list[Run] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def seeds(self) -> list[int]:
        """The seeds, in the order they were run."""
        return list(dict.fromkeys(run.seed for run in self.runs))

    def accuracies(self, side: str) -> list[float]:
        """By seed: the mean over the parts, of "edgetune" or "torch"."""
        return [
            statistics.fmean(getattr(r, side).accuracy for r in self.runs if r.seed == seed)
            for seed in self.seeds
        ]

    def accuracy(self, side: str) -> float:
        """The mean over seeds and parts."""
        return statistics.fmean(self.accuracies(side))

    @property
    def difference_points(self) -> float:
        """edgetune's accuracy minus PyTorch's, in points, over all seeds and parts."""
        return 100 * (self.accuracy("edgetune") - self.accuracy("torch"))

    @property
    def agrees(self) -> bool:
        """Whether the accuracies are as close as is asked; other features may well be better."""
        lost = abs(self.difference_points) if self.same_features else -self.difference_points
        return lost <= TOLERATED_POINTS + 1e-9

    def median_step_seconds(self, side: str) -> float:
        """Over all steps of all runs."""
        return statistics.median(s for run in self.runs for s in getattr(run, side).step_seconds)

    def peak_bytes(self, side: str) -> int:
        """The largest over the runs."""
        return max(getattr(run, side).peak_bytes for run in self.runs)

    @property
    def memory_ratio(self) -> float:
        """Largest share of the predicted peak that was measured, without the training data."""
        return max(
            (r.edgetune.peak_bytes - r.data_bytes) / self.predicted_peak_bytes for r in self.runs
        )

    def problems(self) -> list[str]:
        """Everything that makes this row fail."""
        found = list(self.failures)
        if self.runs and not self.agrees:
            found.append(
                f"edgetune's accuracy differs by {self.difference_points:+.2f} points from "
                f"PyTorch's over seeds {self.seeds}: tolerated are {TOLERATED_POINTS}"
            )
        for run in self.runs:
            wrong = abs(run.merged_accuracy - run.edgetune.accuracy) * run.test_samples
            if wrong > 1.5:  # one sample may sit on a border between two classes
                found.append(
                    f"{run.part}, seed {run.seed}: the merged model is right on "
                    f"{run.merged_accuracy:.2%}, the session on {run.edgetune.accuracy:.2%}"
                )
        return found
