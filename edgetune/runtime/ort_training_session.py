"""A training session on the ONNX Runtime training API (onnxruntime-training-cpu 1.19.2).

The API keeps values, gradients and optimizer state in one CheckpointState. Gradients are readable
and writable there between a train step and the optimizer's, which is how their norm is taken and
how they are clipped: ORT itself does neither.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgetune.errors import (
    BundleError,
    CheckpointError,
    DataError,
    RuntimeSetupError,
    StorageError,
    TrainingError,
    UsageError,
)
from edgetune.files.atomic import write_atomically
from edgetune.files.onnx_weights import read_initializers, read_model
from edgetune.nouns.bundle_names import PREDICT
from edgetune.nouns.manifest import Manifest
from edgetune.nouns.slices import put_slices
from edgetune.runtime.expected_arrays import check_expected_arrays
from edgetune.runtime.merge import merge
from edgetune.runtime.ort_training_api import import_training_api
from edgetune.runtime.session import Array, Arrays, MicroBatch, MicroResult

STATE_KEY = "ort_checkpoint"
_DIGEST_PROPERTY = "edgetune_bundle"


class OrtTrainingSession:
    """Executes the files of an `ort-training` bundle; see `TrainingSession` for the methods.

    folder: the bundle; manifest: what it says; digest: SHA-256 of the manifest.
    Raises RuntimeSetupError without the training package, BundleError when ORT refuses a file.
    """

    def __init__(self, folder: Path, manifest: Manifest, digest: str) -> None:
        self._api = import_training_api()
        self._folder, self._manifest, self._digest = folder, manifest, digest
        try:
            self._loaded = self._api.load(folder, folder / "checkpoint")
        except RuntimeError as error:
            raise BundleError(
                f"ONNX Runtime training cannot load the bundle {folder}: {error}"
            ) from error
        self._loaded.checkpoint.properties[_DIGEST_PROPERTY] = digest
        self._pending = 0

    @property
    def manifest(self) -> Manifest:
        return self._manifest

    @property
    def digest(self) -> str:
        """SHA-256 of the bundle's manifest."""
        return self._digest

    def accumulate(self, batch: MicroBatch) -> MicroResult:
        """Add the gradients of one micro-batch to those of the batch so far."""
        outputs = self._run(batch, training=True)
        self._pending += 1
        return _result(outputs)

    def smaller(self) -> bool:
        return False  # a bundle carries one micro-batch

    def evaluate(self, batch: MicroBatch) -> MicroResult:
        """Loss and right predictions, no gradients."""
        return _result(self._run(batch, training=False))

    def update(self, learning_rate: float, clip_norm: float | None) -> float:
        """One optimizer step; the global L2 norm of the gradients before clipping.

        Raises TrainingError when the norm is not finite (values and state are then unchanged),
        UsageError when nothing was accumulated.
        """
        if not self._pending:
            raise UsageError(
                "there are no gradients to update with: accumulate a micro-batch first"
            )
        gradients = list(self._gradients().values())
        squares = [np.vdot(flat, flat) for flat in (g.astype(np.float64) for g in gradients)]
        norm = float(np.sqrt(sum(squares)))
        if not np.isfinite(norm):
            raise TrainingError(
                f"the gradients' norm is {norm}: nothing was updated; lower the learning rate or "
                "look for NaN and Inf in the data"
            )
        # As torch.nn.utils.clip_grad_norm_ does, its 1e-6 included.
        if clip_norm is not None and clip_norm / (norm + 1e-6) < 1:
            for gradient in gradients:
                np.multiply(gradient, np.float32(clip_norm / (norm + 1e-6)), out=gradient)
        self._loaded.optimizer.set_learning_rate(learning_rate)
        self._loaded.optimizer.step()
        self.discard()
        return norm

    def gradients(self) -> dict[str, Array]:
        """Copies of the accumulated gradients, empty when nothing was accumulated."""
        if not self._pending:
            return {}
        return {name: gradient.copy() for name, gradient in self._gradients().items()}

    def load_gradients(self, gradients: Arrays) -> None:
        """Put `gradients` in the place of accumulated ones; raises DataError on a mismatch."""
        check_expected_arrays("gradients", gradients, self.values(copy=False), DataError)
        for name, memory in self._gradients().items():
            np.copyto(memory, gradients[name])
        self._pending = 1

    def _gradients(self) -> dict[str, Array]:
        """The accumulated gradients: arrays that share ORT's memory, valid until the next call."""
        gradients: dict[str, Array] = {}
        for name, parameter in self._loaded.checkpoint.parameters:
            gradient = parameter.grad
            if not np.shares_memory(gradient, parameter.grad):
                # Only then would clipping write to a copy and silently do nothing.
                raise RuntimeSetupError(
                    "this onnxruntime.training hands out copies of gradients, which edgetune "
                    "needs to write: install onnxruntime-training-cpu 1.19.2"
                )
            gradients[name] = gradient
        return gradients

    def discard(self) -> None:
        """Forget the accumulated gradients."""
        self._loaded.module.lazy_reset_grad()
        self._pending = 0

    def predict(self, inputs: Arrays) -> dict[str, Array]:
        """The model's outputs for any number of samples, by name of the signature's outputs.

        The eval model also wants targets: it gets zeros, with scale 0.
        """
        size = self._manifest.plan.micro_batch
        count = min((len(array) for array in inputs.values()), default=0)
        if not count:
            raise DataError("there is nothing to predict: the inputs hold no sample")
        chunks = [
            self._predict_chunk({n: a[start : start + size] for n, a in inputs.items()})
            for start in range(0, count, size)
        ]
        return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}

    def _predict_chunk(self, inputs: Arrays) -> dict[str, Array]:
        size = self._manifest.plan.micro_batch
        count = len(next(iter(inputs.values())))
        # A batch that does not fill up repeats its last sample.
        rows = np.minimum(np.arange(size), count - 1)
        signature = self._manifest.signature
        batch = MicroBatch(
            inputs={name: array[rows] for name, array in inputs.items()},
            targets={t.name: np.zeros((size, *t.shape), t.dtype) for t in signature.targets},
            scale=np.zeros(size, np.float32),
        )
        outputs = self._run(batch, training=False)
        return {spec.name: outputs[spec.name][:count].copy() for spec in signature.outputs}

    def _run(self, batch: MicroBatch, training: bool) -> dict[str, Array]:
        """One step of the training or the eval model, its outputs by name."""
        module = self._loaded.module.train(training)
        arrays = {**batch.inputs, **batch.targets, "scale": batch.scale}
        try:
            results = module(*[np.ascontiguousarray(arrays[name]) for name in module.input_names()])
        except (KeyError, RuntimeError) as error:
            raise DataError(f"the micro-batch does not fit the bundle: {error}") from error
        results = results if isinstance(results, tuple) else (results,)
        return dict(zip(module.output_names(), results, strict=True))

    def write_inference_model(self, out: Path) -> None:
        """Write ORT's own inference model with the present values to `out`, atomically.

        Where slices are trained, that would hold cut tensors: the bundle has one of whole ones.
        """
        if self._manifest.plan.selection.shares:
            merge(self._folder / PREDICT, self._whole_values(), out)
            return
        names = [spec.name for spec in self._manifest.signature.outputs]
        with tempfile.TemporaryDirectory(prefix="edgetune-") as folder:
            path = Path(folder) / "model.onnx"
            try:
                self._loaded.module.export_model_for_inferencing(path, names)
                write_atomically(out, path.read_bytes())
            except RuntimeError as error:
                raise BundleError(f"ONNX Runtime cannot write the model: {error}") from error

    def _whole_values(self) -> dict[str, Array]:
        """The trained tensors, whole."""
        values, shares = self.values(), self._manifest.plan.selection.shares
        wholes = read_initializers(read_model(self._folder / PREDICT), self._folder, values)
        for name, slices in values.items():
            wholes[name] = wholes[name].copy()
            put_slices(wholes[name], shares.get(name), slices)
        return wholes

    def values(self, *, copy: bool = True) -> dict[str, Array]:
        """The trainable values, by parameter name, in the order of the selection."""
        parameters = self._loaded.checkpoint.parameters
        names = self._manifest.plan.selection.trainable
        views = {name: parameters[name].data for name in names}
        for view in views.values():
            view.flags.writeable = False
        return {name: view.copy() for name, view in views.items()} if copy else views

    def load_values(self, values: Arrays) -> None:
        """Replace the trainable values; raises DataError when a name, shape or type differs."""
        check_expected_arrays("values", values, self.values(copy=False), DataError)
        for name, value in values.items():
            self._loaded.checkpoint.parameters[name] = np.ascontiguousarray(value, np.float32)

    def state(self, *, copy: bool = True) -> dict[str, Array]:
        """ORT's own checkpoint, optimizer state included, as bytes: (size,) uint8.

        copy: ORT cannot do without.
        """
        with tempfile.TemporaryDirectory(prefix="edgetune-") as folder:
            path = Path(folder) / "checkpoint"
            try:
                self._api.training.CheckpointState.save_checkpoint(
                    self._loaded.checkpoint, path, include_optimizer_state=True
                )
                data = path.read_bytes()
            except (RuntimeError, OSError) as error:
                raise StorageError(
                    f"cannot write a temporary checkpoint to {folder}: {error}; free some space "
                    "there, or set TMPDIR"
                ) from error
        return {STATE_KEY: np.frombuffer(data, np.uint8)}

    def load_state(self, state: Arrays, *, copy: bool = True) -> None:
        """Continue from what `state` returned; raises CheckpointError, changing nothing."""
        data = state.get(STATE_KEY)
        if set(state) != {STATE_KEY} or data is None or data.dtype != np.uint8:
            raise CheckpointError(
                f"the checkpoint holds {', '.join(sorted(state)) or 'nothing'}: expected the bytes "
                f"{STATE_KEY!r} of an ort-training bundle; use the checkpoints of this bundle"
            )
        with tempfile.TemporaryDirectory(prefix="edgetune-") as folder:
            path = Path(folder) / "checkpoint"
            try:
                path.write_bytes(np.ascontiguousarray(data).data)
            except OSError as error:
                raise StorageError(f"cannot write to {folder}: {error}") from error
            try:
                loaded = self._api.load(self._folder, path)
            except RuntimeError as error:
                raise CheckpointError(f"the checkpoint cannot be read: {error}") from error
        self._check_checkpoint(loaded.checkpoint)
        self._loaded = loaded
        self.discard()

    def _check_checkpoint(self, checkpoint: Any) -> None:
        known = _DIGEST_PROPERTY in checkpoint.properties
        found = checkpoint.properties[_DIGEST_PROPERTY] if known else "none"
        if found != self._digest:
            raise CheckpointError(
                f"the checkpoint was made from the bundle {found}, this is {self._digest}: use the "
                "checkpoints of this bundle"
            )
        values = {name: parameter.data for name, parameter in checkpoint.parameters}
        expected = self.values(copy=False)
        check_expected_arrays("checkpoint values", values, expected, CheckpointError)


def _result(outputs: Mapping[str, Array]) -> MicroResult:
    """The first output is the loss; `correct` is there where accuracy has a meaning."""
    loss = next(iter(outputs.values()))
    return MicroResult(float(loss), int(outputs["correct"]) if "correct" in outputs else 0)
