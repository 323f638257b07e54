"""From a plan to bundles: written, verified against PyTorch, and only then put in place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from torch import Tensor
from torch.utils import _pytree as pytree

from edgetune.errors import ExportError, UsageError, raise_all
from edgetune.files.atomic import new_folder
from edgetune.files.bundle import digests_of, write_manifest
from edgetune.nouns.bundle_names import PREDICT, SMALLER, SMALLER_GRAPHS
from edgetune.nouns.manifest import FORMATS, Manifest, SmallerMicroBatch
from edgetune.nouns.precision import Int8Loss
from edgetune.nouns.selection import Selection
from edgetune.planning.split import split_step
from edgetune.runtime.open_session import open_as_exported
from edgetune.runtime.portable_session import PortableSession
from edgetune.runtime.self_test import (
    SelfTest,
    SelfTestReport,
    run_every_self_test,
    write_self_test,
)
from edgetune.runtime.session import TrainingSession
from edgetune_exporters.dense_step import lowered_forward
from edgetune_exporters.factory import Example
from edgetune_exporters.int8.calibration import (
    DEFAULT_CALIBRATION,
    Int8Calibration,
    calibration_batches,
    int8_loss,
    measure,
)
from edgetune_exporters.int8.prefix import with_int8_prefix
from edgetune_exporters.make_plan import PlannedStep
from edgetune_exporters.ort_training import write_ort_training
from edgetune_exporters.portable.graphs import portable_graphs
from edgetune_exporters.portable.predict_graph import predict_graph
from edgetune_exporters.portable.write import write_portable
from edgetune_exporters.reference import record_from_features, record_reference
from edgetune_exporters.smaller import in_smaller_pieces

Graphs = Mapping[str, onnx.ModelProto]

# Largest difference of a prediction, as a share of the largest output (or of 1).
PREDICTION_TOLERANCE = 1e-3

# What the samples are multiplied by, one after the other, until the export agrees with PyTorch.
_FACTORS = (1.0, 1.003, 0.997)


def export(
    example: Example,
    planned: PlannedStep,
    formats: tuple[str, ...],
    out: Path,
    int8: Int8Calibration = DEFAULT_CALIBRATION,
) -> dict[str, SelfTestReport]:
    """Write one bundle per format: into `out`, or into `out/FORMAT` when there are several.

    Each is verified before it is put in place: loss, every gradient and three updates against
    PyTorch. Where the plan's prefix is in 8 bits the same graphs are verified in fp32 first, then
    behind the rounded features. int8: on which samples it is calibrated. Raises ExportError naming
    what differs; nothing is left behind then.

    Where a ReLU's input is within rounding of zero, two exact programs may let through different
    sides of it, and a gradient differs. So what differs is looked at again on the same samples made
    a little larger: a fault is still there, such a coincidence is not.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise UsageError(f"unknown format {unknown}: expected {' or '.join(FORMATS)}")
    _refuse_foreign_folder(out)
    plan = planned.plan
    if plan.precision == "int8" and "ort-training" in formats:
        raise UsageError("the format ort-training has no prefix in 8 bits: use --precision fp32")
    for factor in _FACTORS[:-1]:
        try:
            return _export(*_scaled(example, planned, factor), formats, out, int8)
        except _DiffersError:
            continue
    return _export(*_scaled(example, planned, _FACTORS[-1]), formats, out, int8)


class _DiffersError(ExportError):
    """What was exported does not compute what PyTorch computes."""


def _scaled(example: Example, planned: PlannedStep, factor: float) -> tuple[Example, PlannedStep]:
    """Both with every floating-point input times `factor`."""
    if factor == 1:
        return example, planned

    def scaled(value: Tensor) -> Tensor:
        return value * factor if value.is_floating_point() else value

    model = planned.step.model
    inputs = {name: scaled(value) for name, value in model.inputs.items()}
    step = replace(planned.step, model=replace(model, inputs=inputs))
    larger = replace(example, inputs=pytree.tree_map_only(Tensor, scaled, example.inputs))
    return larger, replace(planned, step=step)


def _export(
    example: Example,
    planned: PlannedStep,
    formats: tuple[str, ...],
    out: Path,
    int8: Int8Calibration,
) -> dict[str, SelfTestReport]:
    plan = planned.plan
    recorded = record_reference(example, planned.step, plan.selection, plan.optimizer)
    smaller = in_smaller_pieces(example, planned) if "portable" in formats else None
    reports = {}
    with new_folder(out) as folder:
        for name in formats:
            target = folder if len(formats) == 1 else folder / name
            target.mkdir(exist_ok=True)
            graphs = _write(planned, smaller, name, recorded, target)
            reports[name] = _verify(planned, target, name, recorded)
            if plan.precision == "int8":
                reports[name] = _in_int8(example, planned, graphs, recorded, target, int8)
    return reports


def _refuse_foreign_folder(out: Path) -> None:
    """Replace only what export wrote: a typing mistake must not delete somebody's folder."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"--out {out} is a file: expected a folder that is new or a bundle")
    ours = [out, *(out / name for name in FORMATS)]
    if any(out.iterdir()) and not any((folder / "manifest.json").is_file() for folder in ours):
        raise UsageError(
            f"--out {out} exists and is not a bundle: choose a new folder, or remove it yourself"
        )


def _write(
    planned: PlannedStep,
    smaller: PlannedStep | None,
    name: str,
    recorded: SelfTest,
    folder: Path,
) -> Graphs:
    """Write a bundle with an fp32 prefix; the graphs of a portable one."""
    plan, step = planned.plan, planned.step
    graphs: Graphs = {}
    carried = None
    if name == "portable":
        graphs = portable_graphs(step, plan.selection, plan.optimizer)
        pieces: Graphs = {}
        if smaller is not None:
            made = portable_graphs(smaller.step, plan.selection, plan.optimizer)
            pieces = {SMALLER + graph: made[graph] for graph in SMALLER_GRAPHS if graph in made}
            features = split_step(smaller.step.graph, plan.selection).features
            carried = SmallerMicroBatch(smaller.plan.micro_batch, smaller.plan.cost, features)
        write_portable({**graphs, **pieces}, step, plan, folder)
    else:
        # ORT differentiates by itself, so it gets the forward part alone.
        lowered = lowered_forward(step.example, plan.micro_batch)
        selection = plan.selection
        write_ort_training(
            lowered.model, selection.trainable, plan.optimizer, folder, selection.shares
        )
        if selection.shares:
            # Its own inference model would hold the cut tensors: this one holds them whole.
            whole = predict_graph(step, Selection(()))
            (folder / PREDICT).write_bytes(whole.SerializeToString(deterministic=True))
    _finish(planned, name, recorded, folder, smaller=carried)
    return graphs


def _finish(
    planned: PlannedStep,
    name: str,
    recorded: SelfTest,
    folder: Path,
    int8: Int8Loss | None = None,
    smaller: SmallerMicroBatch | None = None,
) -> None:
    """Write the self-test and the manifest."""
    plan, step = planned.plan, planned.step
    features = split_step(step.graph, plan.selection).features if name == "portable" else ()
    write_self_test(folder, recorded)
    manifest = Manifest(
        name, step.signature, step.loss.spec, plan, features, step.model.folded, {}, int8, smaller
    )
    write_manifest(folder, replace(manifest, digests=digests_of(folder)))


def _in_int8(
    example: Example,
    planned: PlannedStep,
    graphs: Graphs,
    recorded: SelfTest,
    folder: Path,
    int8: Int8Calibration,
) -> SelfTestReport:
    """Round the prefix of the verified bundle in `folder`, and verify what follows it again.

    Raises ExportError when the loss of the calibration samples rises by more than is tolerated.
    """
    plan, step = planned.plan, planned.step
    session = _open_portable(folder)
    batches = calibration_batches(example, step, session, int8)
    exact = measure(session, batches)
    trainable, _ = plan.selection.partition(step.model.parameters)
    values = {name: value.detach().numpy() for name, value in trainable.items()}
    rounded = with_int8_prefix(graphs, values, [batch.inputs for batch in batches])
    write_portable(rounded, step, plan, folder)
    _finish(planned, "portable", recorded, folder)
    session = _open_portable(folder)
    samples = min(int8.samples, len(example.targets))
    loss = int8_loss(exact, measure(session, batches), int8, samples)
    behind = record_from_features(
        recorded, step, plan.selection, session.features(recorded.batch.inputs)
    )
    _finish(planned, "portable", behind, folder, loss)
    report = run_every_self_test(open_as_exported(folder), behind)
    raise_all(
        _DiffersError,
        "behind the 8-bit prefix the export does not compute what PyTorch computes, so nothing was "
        "written",
        report.problems,
    )
    return report


def _open_portable(folder: Path) -> PortableSession:
    session = open_as_exported(folder)
    assert isinstance(session, PortableSession)
    return session


def _verify(planned: PlannedStep, folder: Path, name: str, recorded: SelfTest) -> SelfTestReport:
    session = open_as_exported(folder)
    wrong = _wrong_predictions(planned, session, recorded)
    report = run_every_self_test(session, recorded)
    raise_all(
        _DiffersError,
        f"the {name} export does not compute what PyTorch computes, so nothing was written",
        [*report.problems, *wrong],
    )
    return report


def _wrong_predictions(
    planned: PlannedStep, session: TrainingSession, recorded: SelfTest
) -> list[str]:
    """Outputs that differ from the captured model's, for the micro-batch and for one sample."""
    expected = [value.numpy() for value in pytree.tree_leaves(planned.step.model.outputs())]
    problems = []
    for rows in (planned.plan.micro_batch, 1):
        inputs = {name: array[:rows] for name, array in recorded.batch.inputs.items()}
        found = session.predict(inputs)
        for spec, reference in zip(planned.step.signature.outputs, expected, strict=True):
            error = np.abs(found[spec.name] - reference[:rows]).max(initial=0)
            if not error <= PREDICTION_TOLERANCE * max(np.abs(reference).max(initial=0), 1):
                problems.append(
                    f"the prediction {spec.name} for {rows} samples is off by {error:.3g}"
                )
    return problems
