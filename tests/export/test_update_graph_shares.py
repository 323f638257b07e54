"""The update of slices is that of a tensor which is nothing but the slices, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from edgetune_exporters.portable.update_graph import update_graph

from edgetune.nouns.bundle_names import ACCUMULATED, NEXT, slot_name
from edgetune.nouns.candidate import Share
from edgetune.nouns.optimizer import Optimizer
from edgetune.nouns.slices import NO_SHARES, Shares, put_slices, take_slices

Arrays = dict[str, npt.NDArray[Any]]

WHOLE: dict[str, tuple[int, ...]] = {
    "rows": (9, 4),
    "conv": (4, 6, 3, 3),
    "last": (3, 8),
    "b": (5,),
}
SHARES: Shares = {
    "rows": Share(0, (0, 3, 8)),
    "conv": Share(1, (1, 2, 5)),
    "last": Share(1, (7,)),
}
OPTIMIZERS = {
    "adamw": Optimizer(weight_decay=0.1),
    "sgd": Optimizer("sgd", weight_decay=0.1),
    "momentum": Optimizer("sgd-momentum", weight_decay=0.1),
    "nesterov": Optimizer("sgd-nesterov"),
}


class Updates:
    """Runs an update graph the way a session does: over its inputs' own memory."""

    def __init__(self, optimizer: Optimizer, values: Arrays, shares: Shares) -> None:
        self.values, self._optimizer = values, optimizer
        trained = {name: take_slices(value, shares.get(name)) for name, value in values.items()}
        self.slots = {
            slot_name(slot, name): np.zeros_like(value)
            for slot in optimizer.slots
            for name, value in trained.items()
        }
        model = update_graph(optimizer, [(n, v.shape) for n, v in values.items()], shares)
        onnx.checker.check_model(model, full_check=True)
        self._session = onnxruntime.InferenceSession(model.SerializeToString())
        self._steps = 0

    def step(self, gradients: Arrays, clip_norm: float) -> float:
        self._steps += 1
        numbers = {"learning_rate": 0.1, "step": self._steps, "clip_norm": clip_norm}
        scalars = {
            name: np.asarray(number, np.float64)
            for name, number in {**numbers, **self._optimizer.hyperparameters()}.items()
        }
        sums = {ACCUMULATED + name: gradient for name, gradient in gradients.items()}
        state = {**self.values, **self.slots}
        feeds = {**state, **sums, **scalars}
        binding, of = self._session.io_binding(), onnxruntime.OrtValue.ortvalue_from_numpy
        for argument in self._session.get_inputs():
            binding.bind_ortvalue_input(argument.name, of(feeds[argument.name]))
        for name, array in state.items():
            binding.bind_ortvalue_output(NEXT + name, of(array))
        binding.bind_output("grad_norm")
        self._session.run_with_iobinding(binding)
        return float(binding.get_outputs()[-1].numpy())


def normal(shape: tuple[int, ...], seed: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("clip_norm", [np.inf, 0.5])
def test_slices_are_updated_as_if_they_were_the_tensor(name: str, clip_norm: float) -> None:
    whole = {name: normal(shape, 1) for name, shape in WHOLE.items()}
    alone = {name: take_slices(value, SHARES.get(name)) for name, value in whole.items()}
    expected_outside = {name: value.copy() for name, value in whole.items()}
    of_slices = Updates(OPTIMIZERS[name], whole, SHARES)
    of_tensors = Updates(OPTIMIZERS[name], alone, NO_SHARES)
    for step in range(3):
        gradients = {name: normal(value.shape, step) for name, value in alone.items()}
        norms = [u.step(gradients, clip_norm) for u in (of_slices, of_tensors)]
        assert norms[0] == norms[1]
    for parameter, value in of_tensors.values.items():
        found = take_slices(whole[parameter], SHARES.get(parameter))
        assert found.tobytes() == value.tobytes()
        # With the slices put back as they were, nothing has changed.
        was = take_slices(expected_outside[parameter], SHARES.get(parameter))
        assert not np.array_equal(found, was)
        put_slices(whole[parameter], SHARES.get(parameter), was)
        assert whole[parameter].tobytes() == expected_outside[parameter].tobytes()
    for slot, state in of_tensors.slots.items():
        assert of_slices.slots[slot].tobytes() == state.tobytes()
        assert state.any()


def test_whole_tensors_are_updated_without_moving_slices() -> None:
    model = update_graph(Optimizer(), list(WHOLE.items()))
    kinds = {node.op_type for node in model.graph.node}
    assert not kinds & {"Gather", "ScatterND", "ScatterElements", "Expand", "Shape"}


def test_indices_are_stored_once_per_slice() -> None:
    """And not once per element, of which an update makes them when it needs them."""
    model = update_graph(Optimizer(), list(WHOLE.items()), SHARES)
    largest = max(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
    assert largest == max(WHOLE["conv"].__len__(), *(len(s.indices) for s in SHARES.values()))
