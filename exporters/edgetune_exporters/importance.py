"""How much each tensor is worth training, from calibration data."""

from __future__ import annotations

import torch

from edgetune_exporters.capture import capture
from edgetune_exporters.factory import Example, first_samples, take_rows
from edgetune_exporters.losses import resolve_loss


def fisher_information(example: Example, samples: int) -> dict[str, float]:
    """Trace of the empirical Fisher information of each parameter tensor, by name.

    The mean over the first `samples` samples of the squared gradient of the sample's own loss,
    summed over the tensor (Kwon et al., TinyTrain, ICML 2024, eq. 2, taken per tensor). Parameters
    that the loss does not depend on have no score.
    """
    one = first_samples(example, 1)
    model = capture(one.model, one.inputs)
    loss = resolve_loss(one.loss, model.outputs(), one.targets)
    parameters = {n: v.clone().requires_grad_() for n, v in model.parameters.items()}
    totals: dict[str, float] = {}
    for row in range(min(samples, len(example.targets))):
        inputs = dict(zip(model.inputs, take_rows(example, [row]).leaves(), strict=True))
        outputs = model.run({**parameters, **model.constants, **inputs})
        targets = example.targets[row : row + 1]
        sample_loss = loss.per_sample(outputs, targets).sum() / loss.spec.normalizer(
            targets.numpy(), torch.ones(1).numpy()
        )
        gradients = torch.autograd.grad(sample_loss, list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                totals[name] = totals.get(name, 0.0) + float((gradient.double() ** 2).sum())
    count = min(samples, len(example.targets))
    return {name: total / count for name, total in totals.items()}
