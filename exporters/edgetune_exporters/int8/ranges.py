"""Between which values a graph's tensors lie, on real samples."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from edgetune.runtime.onnxruntime_packages import import_onnxruntime

Ranges = Mapping[str, tuple[float, float]]
Feeds = Mapping[str, npt.NDArray[Any]]


def observed_ranges(
    model: onnx.ModelProto, tensors: Collection[str], batches: Iterable[Feeds]
) -> Ranges:
    """(least, greatest) value of each of `tensors` while `model` runs over `batches`.

    Zero is always within, so that padding and zeros are exact in 8 bits.
    """
    onnxruntime = import_onnxruntime()
    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    inputs, outputs = ({i.name for i in g} for g in (model.graph.input, model.graph.output))
    wanted = [name for name in sorted(tensors) if name not in inputs]
    seen.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in wanted
        if name not in outputs
    )
    session = onnxruntime.InferenceSession(
        seen.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found = dict.fromkeys(tensors, (0.0, 0.0))
    for feeds in batches:
        given = {name: feeds[name] for name in inputs}
        results = session.run(wanted, given) if wanted else []
        values = {**given, **dict(zip(wanted, results, strict=True))}
        for name, (least, greatest) in found.items():
            low, high = np.min(values[name]), np.max(values[name])
            found[name] = (min(least, float(low)), max(greatest, float(high)))
    return found
