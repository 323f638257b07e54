"""What a device process holds besides tensors: calibrated constants, each with its source."""

from __future__ import annotations

# Python with numpy, onnxruntime and edgetune imported (56 MiB), the heap of loading, and
# what the trainer holds around a step with a small data set.
# Measured: `benchmarks/process_memory.py` on six bundles, .venv-device (onnxruntime 1.32, x86-64).
BASE_PROCESS_BYTES = 82 * 2**20

# Kernel, node and allocation-plan objects of onnxruntime per operation of a session. Same source.
BYTES_PER_OPERATION = 12 * 2**10

# Share of the frozen weights of products and convolutions that onnxruntime keeps a second time in
# the layout its kernels read ("prepacking"). Same source.
PREPACKED_SHARE = 1.0

# Resident bytes per byte of tensors alive: glibc keeps freed chunks between live ones, and kernels
# have workspaces. Same source.
ALLOCATOR_OVERHEAD = 1.85

# Temporaries of the update graph, in tensors of the largest trainable one's size. Same source.
UPDATE_TEMPORARIES = 5

# Copies of values and optimizer state while a checkpoint is made: arrays, encoded tensors, bytes,
# and heap that the step before left behind. Measured by `make acceptance` (MiniLM, last two layers:
# the peak rises by 2.96 copies above what was held already).
CHECKPOINT_COPIES = 3.5
