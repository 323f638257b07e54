"""Writes the bundles, data and PyTorch results that the device tests need.

Run by the workstation's Python, as `python -m tests.bundles.make [FOLDER]`; does nothing when the
folder was made from the same sources. Per case of cases.py: the bundle, NAME.data.npz, and
NAME.expected.npz with what PyTorch's own training makes of the same data.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from edgetune_exporters.export import export
from edgetune_exporters.factory import Example, example_from
from edgetune_exporters.int8.calibration import Int8Calibration
from edgetune_exporters.make_plan import make_plan
from edgetune_exporters.reference import torch_optimizer
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from edgetune.files.atomic import new_folder, write_atomically
from edgetune.files.bundle import read_manifest
from edgetune.files.device_profiles import load_profile
from edgetune.nouns.manifest import Manifest
from edgetune.nouns.plan_request import PlanRequest
from tests.bundles.cases import CASES, EPOCHS, FOLDER, INT8, ORT_TRAINING, ROOT, SEED, Case

STAMP = "sources.sha256"
Arrays = dict[str, Any]


def main(folder: Path) -> None:
    """Write everything into `folder`, unless it was made from these sources."""
    stamp = sources_digest()
    if (folder / STAMP).is_file() and (folder / STAMP).read_text() == stamp:
        return
    with new_folder(folder) as new:
        for name, case in CASES.items():
            print(f"making the bundle {name}", flush=True)
            write_case(new, name, case)
        write_atomically(new / STAMP, stamp.encode())


def sources_digest() -> str:
    """SHA-256 of every source file that decides what is written, and of PyTorch's version."""
    digest = hashlib.sha256(torch.__version__.encode())
    folders = ("edgetune", "exporters", "tests/zoo", "tests/bundles")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    for path in sorted(files):
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith(("edgetune/cli/", "tests/bundles/test_")):
            digest.update(f"{name}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def write_case(folder: Path, name: str, case: Case) -> None:
    """Bundle, data and expected results of one case."""
    module, _, function = case.factory.partition(":")
    example = example_from(getattr(importlib.import_module(f"tests.zoo.{module}"), function)())
    request = PlanRequest(
        load_profile("generic-x86"),
        optimizer=case.optimizer,
        patterns=case.patterns,
        batch=case.batch,
        micro_batch=case.micro_batch,
    )
    planned = make_plan(example, request)
    export(example, planned, ("portable",), folder / name)
    if ORT_TRAINING.startswith(f"{name}-"):
        export(example, planned, ("ort-training",), folder / ORT_TRAINING)
    if INT8.startswith(f"{name}-"):
        rounded = make_plan(example, replace(request, precisions=("int8",)))
        # The model is random, and may lose what it likes; what counts is where it computes what.
        export(example, rounded, ("portable",), folder / INT8, Int8Calibration(tolerance=1))
    inputs, targets, weights = make_data(example, case)
    arrays: Arrays = {"targets": targets.numpy(), **{n: t.numpy() for n, t in inputs.items()}}
    if case.weighted:
        arrays["sample_weight"] = weights.numpy()
    np.savez(folder / f"{name}.data.npz", **arrays)
    manifest, _ = read_manifest(folder / name)
    expected = Training(example, manifest, case).run(inputs, targets, weights)
    np.savez(folder / f"{name}.expected.npz", **expected)


def make_data(example: Example, case: Case) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Samples like the example's, by input name; targets; weights (all one where unweighted)."""
    generator = torch.Generator().manual_seed(11)
    rows = torch.arange(case.samples) % len(example.targets)
    named = example.inputs
    if isinstance(named, Tensor):
        argument = next(iter(example.model.forward.__annotations__))
        named = {argument: named}
    inputs = {name: _like(tensor[rows], generator) for name, tensor in named.items()}
    targets = example.targets[rows]
    if targets.dtype == torch.int64:
        targets = targets[torch.randperm(case.samples, generator=generator)]
    weights = torch.ones(case.samples)
    if case.weighted:
        weights = torch.rand(case.samples, generator=generator) * 2
        weights[3] = 0
    return inputs, targets, weights


def _like(samples: Tensor, generator: torch.Generator) -> Tensor:
    if not samples.is_floating_point():
        return samples
    return samples + 0.3 * torch.randn(samples.shape, generator=generator)


class Training:
    """The loop that one would write in PyTorch. BatchNorm is fused by torch.nn.utils.fusion."""

    def __init__(self, example: Example, manifest: Manifest, case: Case) -> None:
        self.case, self.loss = case, example.loss
        self.model = copy.deepcopy(example.model).eval()
        names = {name: name for name, _ in self.model.named_parameters()}
        for folded in manifest.folded:
            convolution = folded.weight.removesuffix(".weight")
            fused = fuse_conv_bn_eval(
                self.model.get_submodule(convolution), self.model.get_submodule(folded.batch_norm)
            )
            self.model.set_submodule(convolution, fused)
            self.model.set_submodule(folded.batch_norm, nn.Identity())
            names[f"{convolution}.bias"] = folded.bias
        assert not any("BatchNorm" in type(m).__name__ for m in self.model.modules())
        found = {names[n]: p for n, p in self.model.named_parameters()}
        self.trained = {name: found[name] for name in manifest.plan.selection.trainable}
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        for parameter in self.trained.values():
            parameter.requires_grad_(True)

    def run(self, inputs: dict[str, Tensor], targets: Tensor, weights: Tensor) -> Arrays:
        """Loss, norm, rate and values after each update; at the end outputs and mean loss."""
        batch = self.case.training.get("batch", self.case.batch)
        clip_norm = self.case.training.get("clip_norm", math.inf)
        base = self.case.training["learning_rate"]
        parameters = list(self.trained.values())
        optimizer = torch_optimizer(self.case.optimizer, parameters, base)
        total = EPOCHS * -(-len(targets) // batch)
        schedule = self.schedule(optimizer, total)
        result: Arrays = {"loss": [], "grad_norm": [], "learning_rate": []}
        for step, rows in enumerate(self.batches(len(targets), batch)):
            optimizer.zero_grad()
            loss = self.mean_loss(inputs, targets, weights, rows)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(parameters, clip_norm)
            result["learning_rate"].append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
            result["loss"].append(loss.item())
            result["grad_norm"].append(norm.item())
            values = {n: p.detach().numpy().copy() for n, p in self.trained.items()}
            result.update({f"value{step}:{name}": value for name, value in values.items()})
        with torch.no_grad():
            everything = torch.arange(len(targets))
            result["output"] = self.model(**inputs).numpy()
            result["final_loss"] = self.mean_loss(inputs, targets, weights, everything).item()
        return result

    def schedule(self, optimizer: torch.optim.Optimizer, total: int) -> Any:
        schedulers = torch.optim.lr_scheduler
        warmup = self.case.training.get("warmup_steps", 0)
        if self.case.training.get("schedule") != "cosine":
            return schedulers.LambdaLR(optimizer, lambda _: 1.0)
        cosine = schedulers.CosineAnnealingLR(optimizer, T_max=total - warmup)
        if not warmup:
            return cosine
        line = schedulers.LinearLR(optimizer, 1 / (warmup + 1), total_iters=warmup)
        return schedulers.SequentialLR(optimizer, [line, cosine], milestones=[warmup])

    def batches(self, count: int, batch: int) -> Iterator[Tensor]:
        for epoch in range(EPOCHS):
            generator = np.random.Generator(np.random.PCG64([SEED, epoch]))
            yield from torch.from_numpy(generator.permutation(count)).split(batch)

    def mean_loss(
        self, inputs: dict[str, Tensor], targets: Tensor, weights: Tensor, rows: Tensor
    ) -> Tensor:
        outputs = self.model(**{name: tensor[rows] for name, tensor in inputs.items()})
        if not self.case.weighted:
            mean: Tensor = self.loss(outputs, targets[rows])
            return mean
        terms = type(self.loss)(reduction="none")(outputs, targets[rows])
        terms = terms.reshape(len(rows), -1).mean(1)
        return (terms * weights[rows]).sum() / weights[rows].sum()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
