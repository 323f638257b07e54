"""The ONNX Runtime training API (onnxruntime-training-cpu 1.19.2), imported and loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetune.errors import RuntimeSetupError
from edgetune.runtime.onnxruntime_packages import check_one_onnxruntime

_ERRORS_ONLY = 3


@dataclass(frozen=True)
class Loaded:
    """ORT's objects around one checkpoint; the module and the optimizer share its memory."""

    checkpoint: Any
    module: Any
    optimizer: Any


@dataclass(frozen=True)
class TrainingApi:
    """The modules of onnxruntime that are used."""

    training: Any
    runtime: Any

    def load(self, folder: Path, checkpoint: Path) -> Loaded:
        """The bundle in `folder` with that checkpoint. Raises RuntimeError when ORT refuses one."""
        options = self.runtime.SessionOptions()
        # The memory pattern nearly doubles the peak (862 against 462 MiB, MobileNetV2, batch 8).
        options.enable_mem_pattern = False
        # As in edgetune.runtime.onnx_session: the optimizer's threads would hold the step's up.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.log_severity_level = _ERRORS_ONLY
        state = self.training.CheckpointState.load_checkpoint(checkpoint)
        module = self.training.Module(
            folder / "training_model.onnx",
            state,
            # Never without: evaluating with no eval model is a segmentation fault.
            folder / "eval_model.onnx",
            session_options=options,
        )
        optimizer = self.training.Optimizer(folder / "optimizer_model.onnx", module)
        return Loaded(state, module, optimizer)


def import_training_api() -> TrainingApi:
    """Raises RuntimeSetupError where it cannot be imported."""
    check_one_onnxruntime()
    try:
        import onnxruntime  # noqa: PLC0415  (most devices have no training package)
        from onnxruntime.training import api  # noqa: PLC0415

        # It warns about its own gradient graphs, in colours, on every load.
        onnxruntime.set_default_logger_severity(_ERRORS_ONLY)
    except ImportError as error:
        raise RuntimeSetupError(
            f"this is an ort-training bundle, and onnxruntime.training cannot be imported "
            f"({error}): it needs onnxruntime-training-cpu 1.19.2 (x86-64, CPython up to 3.12) and "
            "torch beside it; elsewhere export with --format portable"
        ) from error
    return TrainingApi(api, onnxruntime)
