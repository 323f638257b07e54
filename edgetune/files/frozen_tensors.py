"""frozen.bin: the large frozen tensors of a bundle, to which its graphs refer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgetune.files.onnx_tensor import external_tensor, new_tensor, raw_bytes
from edgetune.nouns.loss import Array

ALIGNMENT_BYTES = 64
"""Each tensor starts at a multiple of this, so that it can be mapped and used in place."""

INLINE_BYTES = 1024
"""Smaller tensors stay in the graphs: shapes must be there when the runtime infers shapes."""


def append_tensors(path: Path, values: Mapping[str, Array]) -> dict[str, bytes]:
    """Append the large ones of `values` to the file at `path`: a TensorProto for each, by name.

    The small ones hold their data themselves, and leave the file as it is. Raises OSError where the
    disk refuses.
    """
    tensors = {}
    for name, value in values.items():
        if value.nbytes < INLINE_BYTES:
            tensors[name] = b"".join(new_tensor(name, value))
            continue
        with path.open("ab") as file:
            file.write(bytes(-file.tell() % ALIGNMENT_BYTES))
            tensors[name] = b"".join(external_tensor(name, value, path.name, file.tell()))
            file.write(raw_bytes(value))
    return tensors
