"""Writes the files of a portable bundle into a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from safetensors.numpy import save_file

from edgetune.nouns.bundle_names import COSTS, FROZEN, STATE
from edgetune.nouns.plain import to_plain
from edgetune.nouns.plan import UpdatePlan
from edgetune_exporters.dense_step import DenseStep
from edgetune_exporters.portable.weights_file import WeightsFile


def write_portable(
    graphs: Mapping[str, onnx.ModelProto], step: DenseStep, plan: UpdatePlan, folder: Path
) -> None:
    """Write `graphs` by file name, frozen weights, initial values and the cost table of `plan`."""
    weights = WeightsFile()
    for name, graph in graphs.items():
        model = onnx.ModelProto()
        model.CopyFrom(graph)
        weights.move_out_of(model)
        (folder / name).write_bytes(model.SerializeToString(deterministic=True))
    (folder / FROZEN).write_bytes(weights.content())
    trainable, _ = plan.selection.partition(step.model.parameters)
    values = {n: np.ascontiguousarray(v.detach().numpy()) for n, v in trainable.items()}
    save_file(values, folder / STATE)
    _write_costs(step, folder / COSTS)


def _write_costs(step: DenseStep, path: Path) -> None:
    text = json.dumps(to_plain(step.graph), sort_keys=True, separators=(",", ":"))
    path.write_text(text + "\n", encoding="utf-8")
