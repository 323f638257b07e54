"""One arena for the graphs of a session: what a run frees, the next run takes again.

Without it every run takes new memory from the system, which has to clear it: a tenth of a step, a
third of a small one. Of arenas of their own, each graph would keep its own block; in one that has
room for the largest, all lie at the same place. So the arena has the size of the largest block that
the plan says a graph needs, and no page of it is there before it is touched.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

# What the arena's own bookkeeping and the kernels' small buffers take beside a graph's block.
_MARGIN_BYTES = 4 * 2**20

_MIB = 2**20
_MOST = 2**31 - _MIB  # onnxruntime's Python takes 32 bits
_EACH_TIME_TWICE = 0  # kNextPowerOfTwo: what does not fit goes into further regions

_ENTRIES = {
    "session.use_env_allocators": "1",
    # What lives as long as the session would lie between what a run takes and frees.
    "session.use_device_allocator_for_initializers": "1",
}


class SharedArena:
    """The arena of the graphs that are loaded next; that of an older session is its own still.

    block_bytes: what the tensors of one run take at the most.
    """

    def __init__(self, onnxruntime: Any, block_bytes: float) -> None:
        size = min(math.ceil((block_bytes + _MARGIN_BYTES) / _MIB) * _MIB, _MOST)
        kinds, memory = onnxruntime.OrtAllocatorType, onnxruntime.OrtMemType
        place = onnxruntime.OrtMemoryInfo("Cpu", kinds.ORT_ARENA_ALLOCATOR, 0, memory.DEFAULT)
        sizes = {
            "max_mem": 0,
            "arena_extend_strategy": _EACH_TIME_TWICE,
            "initial_chunk_size_bytes": size,
            "initial_growth_chunk_size_bytes": _MIB,
        }
        # Older versions refuse a second one in a process: then the first goes on and grows.
        with suppress(RuntimeError):
            onnxruntime.create_and_register_allocator(place, onnxruntime.OrtArenaCfg(sizes))
        self._run_options = onnxruntime.RunOptions

    @staticmethod
    def serve(options: Any) -> None:
        """Have a session with these SessionOptions allocate in the arena."""
        for name, value in _ENTRIES.items():
            options.add_session_config_entry(name, value)

    def first_run_options(self) -> Any:
        """RunOptions of a graph's first run, after which the regions that it added are freed.

        In it every tensor is allocated by itself; later runs need one block, which fits.
        """
        options = self._run_options()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        return options
