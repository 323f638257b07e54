"""Capture: what goes in and comes out, by name, and BatchNorm folded away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from edgetune_exporters.capture import CapturedModel, capture
from torch import Tensor, nn

from edgetune.errors import ExportError
from tests.zoo.text import distilbert_as_published, gpt2_tiny


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(3, 4), nn.Linear(5, 4)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        out: Tensor = self.left(first) - self.right(second)
        return out


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, views: Mapping[str, Any], mask: Tensor) -> dict[str, Tensor]:
        left, right = views["sides"]
        return {"logits": self.layer(left + right) * mask, "hidden": views["top"] + left}


FIRST, SECOND = torch.ones(2, 3), torch.full((2, 5), 2.0)


@pytest.mark.parametrize(
    ("model", "inputs", "names"),
    [
        pytest.param(nn.Linear(3, 4), FIRST, ["input"], id="tensor"),
        pytest.param(nn.Sequential(nn.Linear(3, 4)), FIRST, ["input"], id="sequential"),
        pytest.param(TwoInputs(), (FIRST, SECOND), ["first", "second"], id="tuple"),
        pytest.param(TwoInputs(), [FIRST, SECOND], ["first", "second"], id="list"),
        pytest.param(
            TwoInputs(), {"first": FIRST, "second": SECOND}, ["first", "second"], id="dict"
        ),
    ],
)
def test_inputs_are_named_after_the_parameters_of_forward(
    model: nn.Module, inputs: Any, names: list[str]
) -> None:
    captured = capture(model, inputs)
    assert list(captured.inputs) == names
    assert list(captured.parameters) == [name for name, _ in model.named_parameters()]
    with torch.no_grad():
        if isinstance(inputs, Tensor):
            expected = model(inputs)
        else:
            expected = model(**inputs) if isinstance(inputs, dict) else model(*inputs)
    torch.testing.assert_close(captured.outputs(), expected)


def test_a_dict_may_name_inputs_in_another_order_than_forward() -> None:
    model = TwoInputs()
    captured = capture(model, {"second": SECOND, "first": FIRST})
    assert {name: value.shape for name, value in captured.inputs.items()} == {
        "first": FIRST.shape,
        "second": SECOND.shape,
    }
    torch.testing.assert_close(captured.outputs(), model(FIRST, SECOND))


def test_nested_inputs_are_named_by_their_path_and_outputs_keep_their_structure() -> None:
    model = Nested()
    views = {"top": torch.ones(2, 3), "sides": (torch.ones(2, 3), torch.ones(2, 3) * 3)}
    captured = capture(model, (views, torch.ones(2, 1)))
    assert list(captured.inputs) == ["views.top", "views.sides.0", "views.sides.1", "mask"]
    torch.testing.assert_close(captured.outputs(), model(views, torch.ones(2, 1)))


def test_a_hugging_face_output_keeps_its_fields() -> None:
    model, (inputs, _), _ = distilbert_as_published()
    captured = capture(model, inputs)
    assert list(captured.inputs) == ["input_ids", "attention_mask"]
    assert captured.outputs().keys() == model(**inputs).keys()
    torch.testing.assert_close(
        captured.outputs()["logits"], model(**inputs).logits, rtol=1e-4, atol=1e-5
    )


def test_a_tied_weight_is_one_parameter() -> None:
    model, (inputs, _), _ = gpt2_tiny()
    captured = capture(model, inputs)
    assert set(captured.parameters) == {name for name, _ in model.named_parameters()}
    torch.testing.assert_close(captured.outputs(), model(**inputs), rtol=1e-4, atol=1e-5)


def test_the_model_is_not_changed() -> None:
    model = conv_norm(nn.Conv2d(3, 4, 3)).train()
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    capture(model, torch.randn(2, 3, 6, 6))
    assert [module.training for module in model] == [True, False]
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_the_modes_come_back_when_capture_fails() -> None:
    model = Branches().train()
    with pytest.raises(ExportError):
        capture(model, torch.ones(2, 3))
    assert model.training


def test_dropout_does_nothing() -> None:
    model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.9)).train()
    outputs = capture(model, FIRST).outputs()
    torch.testing.assert_close(outputs, model[0](FIRST))


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, data: Tensor) -> Tensor:
        out: Tensor = self.layer(data)
        return out if out.sum() > 0 else -out


class WithHalf(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3, dtype=dtype))

    def forward(self, data: Tensor) -> Tensor:
        return data * self.scale


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        pytest.param(
            Branches(), FIRST, "torch.export cannot take the model Branches: ", id="control-flow"
        ),
        pytest.param(
            WithHalf(torch.float64),
            FIRST,
            r"1 tensors are not float32, for example scale \(torch.float64\): call model.float",
            id="float64",
        ),
        pytest.param(
            WithHalf(torch.float16), FIRST, r"scale \(torch.float16\): call model", id="half"
        ),
        pytest.param(
            TwoInputs(),
            FIRST,
            "do not fit TwoInputs.forward: missing a required argument: 'second'",
            id="missing",
        ),
        pytest.param(
            nn.Linear(3, 2), (FIRST, FIRST), "fit Linear.forward: too many positional", id="many"
        ),
        pytest.param(
            nn.Linear(3, 2), {"data": FIRST}, "fit Linear.forward: .*'input'", id="unknown-name"
        ),
        pytest.param(
            nn.Linear(3, 2), torch.ones(2, 4), "cannot take the model Linear: ", id="wrong-shape"
        ),
        pytest.param(nn.Linear(3, 2), 3.0, "the sample inputs are a float: expected", id="number"),
        pytest.param(
            TwoInputs(),
            (FIRST, 2.0),
            "sample input second is a float: expected a tensor",
            id="leaf",
        ),
        pytest.param(
            TwoInputs(),
            (FIRST, torch.ones(3, 5)),
            r"one common first \(batch\) dimension: found {'first': \(2, 3\), 'second': \(3, 5\)}",
            id="batches-differ",
        ),
        pytest.param(
            TwoInputs(), (FIRST, torch.tensor(1.0)), r"'second': \(\)}", id="without-batch"
        ),
    ],
)
def test_what_cannot_be_captured_is_refused(model: nn.Module, inputs: Any, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        capture(model, inputs)


def norm(kind: type[nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d], channels: int) -> Any:
    """A BatchNorm that has seen data: nothing about it is the identity."""
    module = kind(channels, eps=1e-3)
    nn.init.uniform_(module.weight, 0.5, 1.5)
    nn.init.normal_(module.bias)
    module.running_mean = torch.randn(channels)
    module.running_var = torch.rand(channels) + 0.5
    return module


def conv_norm(convolution: nn.Module) -> nn.Sequential:
    kinds = {nn.Conv1d: nn.BatchNorm1d, nn.Conv2d: nn.BatchNorm2d, nn.Conv3d: nn.BatchNorm3d}
    return nn.Sequential(convolution, norm(kinds[type(convolution)], convolution.out_channels))


@pytest.mark.parametrize(
    ("convolution", "bias"),
    [
        pytest.param(nn.Conv2d(4, 6, 3, padding=1), "0.bias", id="with-bias"),
        pytest.param(nn.Conv2d(4, 6, 3, bias=False), "1.bias", id="without-bias"),
        pytest.param(nn.Conv2d(4, 8, 3, groups=2, bias=False), "1.bias", id="grouped"),
        pytest.param(nn.Conv2d(4, 4, 3, groups=4), "0.bias", id="depthwise"),
        pytest.param(nn.Conv1d(4, 6, 3, bias=False), "1.bias", id="1d"),
        pytest.param(nn.Conv3d(4, 6, 3), "0.bias", id="3d"),
        pytest.param(nn.Conv2d(4, 6, 3, padding="same"), "0.bias", id="same-padding"),
    ],
)
def test_batch_norm_becomes_part_of_the_convolution(convolution: nn.Module, bias: str) -> None:
    model = conv_norm(convolution).eval()
    data = torch.randn(2, 4, *[7] * (convolution.weight.dim() - 2))
    captured = capture(model, data)
    assert set(captured.parameters) == {"0.weight", bias}
    assert not captured.constants
    assert not [n for n in captured.graph.graph.nodes if "batch_norm" in str(n.target)]
    (folding,) = captured.folded
    assert (folding.weight, folding.bias, folding.batch_norm) == ("0.weight", bias, "1")
    assert folding.has_convolution_bias == (bias == "0.bias")
    torch.testing.assert_close(captured.outputs(), model(data), rtol=1e-4, atol=1e-5)


class UsedTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), norm(nn.BatchNorm2d, 4)

    def forward(self, data: Tensor) -> Tensor:
        out = self.conv(data)
        return out + self.norm(out)


class SharedWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.norms = nn.ModuleList([norm(nn.BatchNorm2d, 3) for _ in range(2)])

    def forward(self, data: Tensor) -> Tensor:
        for module in self.norms:
            data = module(self.conv(data))
        return data


class TiedWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(conv_norm(nn.Conv2d(3, 3, 1)) for _ in range(2)))
        self.blocks[1][0].weight = self.blocks[0][0].weight
        self.blocks[1][0].bias = self.blocks[0][0].bias

    def forward(self, data: Tensor) -> Tensor:
        out: Tensor = self.blocks(data)
        return out


class SharedNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(3, 3, 1) for _ in range(2)])
        self.norm = norm(nn.BatchNorm2d, 3)

    def forward(self, data: Tensor) -> Tensor:
        for module in self.convs:
            data = self.norm(module(data))
        return data


def with_zero_gamma() -> nn.Module:
    model = conv_norm(nn.Conv2d(3, 4, 1))
    model[1].weight.data[2] = 0.0
    return model


def without_affine() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False))


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        pytest.param(UsedTwice(), (2, 3, 4, 4), id="convolution-used-twice"),
        pytest.param(
            nn.Sequential(norm(nn.BatchNorm2d, 3), nn.Conv2d(3, 4, 1)), (2, 3, 4, 4), id="before"
        ),
        pytest.param(
            nn.Sequential(nn.Linear(3, 4), norm(nn.BatchNorm1d, 4)), (2, 3), id="after-linear"
        ),
        pytest.param(
            nn.Sequential(nn.ConvTranspose2d(3, 4, 2), norm(nn.BatchNorm2d, 4)),
            (2, 3, 4, 4),
            id="after-transposed",
        ),
        pytest.param(SharedWeight(), (2, 3, 4, 4), id="weight-shared"),
        pytest.param(TiedWeights(), (2, 3, 4, 4), id="weights-tied"),
        pytest.param(SharedNorm(), (2, 3, 4, 4), id="norm-shared"),
        pytest.param(with_zero_gamma(), (2, 3, 4, 4), id="gamma-zero"),
        pytest.param(without_affine(), (2, 3, 4, 4), id="no-affine"),
    ],
)
def test_a_batch_norm_that_cannot_be_folded_stays(model: nn.Module, shape: tuple[int, ...]) -> None:
    data = torch.randn(shape)
    captured = capture(model, data)
    assert captured.folded == ()
    assert list(captured.parameters) == [name for name, _ in model.named_parameters()]
    torch.testing.assert_close(captured.outputs(), model.eval()(data), rtol=1e-4, atol=1e-5)


def test_folding_gives_the_captured_model_its_own_values() -> None:
    model = conv_norm(nn.Conv2d(3, 4, 1))
    before = model[0].weight.detach().clone()
    captured: CapturedModel = capture(model, torch.randn(2, 3, 4, 4))
    assert torch.equal(model[0].weight, before)
    assert not torch.equal(captured.parameters["0.weight"], before)
