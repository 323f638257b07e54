"""Trains one bundle again and again in the device environment, for selection_accuracy.py.

Reads a job as JSON on stdin and prints the outcome as JSON:

    {"bundle": folder, "epochs": 4, "rates": [0.001, 0.003], "seeds": [0, 1, 2],
     "tuning": [[train, test], ...], "parts": [[train, test], ...]}

Every pair of files is one training from the bundle's own values; the accuracy of a rate or a seed
is the mean over the pairs. The rate is chosen with the first seed on `tuning`, files without any
sample that is tested on; then each seed trains and tests on `parts`.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from edgetune import Trainer, TrainerConfig, evaluate, load_data, open_session
from edgetune.errors import TrainingError


def run(job: dict[str, Any]) -> dict[str, Any]:
    """The outcome: the rate, the accuracy of each rate when tuning, and of each seed."""
    bundle, epochs, seeds = Path(job["bundle"]), job["epochs"], job["seeds"]
    tuning = {
        rate: _trained(bundle, job["tuning"], epochs, rate, seeds[0]) for rate in job["rates"]
    }
    best = max(job["rates"], key=lambda rate: tuning[rate])
    return {
        "learning_rate": best,
        "tuning": list(tuning.values()),
        "accuracies": [_trained(bundle, job["parts"], epochs, best, seed) for seed in seeds],
    }


def _trained(bundle: Path, pairs: list[list[str]], epochs: int, rate: float, seed: int) -> float:
    """Mean accuracy over pairs of files; 0 where training diverges."""
    config = TrainerConfig(
        epochs=epochs, learning_rate=rate, schedule="cosine", seed=seed, progress=False
    )
    accuracies = []
    for train, test in pairs:
        session = open_session(bundle)
        manifest = session.manifest
        try:
            Trainer(session, config).fit(load_data(train, manifest.signature, manifest.loss))
        except TrainingError:
            return 0.0
        measured = evaluate(session, load_data(test, manifest.signature, manifest.loss))
        accuracies.append(measured.accuracy or 0.0)
    return statistics.fmean(accuracies)


if __name__ == "__main__":
    json.dump(run(json.load(sys.stdin)), sys.stdout)
