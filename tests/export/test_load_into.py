from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from edgetune_exporters.load_into import load_delta_into, load_into
from torch import Tensor, nn

from edgetune.errors import BundleError
from edgetune.files.delta import read_delta, write_delta
from edgetune.nouns.folding import FoldedBatchNorm

Arrays = dict[str, npt.NDArray[Any]]


def settled(model: nn.Module) -> nn.Module:
    """`model` in evaluation mode, its BatchNorms with statistics and an affine of their own."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(generator=generator)
                module.running_var.uniform_(0.2, 3.0, generator=generator)
                module.weight.uniform_(-1.5, -0.5, generator=generator)
                module.bias.normal_(generator=generator)
    return model.eval()


def seeded(*layers: nn.Module) -> nn.Sequential:
    model = nn.Sequential(*layers)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=generator)
    settled(model)
    return model


def functional_fold(model: nn.Sequential, folding: FoldedBatchNorm) -> Arrays:
    """W' and b' of layers 0 (convolution) and 1 (BatchNorm), as at capture."""
    convolution, norm = model[0], model[1]
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    weight = convolution.get_parameter("weight").double()
    bias = convolution.bias.double() if folding.has_convolution_bias else torch.zeros_like(factor)
    folded_weight = weight * factor.view(-1, *[1] * (weight.dim() - 1))
    folded_bias = (bias - norm.running_mean.double()) * factor + norm.bias.double()
    values = {folding.weight: folded_weight, folding.bias: folded_bias}
    return {name: value.detach().float().numpy() for name, value in values.items()}


def folding(has_bias: bool) -> FoldedBatchNorm:
    return FoldedBatchNorm("0.weight", "0.bias" if has_bias else "1.bias", "1", has_bias)


Convolution = Callable[[Tensor, Tensor, Tensor], Tensor]
FOLDED: dict[str, tuple[nn.Module, nn.Module, tuple[int, ...], Convolution]] = {
    "conv with bias": (
        nn.Conv2d(3, 6, 3),
        nn.BatchNorm2d(6),
        (2, 3, 8, 8),
        nn.functional.conv2d,
    ),
    "conv without bias": (
        nn.Conv2d(3, 6, 3, bias=False),
        nn.BatchNorm2d(6, eps=1e-3),
        (2, 3, 8, 8),
        nn.functional.conv2d,
    ),
    "grouped": (
        nn.Conv2d(4, 6, 3, groups=2),
        nn.BatchNorm2d(6),
        (2, 4, 8, 8),
        lambda x, w, b: nn.functional.conv2d(x, w, b, groups=2),
    ),
    "depthwise without bias": (
        nn.Conv2d(6, 6, 3, groups=6, bias=False),
        nn.BatchNorm2d(6),
        (2, 6, 8, 8),
        lambda x, w, b: nn.functional.conv2d(x, w, b, groups=6),
    ),
    "one dimension": (nn.Conv1d(3, 6, 3), nn.BatchNorm1d(6), (2, 3, 9), nn.functional.conv1d),
}


@pytest.mark.parametrize("case", FOLDED)
def test_the_module_then_computes_what_the_tuned_convolution_does(case: str) -> None:
    convolution, norm, shape, functional = FOLDED[case]
    model = seeded(copy.deepcopy(convolution), copy.deepcopy(norm))
    fold = folding(convolution.bias is not None)
    rng = np.random.default_rng(0)
    tuned = {
        name: (value + rng.normal(size=value.shape)).astype(np.float32)
        for name, value in functional_fold(model, fold).items()
    }
    before = copy.deepcopy(model.state_dict())
    load_into(model, tuned, [fold])
    images = torch.from_numpy(rng.normal(size=shape).astype(np.float32))
    weight, bias = (torch.from_numpy(tuned[name]) for name in (fold.weight, fold.bias))
    with torch.no_grad():
        torch.testing.assert_close(model(images), functional(images, weight, bias))
    after = model.state_dict()
    others = set(before) - {fold.weight, fold.bias}
    assert others
    assert all(torch.equal(before[name], after[name]) for name in others)
    assert not any(torch.equal(before[name], after[name]) for name in tuned)


@pytest.mark.parametrize("has_bias", [True, False])
def test_values_that_were_not_tuned_come_back(has_bias: bool) -> None:
    model = seeded(nn.Conv2d(3, 6, 3, bias=has_bias), nn.BatchNorm2d(6))
    before = copy.deepcopy(model.state_dict())
    load_into(model, functional_fold(model, folding(has_bias)), [folding(has_bias)])
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("part", ["weight", "bias"])
@pytest.mark.parametrize("has_bias", [True, False])
def test_weight_and_bias_are_unfolded_each_without_the_other(has_bias: bool, part: str) -> None:
    fold = folding(has_bias)
    name = {"weight": fold.weight, "bias": fold.bias}[part]
    model = seeded(nn.Conv2d(3, 6, 3, bias=has_bias), nn.BatchNorm2d(6))
    before = copy.deepcopy(model.state_dict())
    values = functional_fold(model, fold)
    load_into(model, {name: values[name] + np.float32(1)}, [fold])
    expected = copy.deepcopy(model.state_dict())
    both = copy.deepcopy(model)
    load_into(both, {**values, name: values[name] + np.float32(1)}, [fold])
    torch.testing.assert_close(both.state_dict(), expected, rtol=1e-5, atol=1e-5)
    assert [key for key in before if not torch.equal(before[key], expected[key])] == [name]


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    return model


PLAIN: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(4, 3),
    "transposed convolution, whose BatchNorm is not folded": lambda: nn.Sequential(
        nn.ConvTranspose2d(3, 6, 3), nn.BatchNorm2d(6)
    ),
    "tied weights": tied,
}


@pytest.mark.parametrize("case", PLAIN)
def test_what_is_not_folded_is_written_as_it_is(case: str) -> None:
    model = settled(PLAIN[case]())
    rng = np.random.default_rng(0)
    values = {
        name: rng.normal(size=tuple(parameter.shape)).astype(np.float32)
        for name, parameter in model.named_parameters()
    }
    load_into(model, values)
    for name, parameter in model.named_parameters():
        assert parameter.detach().numpy().tobytes() == values[name].tobytes()
        assert parameter.requires_grad


def test_foldings_of_other_layers_do_not_matter() -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    elsewhere = FoldedBatchNorm("gone.weight", "gone.bias", "gone", True)
    load_into(model, {"0.bias": np.ones(3, np.float32)}, [elsewhere])
    assert model[0].bias.tolist() == [1.0, 1.0, 1.0]


def test_values_are_rounded_to_the_type_of_the_parameter() -> None:
    model = nn.Linear(2, 1, dtype=torch.float16)
    load_into(model, {"bias": np.array([0.1], np.float64)})
    assert model.bias.dtype == torch.float16
    assert model.bias.item() == np.float16(0.1)


def test_the_module_does_not_share_memory_with_the_values() -> None:
    model, values = nn.Linear(2, 1), {"bias": np.zeros(1, np.float32)}
    load_into(model, values)
    values["bias"][0] = 5
    assert model.bias.item() == 0


# What does not fit

ZEROS = np.zeros
UNFIT: dict[str, tuple[Arrays, list[FoldedBatchNorm], str]] = {
    "unknown name": (
        {"0.wieght": ZEROS((6, 3, 3, 3))},
        [],
        "0.wieght: no such parameter; the nearest names are 0.weight",
    ),
    "shape": (
        {"0.weight": ZEROS((6, 3, 1, 1))},
        [],
        r"0.weight: found shape \[6, 3, 1, 1\], expected \[6, 3, 3, 3\]",
    ),
    "integers": (
        {"0.bias": ZEROS(6, np.int64)},
        [],
        "0.bias: found int64, expected floating-point numbers",
    ),
    "all at once": (
        {"a": ZEROS(1), "0.bias": ZEROS(7), "1.bias": ZEROS(6)},
        [],
        r"2 problems\n  - a: no such parameter\n  - 0.bias: found shape \[7\]",
    ),
    "a buffer": ({"1.running_mean": ZEROS(6)}, [], "1.running_mean: no such parameter"),
    "no such BatchNorm": (
        {"0.weight": ZEROS((6, 3, 3, 3))},
        [FoldedBatchNorm("0.weight", "0.bias", "block.1", True)],
        "block.1: no such BatchNorm",
    ),
    "another kind of module": (
        {"0.bias": ZEROS(6)},
        [FoldedBatchNorm("0.weight", "0.bias", "2", True)],
        "2: a ReLU, expected a BatchNorm with statistics, weight and bias",
    ),
    "BatchNorm without statistics": (
        {"0.bias": ZEROS(6)},
        [FoldedBatchNorm("0.weight", "0.bias", "3", True)],
        "3: a BatchNorm2d, expected a BatchNorm with statistics",
    ),
    "other number of channels": (
        {"0.bias": ZEROS(6)},
        [FoldedBatchNorm("0.weight", "0.bias", "4", True)],
        "2 problems\n  - 4: 5 channels, 0.weight has 6\n  - 4: 5 channels, 0.bias has 6",
    ),
    "scale of zero": (
        {"0.bias": ZEROS(6)},
        [FoldedBatchNorm("0.weight", "0.bias", "5", True)],
        r"5: weight 0 in channels \[1, 4\]: the folding cannot be undone",
    ),
}


def mixed() -> nn.Sequential:
    without_scale = nn.BatchNorm2d(6)
    with torch.no_grad():
        without_scale.weight[[1, 4]] = 0
    return nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.BatchNorm2d(6, track_running_stats=False),
        nn.BatchNorm2d(5),
        without_scale,
    )


@pytest.mark.parametrize("case", UNFIT)
def test_what_does_not_fit_changes_nothing(case: str) -> None:
    values, foldings, message = UNFIT[case]
    model = mixed()
    before = copy.deepcopy(model.state_dict())
    fitting = {"1.weight": np.ones(6, np.float32) * 3}
    with pytest.raises(BundleError, match=f"cannot load the values into the module: {message}"):
        load_into(model, {**fitting, **values}, foldings)
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


# A delta


def linear_and_its_tuned_values() -> tuple[nn.Module, Arrays, Arrays]:
    model = nn.Linear(3, 2)
    base = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
    return model, base, {**base, "bias": base["bias"] + np.float32(1)}


def test_a_delta_is_loaded_into_the_module_it_was_made_from(tmp_path: Path) -> None:
    model, base, tuned = linear_and_its_tuned_values()
    write_delta(tmp_path / "delta", base, tuned, "abc")
    load_delta_into(model, read_delta(tmp_path / "delta"))
    for name, parameter in model.named_parameters():
        assert parameter.detach().numpy().tobytes() == tuned[name].tobytes()


def test_a_delta_is_refused_by_a_module_with_other_values(tmp_path: Path) -> None:
    model, base, tuned = linear_and_its_tuned_values()
    write_delta(tmp_path / "delta", base, tuned, "abc")
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.get_parameter("bias").mul_(2)
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(BundleError, match="bias: the module holds other values than those"):
        load_delta_into(other, read_delta(tmp_path / "delta"))
    assert all(torch.equal(before[name], value) for name, value in other.state_dict().items())


def test_a_delta_of_other_names_and_shapes_is_refused_once(tmp_path: Path) -> None:
    _, base, tuned = linear_and_its_tuned_values()
    renamed = {f"{name}s": value for name, value in base.items()}
    both = {**renamed, **{f"{n}s": v + np.float32(1) for n, v in tuned.items()}}
    write_delta(tmp_path / "delta", renamed, both, "abc")
    with pytest.raises(BundleError, match=r"2 problems\n  - biass: no such.*bias\n  - weights: no"):
        load_delta_into(nn.Linear(3, 2), read_delta(tmp_path / "delta"))


def test_a_delta_with_folded_tensors_is_unfolded(tmp_path: Path) -> None:
    model = seeded(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6))
    base = functional_fold(model, folding(True))
    tuned = {name: value + np.float32(0.5) for name, value in base.items()}
    write_delta(tmp_path / "delta", base, tuned, "abc")
    expected = copy.deepcopy(model)
    load_into(expected, tuned, [folding(True)])
    load_delta_into(model, read_delta(tmp_path / "delta"), [folding(True)])
    torch.testing.assert_close(model.state_dict(), expected.state_dict(), rtol=0, atol=0)
