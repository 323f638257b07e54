from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgetune.files.onnx_model import Node, onnx_model
from edgetune.nouns.bundle_names import GRADIENTS
from edgetune.runtime.onnx_session import session_options
from edgetune.runtime.onnxruntime_packages import import_onnxruntime
from edgetune.runtime.shared_arena import SharedArena

MIB = 2**20


def registered(block_bytes: float, refuses: bool = False) -> list[dict[str, int]]:
    """The sizes of the arenas that a fake onnxruntime is asked for."""
    asked: list[dict[str, int]] = []

    def register(place: Any, sizes: dict[str, int]) -> None:
        asked.append(sizes)
        if refuses:
            raise RuntimeError("An allocator for this device has already been registered")

    fake = SimpleNamespace(
        OrtAllocatorType=SimpleNamespace(ORT_ARENA_ALLOCATOR=1),
        OrtMemType=SimpleNamespace(DEFAULT=0),
        OrtMemoryInfo=lambda *arguments: arguments,
        OrtArenaCfg=dict,
        RunOptions=None,
        create_and_register_allocator=register,
    )
    SharedArena(fake, block_bytes)
    return asked


@pytest.mark.parametrize(
    ("block_bytes", "size"),
    [
        pytest.param(0, 4 * MIB, id="nothing but the margin"),
        pytest.param(10 * MIB + 1, 15 * MIB, id="rounded up to whole MiB"),
        pytest.param(2**33, 2**31 - MIB, id="no more than onnxruntime takes"),
    ],
)
def test_an_arena_has_room_for_the_block_and_a_margin(block_bytes: float, size: int) -> None:
    (sizes,) = registered(block_bytes)
    assert sizes["initial_chunk_size_bytes"] == size
    # Onnxruntime allocates in units of 256 bytes, and does not round what it grows by.
    assert sizes["initial_growth_chunk_size_bytes"] % 256 == 0


def test_a_version_that_has_one_arena_for_the_process_goes_on_with_it() -> None:
    assert len(registered(MIB, refuses=True)) == 1


def test_graphs_in_an_arena_compute_what_they_compute_without() -> None:
    onnxruntime = import_onnxruntime()
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    nodes = [Node("Neg", ("x",), ("a",)), Node("Add", ("a", "a"), ("y",))]
    model = onnx_model(nodes, {"x": x}, ("y",), {})
    arena = SharedArena(onnxruntime, MIB)
    for _ in range(2):  # graphs of one arena
        options = session_options(onnxruntime, GRADIENTS)
        SharedArena.serve(options)
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        for run_options in (arena.first_run_options(), None):
            (found,) = session.run(["y"], {"x": x}, run_options)
            np.testing.assert_array_equal(found, -2 * x)
