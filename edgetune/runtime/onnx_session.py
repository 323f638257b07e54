"""How every graph runs: the options of a session, the same for training and for calibrating."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgetune.errors import BundleError
from edgetune.nouns.bundle_names import EVALUATE, GRADIENTS, UPDATE
from edgetune.runtime.allocator import return_freed_buffers
from edgetune.runtime.shared_arena import SharedArena


def load_graph(
    onnxruntime: Any,
    path: Path,
    graph: str,
    arena: SharedArena | None = None,
    profile_prefix: str | None = None,
) -> Any:
    """An InferenceSession of the graph at `path`. Raises BundleError.

    graph: which of a bundle's it is (edgetune.nouns.bundle_names). arena: where its runs allocate,
    None for the system's memory. profile_prefix: if given, onnxruntime times every node, into a
    file whose name begins so.
    """
    return_freed_buffers()
    options = session_options(onnxruntime, graph)
    if arena is not None:
        arena.serve(options)
    if profile_prefix is not None:
        options.enable_profiling = True
        # Of its own: older versions name records by the second.
        options.profile_file_prefix = f"{profile_prefix}-{path.stem}"
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own types, one per status code
        raise BundleError(f"onnxruntime cannot load {path}: {error}") from error


def session_options(onnxruntime: Any, graph: str) -> Any:
    """The SessionOptions of a bundle's graph of that name (edgetune.nouns.bundle_names)."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # So that the process holds what the plan predicts: no arena of the session's own keeps what a
    # run has freed, no dead buffer waits for a tensor of its shape, and tensors lie in one block.
    options.enable_cpu_mem_arena = False
    options.enable_mem_reuse = False
    options.enable_mem_pattern = True
    # Each session has threads of its own, which wait busily for a while after a run. A step runs
    # several sessions in turn: those of the last would take the cores from the next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if not adds_bytes_exactly(Path("/")):
        # Of unsigned bytes alone, the sums do not overflow; that takes twice as long.
        options.add_session_config_entry("session.x64quantprecision", "1")
    if graph in (GRADIENTS, EVALUATE, UPDATE):
        # Executed as written, in the order that was simulated. Fused nodes would count as the last
        # ones; prepared weights would be held twice, and save nothing here.
        levels, orders = onnxruntime.GraphOptimizationLevel, onnxruntime.ExecutionOrder
        options.graph_optimization_level = levels.ORT_DISABLE_ALL
        options.execution_order = orders.PRIORITY_BASED
        options.add_session_config_entry("session.disable_prepacking", "1")
    return options


def adds_bytes_exactly(root: Path) -> bool:
    """Whether the processor adds products of unsigned and signed bytes in 32 bits.

    x86 before the VNNI instructions adds them in 16 bits, which may overflow. root: where /proc is.
    """
    try:
        lines = (root / "proc" / "cpuinfo").read_text().splitlines()
    except OSError:
        return False  # not Linux: the option means nothing where it is not needed
    flags = {flag for line in lines if line.startswith("flags") for flag in line.split()}
    return bool(flags & {"avx512_vnni", "avx_vnni"})
