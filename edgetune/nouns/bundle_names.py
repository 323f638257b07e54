"""Names inside a portable bundle: its files, and the tensors between its graphs."""

from __future__ import annotations

MANIFEST = "manifest.json"
FEATURES = "features.onnx"
GRADIENTS = "gradients.onnx"
UPDATE = "update.onnx"
EVALUATE = "evaluate.onnx"
PREDICT = "predict.onnx"
FROZEN = "frozen.bin"
STATE = "state.safetensors"
SELF_TEST = "selftest.npz"
COSTS = "costs.json"
SMALLER = "smaller."  # before the names of these, as they are for the smaller micro-batch
SMALLER_GRAPHS = (FEATURES, GRADIENTS, EVALUATE)
TUNED = "tuned.safetensors"  # a delta applied to the bundle: sessions start from it

# The gradient graph adds to `accumulated:NAME` and returns `next:accumulated:NAME`; the update
# graph takes that sum, and returns `next:NAME` and `next:slot:SLOT:NAME`.
ACCUMULATED = "accumulated:"
NEXT = "next:"
SCALE = "scale"


def slot_name(slot: str, parameter: str) -> str:
    """Name of one array of optimizer state."""
    return f"slot:{slot}:{parameter}"
