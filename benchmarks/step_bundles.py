"""Bundles, artifacts of onnxruntime-training and data of a workload, written where missing."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from edgetune_exporters.export import export
from edgetune_exporters.factory import Example, load_example
from edgetune_exporters.int8.calibration import Int8Calibration
from edgetune_exporters.make_plan import Variants, plan_for
from ort_artifacts import write_artifacts
from step_workloads import EdgetuneSide, Trained

from edgetune.files.atomic import new_folder
from edgetune.files.bundle import read_manifest
from edgetune.files.cost_table import read_cost_table
from edgetune.files.device_profiles import load_profile
from edgetune.nouns.plan_request import PlanRequest
from edgetune.nouns.precision import Precision
from edgetune.planning.split import split_step

ROOT = Path(__file__).resolve().parent.parent
BATCH = 8
# With random weights the loss says nothing about the rounding, which is judged on real ones.
_ANY_LOSS = Int8Calibration(samples=BATCH, tolerance=1e9)


def sources_digest() -> str:
    """Of all that a bundle is made by: bundles of other sources are not used."""
    digest = hashlib.sha256()
    folders = (ROOT / "edgetune", ROOT / "exporters", ROOT / "benchmarks" / "workloads")
    for path in sorted(path for folder in folders for path in folder.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


class WorkloadFiles:
    """The files of one model, in `folder`; what is there is not written again.

    factory: `file.py:name`.
    """

    def __init__(self, factory: str, folder: Path) -> None:
        self.factory, self._folder = factory, folder
        self._variants: dict[tuple[Precision, int | None], Variants] = {}
        self._example: Example | None = None

    @property
    def example(self) -> Example:
        """The model and its batch, made when something has to be written."""
        if self._example is None:
            self._example = load_example(self.factory)
        return self._example

    def trainable(self, patterns: Sequence[str]) -> list[str]:
        """The parameters that match, in the model's order."""
        names = [name for name, _ in self.example.model.named_parameters()]
        return [n for n in names if any(fnmatch.fnmatchcase(n, p) for p in patterns)]

    def data(self) -> Path:
        """The batch as an .npz."""
        path = self._folder / "data.npz"
        if not path.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            np.savez(path, **self._arrays(), targets=self.example.targets.numpy())
        return path

    def input_names(self) -> list[str]:
        """In the order of the model's arguments."""
        return list(self._arrays())

    def bundle(self, trained: Trained, side: EdgetuneSide) -> Path:
        """The bundle of a side; a side that caches features runs that of the side that computes."""
        parts = (trained.name, side.format, side.precision, f"micro{side.micro_batch or 'any'}")
        target = self._folder / "-".join(parts).replace(" ", "-")
        if not target.exists():
            variants = self._variants_of(side)
            planned = plan_for(variants, None, self._request(trained, side))
            export(self.example, planned, (side.format,), target, _ANY_LOSS)
        return target

    def artifacts(self, trained: Trained) -> Path:
        """What onnxruntime-training's documentation has one generate; frozen weights embedded."""
        target = self._folder / f"{trained.name.replace(' ', '-')}-artifacts"
        if not target.exists():
            with new_folder(target) as folder:
                names = self.trainable(trained.patterns)
                write_artifacts(self.example, self.input_names(), names, folder)
        return target

    def _arrays(self) -> dict[str, Any]:
        inputs = self.example.inputs
        named = inputs if isinstance(inputs, dict) else {"x": inputs}
        return {name: value.numpy() for name, value in named.items()}

    def _request(self, trained: Trained, side: EdgetuneSide) -> PlanRequest:
        return PlanRequest(
            load_profile("generic-x86"),
            patterns=trained.patterns,
            batch=BATCH,
            micro_batch=side.micro_batch,
            precisions=(side.precision,),
            recomputation=False,
        )

    def _variants_of(self, side: EdgetuneSide) -> Variants:
        key = (side.precision, side.micro_batch)
        if key not in self._variants:
            request = self._request(Trained("", ()), side)
            self._variants[key] = Variants(self.example, request, None)
        return self._variants[key]


def step_flops(bundle: Path, cached: bool) -> float:
    """Of one step of a portable bundle; cached: without what the prefix computes."""
    manifest, _ = read_manifest(bundle)
    plan = manifest.plan
    if not cached:
        return plan.cost.flops
    prefix = split_step(read_cost_table(bundle, manifest), plan.selection).prefix
    return plan.cost.flops - sum(o.flops for o in prefix) * plan.batch / plan.micro_batch
