"""A bundle that trains part of what another one trains, made of its graphs on the device.

The graphs are cut as an export would cut them: along the split of what is still trained. So what
only tensors no longer trained needed is gone, and what lies below the first that is trained moves
into the frozen prefix.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edgetune.errors import BundleError, UsageError, raise_all
from edgetune.files.atomic import new_folder
from edgetune.files.bundle import digests_of, write_manifest
from edgetune.files.frozen_tensors import INLINE_BYTES, append_tensors
from edgetune.files.onnx_trim import freeze_inputs, join_models, trim_model, without_inputs
from edgetune.files.onnx_weights import read_model
from edgetune.files.safetensors_stream import read_file, write_tensors
from edgetune.nouns.bundle_names import (
    ACCUMULATED,
    COSTS,
    EVALUATE,
    FEATURES,
    FROZEN,
    GRADIENTS,
    NEXT,
    PREDICT,
    STATE,
    TUNED,
    UPDATE,
    slot_name,
)
from edgetune.nouns.loss import Array
from edgetune.nouns.manifest import Manifest
from edgetune.nouns.plan import UpdatePlan
from edgetune.nouns.slices import put_slices
from edgetune.nouns.step_graph import StepGraph
from edgetune.planning.split import split_step
from edgetune.runtime.onnx_session import load_graph
from edgetune.runtime.onnxruntime_packages import import_onnxruntime
from edgetune.runtime.open_session import open_as_exported, open_session
from edgetune.runtime.self_test import (
    SelfTest,
    read_self_test,
    run_self_test,
    write_self_test,
)
from edgetune.runtime.session import Arrays
from edgetune.runtime.trimmed_self_test import record_trimmed


def write_trimmed_bundle(
    bundle: Path, plan: UpdatePlan, graph: StepGraph, out: Path, values: Arrays | None = None
) -> Manifest:
    """Write the portable bundle in `bundle`, with `plan` in place of its own, to the folder `out`.

    plan: selects part of what the bundle's plan selects. graph: the bundle's dense step. values: of
    what the bundle trains, in place of the bundle's own. What is no longer trained keeps its value,
    as a constant. Before it is put in place the new bundle has passed its self-test.
    Raises UsageError when `out` exists or `check_trimmable` does, BundleError for a damaged bundle
    and where what was written does not compute what the bundle computes, StorageError.
    """
    if out.exists():
        raise UsageError(f"--out {out} exists: choose a new folder")
    session = open_as_exported(bundle)
    manifest = session.manifest
    check_trimmable(manifest, plan, graph)
    recorded = read_self_test(bundle)
    report = run_self_test(session, recorded)
    raise_all(BundleError, f"{bundle} fails its self-test here", report.problems)
    if values is None and TUNED in manifest.digests:
        values = open_session(bundle).values()
    present = session.values() if values is None else values
    recorded = record_trimmed(session, recorded, plan.selection.trainable, values)
    del session  # its graphs take the memory that the new ones need
    whole = _Whole(bundle, manifest, graph)
    with new_folder(out) as folder:
        features = _write_files(whole, plan, present, recorded, folder)
        new = replace(
            manifest, plan=plan, features=features, digests=digests_of(folder), smaller=None
        )
        write_manifest(folder, new)
        report = run_self_test(open_as_exported(folder), read_self_test(folder))
        raise_all(
            BundleError,
            f"the graphs of {bundle} compute something else once they are trimmed, so nothing was "
            "written",
            report.problems,
        )
    return new


def check_trimmable(manifest: Manifest, plan: UpdatePlan, graph: StepGraph) -> None:
    """Raise UsageError where only a new export makes a bundle of `plan`, saying why."""
    if manifest.format != "portable":
        raise UsageError(
            f"--out trims the graphs of the format portable, this bundle has {manifest.format}: "
            "export it again"
        )
    trained = [c.name for c in graph.selected(manifest.plan.selection)]
    chosen = graph.selected(plan.selection)
    raise_all(
        UsageError,
        "only a new export can train this plan: leave out --out to see its command, or give scores "
        "of what the bundle trains alone",
        [f"{c.name} is not trained by the bundle" for c in chosen if c.name not in trained],
    )
    if manifest.plan.precision == "int8":
        features = split_step(graph, plan.selection).features
        if features != manifest.features:
            raise UsageError(
                "without these tensors the prefix in 8 bits would grow, and what it takes in only "
                "an export can round: export the bundle again"
            )


@dataclass(frozen=True)
class _Whole:
    """The bundle that is trimmed: where it lies, what it says, and its graphs' dense step."""

    folder: Path
    manifest: Manifest
    graph: StepGraph

    def model(self, name: str) -> bytes:
        """Its graph of that name. Raises BundleError."""
        return read_model(self.folder / name)


def _write_files(
    whole: _Whole, plan: UpdatePlan, present: Arrays, recorded: SelfTest, folder: Path
) -> tuple[str, ...]:
    """Write all but the manifest into `folder`; the features that the new prefix hands on.

    present: what the bundle trains, as it shall be.
    """
    values = _whole_tensors(whole, present)
    kept = plan.selection.trainable
    dropped = {name: value for name, value in values.items() if name not in kept}
    _keep_file(whole.folder / COSTS, folder / COSTS)
    frozen = folder / FROZEN
    if any(value.nbytes >= INLINE_BYTES for value in dropped.values()):
        shutil.copyfile(whole.folder / FROZEN, frozen)
    else:
        _keep_file(whole.folder / FROZEN, frozen)
    tensors = append_tensors(frozen, dropped)
    (folder / PREDICT).write_bytes(freeze_inputs(whole.model(PREDICT), tensors))
    (folder / UPDATE).write_bytes(_update(whole, dropped))
    features = split_step(whole.graph, plan.selection).features
    arrays = _write_prefix(whole, features, tensors, recorded, folder)
    scores = [name for name in (whole.graph.loss, whole.graph.correct) if name]
    sums = [NEXT + ACCUMULATED + name for name in kept]
    for name, outputs in ((GRADIENTS, [*scores, *sums]), (EVALUATE, scores)):
        tail = freeze_inputs(whole.model(name), tensors)
        if arrays:
            tail = _with_prefix(whole, tail, tensors)
        (folder / name).write_bytes(trim_model(tail, outputs, arrays))
    _write_state(folder / STATE, {name: values[name] for name in kept})
    write_self_test(folder, recorded)
    return features


def _write_prefix(
    whole: _Whole,
    features: tuple[str, ...],
    tensors: Mapping[str, bytes],
    recorded: SelfTest,
    folder: Path,
) -> Arrays:
    """Write the graph that makes `features`: arrays like them, none where it is the one there was.

    Their types are in no file of the bundle: the graph says by making them of the recorded batch.
    """
    if features == whole.manifest.features:
        if features:
            _keep_file(whole.folder / FEATURES, folder / FEATURES)
        return {}
    model = _with_prefix(whole, freeze_inputs(whole.model(GRADIENTS), tensors), tensors)
    path = folder / FEATURES
    path.write_bytes(trim_model(model, features))
    prefix = load_graph(import_onnxruntime(), path, FEATURES)
    inputs = {i.name: recorded.batch.inputs[i.name] for i in prefix.get_inputs()}
    arrays = dict(zip(features, prefix.run(list(features), inputs), strict=True))
    path.write_bytes(trim_model(model, features, arrays))
    return arrays


def _with_prefix(whole: _Whole, tail: bytes, tensors: Mapping[str, bytes]) -> bytes:
    """The graph `tail` from the data on: features are made in it, by the bundle's own prefix."""
    if not whole.manifest.features:
        return tail
    order = [operation.name for operation in whole.graph.operations]
    return join_models(freeze_inputs(whole.model(FEATURES), tensors), tail, order)


def _update(whole: _Whole, dropped: Arrays) -> bytes:
    slots = whole.manifest.plan.optimizer.slots
    inputs = [*dropped, *(ACCUMULATED + name for name in dropped)]
    inputs += [slot_name(slot, name) for slot in slots for name in dropped]
    return without_inputs(whole.model(UPDATE), inputs)


def _whole_tensors(whole: _Whole, present: Arrays) -> dict[str, Array]:
    """The tensors that the bundle trains, whole where `present` has slices."""
    shares = whole.manifest.plan.selection.shares
    tensors = read_file(whole.folder / STATE)
    for name, value in present.items():
        put_slices(tensors[name], shares.get(name), value)
    return {name: tensors[name] for name in present}


def _write_state(path: Path, values: Arrays) -> None:
    with path.open("wb") as file:
        write_tensors(file, values, {})


def _keep_file(source: Path, target: Path) -> None:
    """The same file in the new bundle, without taking its room twice where that can be."""
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(source, target)
