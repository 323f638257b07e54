"""What a device process holds besides tensors: calibrated constants, each with its source.

All were measured on onnxruntime 1.32, x86-64, with the settings of the portable session (one arena
for all graphs, no reuse of dead buffers, one block per run): benchmarks/memory_truth.py prints how
far they hold. Gradient, evaluation and update graphs run as they are written, so that
what is simulated is what is allocated: within 2.5 % of a counter of allocations on twelve graphs.
"""

from __future__ import annotations

# Python with numpy, onnxruntime and edgetune imported (57 MiB), library pages that running touches,
# what the trainer holds around a step with a small data set, the 2 MiB by which small blocks exceed
# what is alive, the 2 MiB in which the heap grows with huge pages, and the 5 MiB that the memory
# guard keeps free below a limit; and 4 MiB for what the first runs touch beside the arena's block.
BASE_PROCESS_BYTES = 99 * 2**20

# Node and session objects of onnxruntime per operation.
BYTES_PER_OPERATION = 5 * 2**10

# The same of the update graph, per tensor that is trained: 8 MiB for 136 tensors of ViT-small, 3.4
# MiB for 67 of MiniLM, loaded beside the gradient graph.
BYTES_PER_UPDATE = 60 * 2**10

# The block that onnxruntime lays a run's tensors out in, over what is alive at once.
BLOCK_OVERHEAD = 1.1

# The arena that holds the block, over what is alive at once: in the first run of a graph, its
# tensors lie in the arena one by one, with room between them.
ALLOCATOR_OVERHEAD = 1.18

# Temporaries of the update graph, in sizes of the largest trainable tensor (measured 3 to 3.45) or
# share (with what scattering takes, 5.0 to 5.2).
UPDATE_TEMPORARIES = 3.5
SHARE_TEMPORARIES = 5.25

# Loading the prefix rearranges one convolution's weight after the other, through so many copies.
LOADING_COPIES = 3

# Copies of the values of shares that writing a checkpoint or a delta makes.
SAVED_COPIES = 1


def update_bytes(trained_bytes: int, is_share: bool) -> float:
    """Temporaries of updating a tensor, or a share of one, of that size."""
    return (SHARE_TEMPORARIES if is_share else UPDATE_TEMPORARIES) * trained_bytes
