"""What a device process holds besides tensors: calibrated constants, each with its source."""

from __future__ import annotations

# Python with numpy, onnxruntime and edgetune imported and nothing loaded yet.
# Measured: `python benchmarks/process_memory.py` in .venv-device (onnxruntime 1.32, x86-64).
BASE_PROCESS_BYTES = 64 * 2**20

# Kernel, node and allocation-plan objects of onnxruntime per operation of a session. Same source.
BYTES_PER_OPERATION = 12 * 2**10

# Share of the frozen weights of products and convolutions that onnxruntime keeps a second time in
# the layout its kernels read ("prepacking"). Same source.
PREPACKED_SHARE = 1.0
