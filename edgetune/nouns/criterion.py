"""How the importance of what can be trained is measured: the names of the criteria.

fisher           empirical Fisher information: mean squared gradient of single samples
magnitude        summed |w|
gradient-norm    norm of the batch's gradient
taylor           summed |w * g|
loss-reduction   first-order drop of the loss by one step of the optimizer
tinytrain        Fisher information per parameter and per multiply-accumulate
contribution     measured drop of the loss when a tensor alone is trained for a few steps
random           the baseline: a number seeded by the tensor's name

fisher is the default. `benchmarks/selection_accuracy.py --criterion` compares what plans learn.
Formulas and sources stand where they are computed, in edgetune_exporters.importance.criteria.
"""

from __future__ import annotations

from typing import Literal, get_args

Criterion = Literal[
    "fisher",
    "magnitude",
    "gradient-norm",
    "taylor",
    "loss-reduction",
    "tinytrain",
    "contribution",
    "random",
]
CRITERIA: tuple[Criterion, ...] = get_args(Criterion)
