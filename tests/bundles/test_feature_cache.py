"""Training that reads the frozen prefix's results from disk: the same values, to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgetune.files.delta import read_delta
from tests.bundles.support import copy_of, data_of, edgetune

WITH_PREFIX = ("mobilenet_v3_small", "distilbert", "multi_label")


def trained(name: str, folder: Path, *more: str) -> dict[str, bytes]:
    """The values after three epochs of the bundle in `folder`."""
    delta, checkpoint = folder / "delta", folder / "checkpoint"
    checkpoint.unlink(missing_ok=True)
    ran = edgetune(
        *("train", folder / name, "--data", data_of(name), "--epochs", "3", "--out", delta),
        *("--checkpoint", checkpoint, "--quiet", *more),
    )
    assert ran.code == 0, ran.err
    return {n: value.tobytes() for n, value in read_delta(delta).tensors.items()}


@pytest.mark.parametrize("name", WITH_PREFIX)
def test_kept_features_train_the_same_values(name: str, tmp_path: Path) -> None:
    copy_of(name, tmp_path)
    computed = trained(name, tmp_path, "--feature-cache", "off")
    assert not (tmp_path / f"{name}.features").exists()
    assert trained(name, tmp_path) == computed
    assert (tmp_path / f"{name}.features").is_dir()
    assert trained(name, tmp_path) == computed, "read from the first step on"


def test_what_is_kept_is_reported(tmp_path: Path) -> None:
    bundle = copy_of("multi_label", tmp_path)
    options = ["train", bundle, "--data", data_of("multi_label"), "--epochs", "2"]
    ran = edgetune(*options, "--out", tmp_path / "delta", "--checkpoint", tmp_path / "c", "--json")
    assert ran.json["features"]["samples"] == 11
    assert ran.json["features"]["bytes"] > 0


def test_where_everything_is_trained_nothing_is_kept(tmp_path: Path) -> None:
    copy_of("regression", tmp_path)
    trained("regression", tmp_path)
    assert not (tmp_path / "regression.features").exists()


def test_a_bound_that_is_no_size_is_refused(tmp_path: Path) -> None:
    bundle = copy_of("multi_label", tmp_path)
    ran = edgetune("train", bundle, "--data", data_of("multi_label"), "--feature-cache", "much")
    assert ran.code == 2
    assert "cannot read 'much'" in ran.err or "much" in ran.err
