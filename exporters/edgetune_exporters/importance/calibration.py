"""The calibration samples and a captured model: losses and gradients in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
import torch
from torch import Tensor

from edgetune.errors import ExportError
from edgetune_exporters.capture import CapturedModel, capture
from edgetune_exporters.factory import Example, draw_rows, first_samples, take_rows
from edgetune_exporters.losses import ResolvedLoss, resolve_loss


@dataclass(frozen=True)
class Calibration:
    """A model captured at `chunk` samples, and all the samples that importance is measured on.

    inputs: by input name, each (samples, ...); targets: (samples, ...).
    """

    model: CapturedModel
    loss: ResolvedLoss
    inputs: Mapping[str, Tensor]
    targets: Tensor
    chunk: int

    def __len__(self) -> int:
        return len(self.targets)

    def mean_loss(self, values: Mapping[str, Tensor]) -> float:
        """The loss of all samples, normalised as in training, with the parameters `values`."""
        everything = self._normalizer(range(len(self)))
        with torch.no_grad():
            return sum(float(self._loss(values, rows)) for rows in self._chunks()) / everything

    def gradients(
        self, values: Mapping[str, Tensor], names: Iterable[str] | None = None
    ) -> dict[str, Tensor]:
        """Gradient of `mean_loss` by each of the parameters `names` that the loss depends on."""
        everything = self._normalizer(range(len(self)))
        sums: dict[str, Tensor] = {}
        for rows in self._chunks():
            for name, found in self._gradients(values, names, rows, everything):
                sums[name] = sums[name] + found if name in sums else found
        return sums

    def squared_gradients(self) -> dict[str, Tensor]:
        """Mean over samples of the squared gradient of the sample's own loss, per scalar.

        One sample after the other: torch.func.vmap over the graph was no faster on a CPU
        (MobileNetV2, MiniLM; 4 and 8 samples at once) and took three to nine times the memory.
        """
        sums: dict[str, Tensor] = {}
        for row in range(len(self)):
            values = self.model.parameters
            for name, found in self._gradients(values, None, [row], self._normalizer([row])):
                total = sums.setdefault(name, torch.zeros_like(found))
                total.addcmul_(found, found, value=1 / len(self))
        return sums

    def _chunks(self) -> Iterator[range]:
        for start in range(0, len(self), self.chunk):
            yield range(start, min(start + self.chunk, len(self)))

    def _gradients(
        self,
        values: Mapping[str, Tensor],
        names: Iterable[str] | None,
        rows: Sequence[int],
        normalizer: float,
    ) -> Iterator[tuple[str, Tensor]]:
        """(name, gradient) of the loss of the samples `rows`; every parameter for names=None."""
        wanted = self.model.parameters if names is None else names
        leaves = {name: values[name].detach().requires_grad_() for name in wanted}
        loss = self._loss({**values, **leaves}, rows) / normalizer
        if loss.grad_fn is None:
            raise ExportError("the loss does not depend on any parameter: nothing can be trained")
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        for name, gradient in zip(leaves, found, strict=True):
            if gradient is not None:
                yield name, gradient

    def _loss(self, values: Mapping[str, Tensor], rows: Sequence[int]) -> Tensor:
        """Summed, not normalised; at most `chunk` rows, filled up with one that is then dropped."""
        filled = [*rows, *[rows[0]] * (self.chunk - len(rows))]
        inputs = {name: value[filled] for name, value in self.inputs.items()}
        outputs = self.model.run({**values, **self.model.constants, **inputs})
        return self.loss.per_sample(outputs, self.targets[filled])[: len(rows)].sum()

    def _normalizer(self, rows: Sequence[int]) -> float:
        """What the summed loss of `rows` is divided by; infinite where no target counts."""
        targets = self.targets[list(rows)].numpy()
        return self.loss.spec.normalizer(targets, np.ones(len(rows))) or inf


def calibrate(example: Example, samples: int, seed: int, chunk: int) -> Calibration:
    """Capture the model for `chunk` samples at once and draw the samples to measure on.

    `samples` of the example's batch without replacement, all of them when it has no more. Raises
    ExportError when the model cannot be captured.
    """
    chosen = take_rows(example, draw_rows(len(example.targets), samples, seed))
    chunk = min(chunk, len(chosen.targets))
    sample = first_samples(chosen, chunk)
    model = capture(sample.model, sample.inputs)
    loss = resolve_loss(sample.loss, model.outputs(), sample.targets)
    inputs = dict(zip(model.inputs, chosen.leaves(), strict=True))
    return Calibration(model, loss, inputs, chosen.targets, chunk)
