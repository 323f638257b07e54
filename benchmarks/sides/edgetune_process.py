"""edgetune's side: steps of a bundle as `edgetune train` does them. Needs no torch.

Job: bundle, data (an .npz of one batch), features (a folder in which the prefix's results are kept,
or null), threads (null is one per core, as `edgetune train` has it).
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

# Loaded when a bundle is opened; here already, so that it is in the base as torch is.
import onnxruntime
from turns import Step, serve

from edgetune.data.dataset import load_data
from edgetune.runtime.batches import epoch_order, micro_batches, plan_batch
from edgetune.runtime.huge_pages import use_huge_pages
from edgetune.runtime.open_session import open_session
from edgetune.runtime.portable_session import PortableSession

LEARNING_RATE = 1e-5  # the values are thrown away; they shall only stay finite
_CACHE_BYTES = 2**30


def load(job: dict[str, Any]) -> Step:
    """One step: a batch in micro-batches, and the update."""
    if job["threads"] is not None:
        _limit_threads(job["threads"])
    session = open_session(Path(job["bundle"]))
    manifest = session.manifest
    data = load_data(job["data"], manifest.signature, manifest.loss)
    if job["features"] is not None:
        assert isinstance(session, PortableSession)
        session.keep_features(session.feature_cache(Path(job["features"]), _CACHE_BYTES))
    epochs = itertools.count()

    def step() -> None:
        order, _ = epoch_order(len(data), 0, next(epochs))
        plan = plan_batch(data, order[: manifest.plan.batch], manifest, "the data")
        for piece in micro_batches(data, plan, manifest.plan.micro_batch):
            session.accumulate(piece)
        session.update(LEARNING_RATE, None)

    return step


def _limit_threads(threads: int) -> None:
    """For all sessions of this process: edgetune has no such option."""
    make = onnxruntime.SessionOptions

    def limited() -> onnxruntime.SessionOptions:
        options = make()
        options.intra_op_num_threads = threads
        return options

    onnxruntime.SessionOptions = limited


if __name__ == "__main__":
    use_huge_pages()  # as the command line does
    serve(load)
