"""Tuned slices back into the PyTorch module."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from edgetune_exporters.load_into import load_delta_into, load_into
from torch import nn

from edgetune.errors import BundleError
from edgetune.files.delta import read_delta, write_delta
from edgetune.nouns.candidate import Share
from edgetune.nouns.slices import take_slices
from tests.export.test_load_into import Arrays, folding, functional_fold, seeded

SHARES = {"0.weight": Share(1, (0, 2)), "1.weight": Share(0, (1, 3))}


def linears() -> nn.Sequential:
    return seeded(nn.Linear(4, 5), nn.Linear(5, 4))


def values_of(model: nn.Module, shares: dict[str, Share] = SHARES) -> Arrays:
    return {
        name: take_slices(parameter.detach().float().numpy(), shares.get(name))
        for name, parameter in model.named_parameters()
    }


def tuned_values() -> Arrays:
    return {name: value + 1 for name, value in values_of(linears()).items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_only_the_slices_are_written(dtype: torch.dtype) -> None:
    model = linears().to(dtype)
    before, tuned = copy.deepcopy(model), tuned_values()
    load_into(model, tuned, shares=SHARES)
    after, initial = dict(model.named_parameters()), dict(before.named_parameters())
    for name, value in tuned.items():
        found = after[name].detach().numpy()
        expected = torch.from_numpy(value).to(dtype).numpy()
        np.testing.assert_array_equal(take_slices(found, SHARES.get(name)), expected)
    for name, share in SHARES.items():
        outside = [
            np.delete(p.detach().numpy(), share.indices, share.axis)
            for p in (after[name], initial[name])
        ]
        np.testing.assert_array_equal(*outside)


WRONG: dict[str, tuple[Arrays, dict[str, Share], str]] = {
    "whole tensor for slices": (
        {"0.weight": np.zeros((5, 4), np.float32)},
        SHARES,
        r"0.weight: found shape \[5, 4\], expected \[5, 2\]",
    ),
    "slices for a whole tensor": (
        {"0.weight": np.zeros((5, 2), np.float32)},
        {},
        r"0.weight: found shape \[5, 2\], expected \[5, 4\]",
    ),
    "no such slice": (
        {"0.weight": np.zeros((5, 2), np.float32)},
        {"0.weight": Share(1, (0, 4))},
        "0.weight: there is no slice 4 along axis 1, expected 0 to 3",
    ),
    "no such axis": (
        {"0.bias": np.zeros(2, np.float32)},
        {"0.bias": Share(1, (0, 4))},
        r"0.bias: has slices along axis 1, the tensor is \[5\]",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_changes_nothing(case: str) -> None:
    values, shares, message = WRONG[case]
    model = linears()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(BundleError, match=f"cannot load the values into the module: {message}"):
        load_into(model, values, shares=shares)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


FOLDED = {
    "input channels": {"0.weight": Share(1, (1,))},
    "output channels": {"0.weight": Share(0, (0, 4))},
    "biases": {"0.bias": Share(0, (2, 3))},
    "output channels and biases": {"0.weight": Share(0, (0, 4)), "0.bias": Share(0, (2, 3))},
}


@pytest.mark.parametrize("case", FOLDED)
@pytest.mark.parametrize("has_bias", [True, False])
def test_slices_of_a_folded_convolution_are_unfolded(case: str, has_bias: bool) -> None:
    fold = folding(has_bias)
    shares = {fold.bias if n == "0.bias" else n: share for n, share in FOLDED[case].items()}
    model = seeded(nn.Conv2d(3, 6, 3, bias=has_bias), nn.BatchNorm2d(6))
    rng = np.random.default_rng(0)
    whole = functional_fold(model, fold)
    tuned = {name: value.copy() for name, value in whole.items()}
    values = {}
    for name, value in tuned.items():
        share = shares.get(name)
        values[name] = take_slices(value, share)
        values[name] += rng.normal(size=values[name].shape).astype(np.float32)
        index = (slice(None),) * (share.axis if share else 0)
        value[(*index, list(share.indices) if share else slice(None))] = values[name]
    load_into(model, values, [fold], shares)
    images = torch.from_numpy(rng.normal(size=(2, 3, 8, 8)).astype(np.float32))
    weight, bias = (torch.from_numpy(tuned[name]) for name in (fold.weight, fold.bias))
    with torch.no_grad():
        torch.testing.assert_close(
            model(images), nn.functional.conv2d(images, weight, bias), rtol=1e-4, atol=1e-4
        )


def test_a_delta_of_slices_goes_into_the_module(tmp_path: Path) -> None:
    model, tuned = linears(), tuned_values()
    write_delta(tmp_path / "delta", values_of(model), tuned, "abc", SHARES)
    load_delta_into(model, read_delta(tmp_path / "delta"))
    for name, value in values_of(model).items():
        np.testing.assert_array_equal(value, tuned[name])


def test_a_delta_of_slices_is_refused_by_a_module_with_others(tmp_path: Path) -> None:
    model = linears()
    write_delta(tmp_path / "delta", values_of(model), tuned_values(), "abc", SHARES)
    delta = read_delta(tmp_path / "delta")
    with torch.no_grad():
        model[0].get_parameter("weight")[0, 1] += 1  # outside of the slices
    load_delta_into(copy.deepcopy(model), delta)
    with torch.no_grad():
        model[0].get_parameter("weight")[0, 2] += 1
    with pytest.raises(BundleError, match=r"0.weight: the module holds other values"):
        load_delta_into(model, delta)
    with pytest.raises(BundleError, match=r"0\.weight: there is no slice 2 along axis 1"):
        load_delta_into(seeded(nn.Linear(2, 5), nn.Linear(5, 4)), delta)
