"""Executes a portable bundle on stock onnxruntime."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgetune.errors import (
    BundleError,
    CheckpointError,
    DataError,
    TrainingError,
    UsageError,
    raise_all,
)
from edgetune.files.safetensors_stream import read_file
from edgetune.nouns.bundle_names import (
    ACCUMULATED,
    EVALUATE,
    FEATURES,
    FROZEN,
    GRADIENTS,
    PREDICT,
    SCALE,
    STATE,
    UPDATE,
    slot_name,
)
from edgetune.nouns.manifest import Manifest
from edgetune.nouns.slices import put_slices, share_problems, take_slices
from edgetune.planning.process_memory import (
    ALLOCATOR_OVERHEAD,
    BLOCK_OVERHEAD,
    update_bytes,
)
from edgetune.runtime.expected_arrays import check_expected_arrays
from edgetune.runtime.feature_cache import FeatureCache, prefix_digest
from edgetune.runtime.loaded_graphs import LoadedGraphs
from edgetune.runtime.merge import merge
from edgetune.runtime.session import Array, Arrays, MicroBatch, MicroResult

_UPDATES = "updates"


class PortableSession:
    """A TrainingSession on the graphs of a portable bundle (see edgetune.runtime.session).

    folder: the bundle; manifest and digest: as `edgetune.files.bundle.read_manifest` gives them.
    profile_prefix: if given, onnxruntime times the nodes of every graph (`end_profiling`).
    Raises BundleError when a graph or the initial state cannot be loaded.
    """

    def __init__(
        self, folder: Path, manifest: Manifest, digest: str, profile_prefix: str | None = None
    ) -> None:
        self._folder, self._manifest, self._digest = folder, manifest, digest
        self._shares = manifest.plan.selection.shares
        # Whole tensors, because the graphs read them whole; all else here is of slices.
        self._values = _initial_values(folder, manifest)
        shapes = {
            name: self._shares[name].shape(value.shape) if name in self._shares else value.shape
            for name, value in self._values.items()
        }
        self._slots = {
            slot_name(slot, name): np.zeros(shape, self._values[name].dtype)
            for slot in manifest.plan.optimizer.slots
            for name, shape in shapes.items()
        }
        self._accumulated = {
            ACCUMULATED + name: np.zeros(shape, self._values[name].dtype)
            for name, shape in shapes.items()
        }
        self._graphs = LoadedGraphs(folder, self._block_bytes(), profile_prefix)
        self._pending = 0
        self._updates = 0
        self._cache: FeatureCache | None = None

    @property
    def manifest(self) -> Manifest:
        return self._manifest

    @property
    def digest(self) -> str:
        return self._digest

    def _block_bytes(self) -> float:
        """What the tensors of one run take at the most: of the gradients, or of an update."""
        step = self._manifest.plan.cost.activation_bytes * BLOCK_OVERHEAD / ALLOCATOR_OVERHEAD
        updates = [
            update_bytes(gradient.nbytes, name in self._shares)
            for name, gradient in self._like_values().items()
        ]
        return max([step, *updates])

    def accumulate(self, batch: MicroBatch) -> MicroResult:
        if not self._pending:
            for gradient in self._accumulated.values():
                gradient.fill(0)
        kept = (self._accumulated, self._values)
        results = self._graphs.run_in_place(
            GRADIENTS, self._tail_feeds(batch), kept, self._accumulated
        )
        self._pending += 1
        return _micro_result(results)

    def gradients(self) -> dict[str, Array]:
        if not self._pending:
            return {}
        return {name: gradient.copy() for name, gradient in self._like_values().items()}

    def load_gradients(self, gradients: Arrays) -> None:
        check_expected_arrays("gradients", gradients, self._like_values(), DataError)
        for name, gradient in gradients.items():
            np.copyto(self._accumulated[ACCUMULATED + name], gradient)
        self._pending = 1

    def update(self, learning_rate: float, clip_norm: float | None) -> float:
        if not self._pending:
            raise UsageError("there are no gradients to update with: accumulate some first")
        self._pending = 0
        # Checked before the graph runs, because it writes over values and state.
        squares = [float(np.vdot(g, g)) for g in self._accumulated.values()]
        if not np.isfinite(sum(squares)):
            raise TrainingError(
                f"the gradients' norm is {np.sqrt(sum(squares))} at update {self._updates + 1}: "
                "lower the learning rate, clip the gradients, or look for extreme values in the "
                "data; nothing was changed by this update"
            )
        numbers = {
            "learning_rate": learning_rate,
            "step": self._updates + 1,
            "clip_norm": np.inf if clip_norm is None else clip_norm,
            **self._manifest.plan.optimizer.hyperparameters(),
        }
        scalars = {name: np.asarray(number, np.float64) for name, number in numbers.items()}
        state = {**self._values, **self._slots}
        results = self._graphs.run_in_place(UPDATE, (scalars,), (state, self._accumulated), state)
        self._updates += 1
        return float(results["grad_norm"])

    def discard(self) -> None:
        self._pending = 0

    def smaller(self) -> bool:
        small = self._manifest.smaller
        if small is None:
            return False
        plan = replace(self._manifest.plan, micro_batch=small.micro_batch, cost=small.cost)
        if small.features != self._manifest.features:
            self._cache = None
        self._manifest = replace(self._manifest, plan=plan, features=small.features, smaller=None)
        self._graphs.go_over_to_smaller(self._block_bytes())
        self._pending = 0
        return True

    def evaluate(self, batch: MicroBatch) -> MicroResult:
        return _micro_result(self._graphs.run(EVALUATE, *self._tail_feeds(batch), self._values))

    def predict(self, inputs: Arrays) -> dict[str, Array]:
        count = min((len(array) for array in inputs.values()), default=0)
        if not count:
            raise DataError("there is nothing to predict: the inputs hold no sample")
        fixed = self._graphs.batch_of(PREDICT)
        size = fixed or self._manifest.plan.micro_batch
        parts = [
            self._predict_rows(inputs, range(start, min(start + size, count)), fixed)
            for start in range(0, count, size)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _predict_rows(self, inputs: Arrays, rows: range, fixed: int | None) -> dict[str, Array]:
        """Predictions for some samples; a graph of a fixed batch gets the last one again."""
        taken = np.minimum(np.arange(rows.start, rows.start + (fixed or len(rows))), rows.stop - 1)
        feeds = {name: array[taken] for name, array in inputs.items()}
        results = self._graphs.run(PREDICT, feeds, self._values)
        return {name: value[: len(rows)] for name, value in results.items()}

    def write_inference_model(self, out: Path) -> None:
        merge(self._folder / PREDICT, self._values, out)

    def values(self, *, copy: bool = True) -> dict[str, Array]:
        return {
            name: take_slices(whole, self._shares.get(name))
            if copy or name in self._shares
            else _read_only(whole)
            for name, whole in self._values.items()
        }

    def load_values(self, values: Arrays) -> None:
        check_expected_arrays("values", values, self._like_values(), DataError)
        self._put(values)

    def state(self, *, copy: bool = True) -> dict[str, Array]:
        slots = {n: slot.copy() if copy else _read_only(slot) for n, slot in self._slots.items()}
        return {**self.values(copy=copy), **slots, _UPDATES: np.asarray(self._updates, np.int64)}

    def load_state(self, state: Arrays, *, copy: bool = True) -> None:
        updates = np.asarray(0, np.int64)
        expected = {**self._like_values(), **self._slots, _UPDATES: updates}
        check_expected_arrays("checkpoint values", state, expected, CheckpointError)
        self._put(state)
        if copy:
            for name, array in self._slots.items():
                np.copyto(array, state[name])
        else:
            self._slots = {name: state[name] for name in self._slots}
        self._updates, self._pending = int(state[_UPDATES]), 0

    def end_profiling(self) -> dict[str, Path]:
        """Onnxruntime's records of the graphs loaded now, by graph; only with a profile_prefix."""
        return self._graphs.end_profiling()

    def _put(self, values: Arrays) -> None:
        for name, whole in self._values.items():
            put_slices(whole, self._shares.get(name), values[name])

    def _like_values(self) -> dict[str, Array]:
        """The gradients' own memory: arrays by parameter name, shaped like the trainable values."""
        return {name: self._accumulated[ACCUMULATED + name] for name in self._values}

    def features(self, inputs: Arrays) -> dict[str, Array]:
        """What the frozen prefix makes of a micro-batch, by tensor; empty without a prefix."""
        if not self._manifest.features:
            return {}
        return {name: value.copy() for name, value in self._computed(inputs).items()}

    def _computed(self, inputs: Arrays) -> dict[str, Array]:
        """The same, in memory that is written over when it is computed again."""
        return self._graphs.run_in_place(FEATURES, (inputs,), (), {})

    def keep_features(self, cache: FeatureCache | None) -> None:
        """Read the prefix's results from `cache` where they are there; None computes them."""
        self._cache = cache

    def feature_cache(self, folder: Path, bound_bytes: int) -> FeatureCache:
        """A cache of this bundle's prefix in `folder`."""
        files = tuple(name for name in (FEATURES, FROZEN) if name in self._manifest.digests)
        return FeatureCache(folder, prefix_digest(self._manifest.digests, files), bound_bytes)

    def _tail_feeds(self, batch: MicroBatch) -> tuple[Arrays, ...]:
        """What of a batch gradient and evaluation graphs read: features, or the inputs."""
        if not self._manifest.features:
            features: Arrays = {}
        elif self._cache is None:
            features = self._computed(batch.inputs)
        else:
            features = self._cache.features(batch, self._computed)
        return features, batch.targets, {SCALE: batch.scale}, batch.inputs


def _initial_values(folder: Path, manifest: Manifest) -> dict[str, Array]:
    path = folder / STATE
    try:
        found = read_file(path)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BundleError(f"cannot read {path}: {error}; copy the bundle again") from error
    names: Iterable[str] = manifest.plan.selection.trainable
    missing = [f"{name} is missing" for name in names if name not in found]
    misfits = [
        problem
        for name, share in manifest.plan.selection.shares.items()
        if name in found
        for problem in share_problems(name, share, found[name].shape)
    ]
    raise_all(BundleError, f"{path} does not fit the manifest", [*missing, *misfits])
    return {name: found[name] for name in names}


def _read_only(array: Array) -> Array:
    """The memory of `array`, which cannot be written through what is returned."""
    view = array.view()
    view.flags.writeable = False
    return view


def _micro_result(results: Mapping[str, Any]) -> MicroResult:
    return MicroResult(float(results["loss"]), int(results.get("correct", 0)))
