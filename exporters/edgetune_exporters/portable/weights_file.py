"""frozen.bin: every large constant once, shared by all graphs of a bundle."""

from __future__ import annotations

import onnx

from edgetune.files.frozen_tensors import ALIGNMENT_BYTES, INLINE_BYTES
from edgetune.nouns.bundle_names import FROZEN


class WeightsFile:
    """Collects tensors; the same tensor (by bytes) is stored once."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._size = 0
        self._places: dict[bytes, tuple[int, int]] = {}

    def move_out_of(self, model: onnx.ModelProto) -> None:
        """Replace the large initializers of `model` by references into the file."""
        moved = [self._moved(tensor) for tensor in model.graph.initializer]
        del model.graph.initializer[:]
        model.graph.initializer.extend(moved)

    def _moved(self, tensor: onnx.TensorProto) -> onnx.TensorProto:
        """`tensor` as it stands in a graph: a reference into the file, or itself when small."""
        data = tensor.raw_data
        if len(data) < INLINE_BYTES:
            return tensor
        if data not in self._places:
            padding = -self._size % ALIGNMENT_BYTES
            self._chunks += [b"\0" * padding, data]
            self._places[data] = (self._size + padding, len(data))
            self._size += padding + len(data)
        offset, length = self._places[data]
        outside = onnx.TensorProto()
        outside.name, outside.data_type = tensor.name, tensor.data_type
        outside.dims.extend(tensor.dims)
        outside.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", FROZEN), ("offset", offset), ("length", length)):
            entry = outside.external_data.add()
            entry.key, entry.value = key, str(value)
        return outside

    def content(self) -> bytes:
        return b"".join(self._chunks)
