"""Accuracy of a merged inference model: `merged_accuracy.py MODEL.onnx TEST.npz`, prints a share.

Runs in the device environment and knows nothing of edgetune: stock onnxruntime and numpy.
"""

from __future__ import annotations

import sys

import numpy as np
import onnxruntime


def accuracy(model: str, test: str) -> float:
    """The share of samples whose largest logit [N, classes] is the target's."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    with np.load(test) as file:
        arrays = {name: file[name] for name in file.files}
    targets = arrays.pop("targets")
    size = session.get_inputs()[0].shape[0]
    size = size if isinstance(size, int) else 16
    correct = 0
    for start in range(0, len(targets), size):
        wanted = np.arange(start, start + size)
        rows = np.minimum(wanted, len(targets) - 1)  # the last batch repeats its last sample
        feeds = {i.name: arrays[i.name][rows] for i in session.get_inputs()}
        right = session.run(None, feeds)[0].argmax(axis=1) == targets[rows]
        correct += int(right[wanted < len(targets)].sum())
    return correct / len(targets)


if __name__ == "__main__":
    print(accuracy(sys.argv[1], sys.argv[2]))
