"""From an example and the name of a criterion to an Importance."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import isfinite
from pathlib import Path

from edgetune.errors import TrainingError, UsageError, nearest, raise_all
from edgetune.nouns.criterion import CRITERIA
from edgetune.nouns.optimizer import Optimizer
from edgetune_exporters.factory import Example
from edgetune_exporters.importance import criteria
from edgetune_exporters.importance.calibration import calibrate
from edgetune_exporters.importance.criteria import Scores
from edgetune_exporters.importance.scores import Importance
from edgetune_exporters.importance.user_scores import read_scores

CHUNK = 8  # samples at once where single ones do not matter; bounds the activations


def measure_importance(
    example: Example,
    criterion: str,
    samples: int,
    seed: int,
    *,
    optimizer: Optimizer | None = None,
    learning_rate: float = 1e-3,
    steps: int = 3,
    macs: Mapping[str, float] | None = None,
) -> Importance:
    """Measure the importance of every tensor that the loss depends on.

    criterion: one of CRITERIA. samples: how many of the example's batch to measure on, drawn by
    `seed`; all when there are no more. optimizer, learning_rate: of the steps of "loss-reduction"
    and "contribution", AdamW when not given. steps: of "contribution". macs: multiply-accumulates
    by parameter name, for "tinytrain" only.

    "magnitude" and "random" take one backward of one sample, "contribution" `steps` passes over all
    samples for every tensor, the others one pass. Raises UsageError; TrainingError when scores are
    not finite; ExportError when the model cannot be captured.
    """
    _check(criterion, samples, learning_rate, steps, macs)
    optimizer = optimizer or Optimizer()
    at = partial(calibrate, example, samples, seed)
    match criterion:
        case "fisher":
            found = criteria.fisher(at(chunk=1))
        case "tinytrain":
            found = criteria.tinytrain(at(chunk=1), macs or {})
        case "gradient-norm":
            found = criteria.squared_gradient_norm(at(chunk=CHUNK))
        case "taylor":
            found = criteria.taylor(at(chunk=CHUNK))
        case "loss-reduction":
            found = criteria.loss_reduction(at(chunk=CHUNK), optimizer, learning_rate)
        case "contribution":
            drops = criteria.contribution(at(chunk=CHUNK), optimizer, learning_rate, steps)
            found = _spread(drops, _finite("fisher", criteria.fisher(at(chunk=1))))
        case "magnitude":  # the data only says which tensors the loss depends on
            found = criteria.magnitude(calibrate(example, 1, seed, chunk=1))
        case _:
            found = criteria.random_scores(calibrate(example, 1, seed, chunk=1), seed)
    return Importance(criterion, _finite(criterion, found), root=criterion == "gradient-norm")


def user_importance(example: Example, path: Path, samples: int, seed: int) -> Importance:
    """The scores of tensors in the JSON file `path`, spread over slices by Fisher information.

    Tensors that the file does not name have no score. samples, seed: of the Fisher information.
    Raises DataError listing everything wrong in the file, and as `measure_importance`.
    """
    _check("fisher", samples, 1.0, 1, None)
    calibration = calibrate(example, samples, seed, chunk=1)
    shares = _finite("fisher", criteria.fisher(calibration))
    scores = read_scores(path, shares, calibration.model)
    return Importance("user", _spread(scores, shares))


def _spread(scores: Mapping[str, float], shares: Scores) -> Scores:
    """One number per tensor, shared out over its slices in the proportions of `shares`."""
    return {name: each.scaled_to(scores[name]) for name, each in shares.items() if name in scores}


def _check(
    criterion: str,
    samples: int,
    learning_rate: float,
    steps: int,
    macs: Mapping[str, float] | None,
) -> None:
    problems = []
    if criterion not in CRITERIA:
        expected = ", ".join(CRITERIA)
        hint = nearest(criterion, CRITERIA, 1)
        problems.append(f"unknown criterion {criterion!r}: expected one of {expected}{hint}")
    if samples < 1:
        problems.append(f"{samples} calibration samples: expected at least one")
    if not (isfinite(learning_rate) and learning_rate > 0):
        problems.append(f"a learning rate of {learning_rate}: expected a number greater than 0")
    if steps < 1:
        problems.append(f"{steps} steps: expected at least one")
    if (criterion == "tinytrain") != (macs is not None):
        problems.append("the multiply-accumulates of the parameters go with tinytrain, and only so")
    raise_all(UsageError, "cannot measure importance", problems)


def _finite(criterion: str, scores: Scores) -> Scores:
    problems = [
        f"{name} has the score {each.whole}"
        for name, each in scores.items()
        if not isfinite(each.whole)
    ]
    raise_all(TrainingError, f"importance by {criterion} is not finite", problems)
    return scores
