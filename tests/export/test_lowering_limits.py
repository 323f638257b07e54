"""What lowering refuses, and what it promises about its output: no repetition, the same bytes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from edgetune_exporters.dense_step import DenseStep, dense_step
from edgetune_exporters.factory import Example
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from edgetune.errors import ExportError
from tests.export.lowered import Operator, assert_equal, compare, run_step, weighted_sum

ROOT = Path(__file__).resolve().parents[2]


def step_of(model: nn.Module, data: Tensor) -> DenseStep:
    targets = torch.ones(len(data), 64)
    return dense_step(Example(model, data, targets, weighted_sum), len(data))


class Block(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.function = function

    def forward(self, data: Tensor) -> Tensor:
        out: Tensor = self.second(self.function(self.first(data)))
        return out


class Model(nn.Module):
    def __init__(self, *functions: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(function) for function in functions])

    def forward(self, data: Tensor) -> Tensor:
        for block in self.blocks:
            data = block(data)
        return data


def test_one_error_names_every_operator_and_the_modules_it_comes_from() -> None:
    model = Model(torch.special.erfinv, torch.relu, torch.special.i0)
    with pytest.raises(ExportError) as caught:
        step_of(model, torch.rand(2, 4))
    lines = str(caught.value).splitlines()
    assert lines[0] == "the model uses operators that edgetune cannot export yet:"
    assert "  - aten.erfinv.default from blocks.0 (Block)" in lines
    assert "  - aten.i0.default from blocks.2 (Block)" in lines
    assert lines[-1].startswith("replace them in the model")
    assert "relu" not in str(caught.value)
    assert "blocks.1" not in str(caught.value)


def test_an_operator_of_the_backward_is_named_with_its_forward_module() -> None:
    model = Model(torch.relu, lambda x: F.pad(x[:, None], (1, 1), mode="replicate")[:, 0, :4])
    with pytest.raises(ExportError, match=r"replication_pad1d_backward.default from blocks.1"):
        step_of(model, torch.rand(2, 4))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        pytest.param(lambda x: torch.linalg.svd(x[:, None])[1], "aten._linalg_svd", id="svd"),
        pytest.param(lambda x: torch.fft.rfft(x).abs(), "aten._fft_r2c", id="fourier"),
        pytest.param(lambda x: x.sort(1)[0], "aten.sort.default", id="sort"),
        pytest.param(lambda x: x.cumprod(1), "aten.cumprod.default", id="cumprod"),
        pytest.param(lambda x: x * (x.int() & 3), "bit-wise arithmetic on integers", id="bits"),
        pytest.param(
            lambda x: x.reshape(-1, 2, 2)[:, [0, 1], [1, 0]], "behind an axis", id="indices"
        ),
        pytest.param(
            lambda x: x + (x // 0.3), "derivative for aten::floor_divide", id="no-derivative"
        ),
    ],
)
def test_what_cannot_be_lowered_is_refused(
    function: Callable[[Tensor], Tensor], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        step_of(Operator(function, (4,)), torch.rand(2, 4))


def reads_a_value(outputs: Any, targets: Tensor) -> Tensor:
    return outputs[:, 0] * outputs.max().item()


def masks(outputs: Any, targets: Tensor) -> Tensor:
    return outputs[outputs > -9].reshape(outputs.shape).sum(1)


def writes_into_a_view(outputs: Any, targets: Tensor) -> Tensor:
    squares = outputs**2
    squares[:, 0] = 0.0
    return squares.sum(1)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        pytest.param(reads_a_value, "cannot export the loss|_local_scalar_dense", id="item"),
        pytest.param(masks, "boolean mask|nonzero|dynamic", id="mask"),
        pytest.param(writes_into_a_view, r"aten\.(copy|fill)_.* from the loss", id="writes"),
    ],
)
def test_a_loss_that_cannot_be_traced_is_refused(
    loss: Callable[[Any, Tensor], Tensor], message: str
) -> None:
    example = Example(nn.Linear(4, 3), torch.rand(2, 4), torch.ones(2), loss)
    with pytest.raises(ExportError, match=message):
        dense_step(example, 2)


def test_a_loss_may_write_over_its_own_temporaries() -> None:
    def loss(outputs: Any, targets: Tensor) -> Tensor:
        terms = outputs**2
        terms.mul_(3.0)
        terms.clamp_(min=0.1)
        return terms.sum(1)

    model, data = nn.Linear(4, 3), torch.rand(2, 4)
    found = run_step(dense_step(Example(model, data, torch.ones(2), loss), 2))
    expected = torch.autograd.grad(loss(model(data), torch.ones(2)).sum(), model.weight)[0]
    torch.testing.assert_close(torch.from_numpy(found["gradient:weight"]), expected)


def test_a_model_that_nothing_can_be_trained_in_is_refused() -> None:
    with pytest.raises(ExportError, match="does not depend on any parameter"):
        step_of(nn.ReLU(), torch.rand(2, 4))


def test_equal_operators_are_emitted_once() -> None:
    model = Operator(lambda x: x.exp() * x.exp() + x.exp().neg() + x.exp().neg(), (4,))
    step = step_of(model, torch.rand(2, 4))
    kinds = Counter(node.op_type for node in step.lowered.model.graph.node)
    assert kinds["Exp"] == 1
    keys = [
        (node.op_type, tuple(node.input), tuple(a.SerializeToString() for a in node.attribute))
        for node in step.lowered.model.graph.node
        if node.op_type != "Identity"
    ]
    assert len(keys) == len(set(keys))


def test_different_attributes_are_different_operators() -> None:
    model = Operator(lambda x: F.leaky_relu(x, 0.1) + F.leaky_relu(x, 0.2), (4,))
    step = step_of(model, torch.rand(2, 4))
    kinds = Counter(node.op_type for node in step.lowered.model.graph.node)
    assert kinds["LeakyRelu"] == 2


def test_large_uniform_constants_are_made_by_the_runtime() -> None:
    model = Operator(lambda x: torch.zeros(2, 100, 64) + x[:, None, :1], (4,))
    targets = torch.ones(2, 6400)
    step = dense_step(Example(model, torch.rand(2, 4), targets, weighted_sum), 2)
    assert max(len(i.raw_data) for i in step.lowered.model.graph.initializer) < 1000
    assert "ConstantOfShape" in {node.op_type for node in step.lowered.model.graph.node}


def test_every_operator_notes_the_module_it_comes_from() -> None:
    step = step_of(Model(torch.relu), torch.rand(2, 4))
    origins = {n.op_type: n.doc_string for n in step.lowered.model.graph.node}
    assert origins["Relu"] == "blocks.0 (Block)"
    assert any(n.doc_string == "blocks.0.second (Linear)" for n in step.lowered.model.graph.node)


PROGRAM = """
import hashlib, torch
from tests.export.test_lowering_limits import digest
print(digest())
"""


def digest() -> str:
    """SHA-256 of a lowered step with many kinds of operators."""
    torch.manual_seed(0)
    model = Model(torch.relu, F.gelu, lambda x: F.layer_norm(x, (4,)).softmax(-1))
    data = torch.rand(2, 4, generator=torch.Generator().manual_seed(1))
    content = step_of(model, data).lowered.model.SerializeToString(deterministic=True)
    return hashlib.sha256(content).hexdigest()


def test_the_bytes_are_the_same_in_every_run_and_process() -> None:
    assert digest() == digest()
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'exporters'}"}
    for seed in ("1", "2"):
        found = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", PROGRAM],
            env={**environment, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout.strip() == digest()


def test_var_positional_inputs_are_told_apart() -> None:
    model = Operator(lambda x, a, b: x * a - b, (4,))
    inputs = (torch.rand(2, 4), torch.rand(2, 4), torch.rand(2, 4))
    step = dense_step(Example(model, inputs, torch.ones(2, 4), weighted_sum), 2)
    assert step.graph.inputs == ("data", "others.0", "others.1")
    for pairs in compare(model, inputs).values():
        assert_equal(pairs)
