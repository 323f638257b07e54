"""Deltas of tensors of which only some slices are trained."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from edgetune.errors import BundleError
from edgetune.files import delta as delta_file
from edgetune.files.delta import (
    Delta,
    apply_delta,
    apply_delta_to_model,
    digest,
    read_delta,
    write_delta,
)
from edgetune.files.onnx_weights import read_initializers
from edgetune.nouns.candidate import Share
from edgetune.nouns.slices import put_slices, take_slices
from tests.device.test_delta import Arrays, assert_same, onnx_model

WHOLE: Arrays = {
    "embedding": np.arange(12, dtype=np.float32).reshape(6, 2),
    "weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "bias": np.zeros(3, np.float32),
}
SHARES = {"embedding": Share(0, (1, 4)), "weight": Share(1, (0, 3))}


def slices_of(whole: Arrays, shares: dict[str, Share] = SHARES) -> Arrays:
    return {name: take_slices(array, shares.get(name)) for name, array in whole.items()}


BASE = slices_of(WHOLE)
TUNED: Arrays = {name: array + 1 for name, array in BASE.items()}


def tuned_whole() -> Arrays:
    whole = {name: array.copy() for name, array in WHOLE.items()}
    for name, array in whole.items():
        put_slices(array, SHARES.get(name), TUNED[name])
    return whole


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tuned.delta"


@pytest.fixture
def delta(path: Path) -> Delta:
    write_delta(path, BASE, TUNED, "abc", SHARES)
    return read_delta(path)


def test_it_holds_the_slices_and_says_which(delta: Delta, path: Path) -> None:
    assert delta.shares == SHARES
    assert safetensors.numpy.load_file(path)["weight"].shape == (3, 2)
    assert delta.base_digests["weight"] == digest(BASE["weight"])


def test_it_goes_onto_the_same_slices(delta: Delta) -> None:
    assert_same(apply_delta(delta, BASE, SHARES), TUNED)


def test_it_goes_into_whole_tensors(delta: Delta) -> None:
    before = {name: array.copy() for name, array in WHOLE.items()}
    assert_same(apply_delta(delta, WHOLE), tuned_whole())
    assert_same(WHOLE, before)


def test_it_goes_into_what_is_partly_whole(delta: Delta) -> None:
    base = {**BASE, "weight": WHOLE["weight"]}
    expected = {**TUNED, "weight": tuned_whole()["weight"]}
    assert_same(apply_delta(delta, base, {"embedding": SHARES["embedding"]}), expected)


def test_only_what_changed_is_kept(path: Path) -> None:
    write_delta(path, BASE, {**BASE, "weight": TUNED["weight"]}, "abc", SHARES)
    found = read_delta(path)
    assert list(found.tensors) == ["weight"]
    assert found.shares == {"weight": SHARES["weight"]}


def test_equal_arguments_make_equal_bytes(delta: Delta, path: Path) -> None:
    first = path.read_bytes()
    write_delta(path, BASE, TUNED, "abc", dict(reversed(SHARES.items())))
    assert path.read_bytes() == first


def schema_of(path: Path) -> int:
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    schema: int = json.loads(header["__metadata__"]["edgetune_delta"])["schema"]
    return schema


def test_a_delta_of_whole_tensors_is_as_it_always_was(path: Path) -> None:
    write_delta(path, WHOLE, tuned_whole(), "abc")
    assert schema_of(path) == 1
    assert b"shares" not in path.read_bytes()
    write_delta(path, BASE, TUNED, "abc", SHARES)
    assert schema_of(path) == 2


def test_an_older_edgetune_says_that_it_is_too_old(
    delta: Delta, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delta_file, "DELTA_SCHEMA", 1)
    with pytest.raises(BundleError, match="has schema 2, and this edgetune reads up to 1: upgrade"):
        read_delta(path)


def test_every_flipped_byte_is_found(delta: Delta, path: Path) -> None:
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        with pytest.raises(BundleError):
            read_delta(path)


OTHER_SHARES: dict[str, tuple[dict[str, Share], str]] = {
    "other slices": (
        {**SHARES, "embedding": Share(0, (1, 5))},
        r"embedding: the delta changes 2 slices along axis 0 \(1, 4\), trained is 2 slices along "
        r"axis 0 \(1, 5\)",
    ),
    "another axis": (
        {**SHARES, "weight": Share(0, (0, 2))},
        r"weight: the delta changes 2 slices along axis 1 \(0, 3\), trained is 2 slices along axis",
    ),
    "several": (
        {"embedding": Share(0, (0,)), "weight": Share(1, (1, 2))},
        "2 problems(?s:.*)embedding: (?s:.*)weight: ",
    ),
}


@pytest.mark.parametrize("case", OTHER_SHARES)
def test_it_does_not_go_onto_other_slices(delta: Delta, case: str) -> None:
    shares, message = OTHER_SHARES[case]
    with pytest.raises(BundleError, match=f"the delta does not fit: {message}"):
        apply_delta(delta, slices_of(WHOLE, shares), shares)


def test_equal_values_do_not_make_other_slices_the_same(path: Path) -> None:
    """As the second factor of LoRA, which is zero at first."""
    zeros, ones = {"b": np.zeros((2, 3), np.float32)}, {"b": np.ones((2, 3), np.float32)}
    write_delta(path, zeros, ones, "abc", {"b": Share(0, (0, 1))})
    with pytest.raises(BundleError, match=r"b: the delta changes 2 slices .* trained is 2 slices"):
        apply_delta(read_delta(path), zeros, {"b": Share(0, (2, 3))})


def test_a_delta_of_all_of_a_tensor_does_not_go_onto_slices(path: Path) -> None:
    write_delta(path, WHOLE, tuned_whole(), "abc")
    message = r"weight: the delta changes all of it, trained is 2 slices along axis 1 \(0, 3\)"
    with pytest.raises(BundleError, match=message):
        apply_delta(read_delta(path), BASE, SHARES)


OTHER_WHOLES: dict[str, tuple[Arrays, str]] = {
    "fewer slices": (
        {**WHOLE, "weight": WHOLE["weight"][:, :3]},
        "weight: there is no slice 3 along axis 1, expected 0 to 2",
    ),
    "another shape": (
        {**WHOLE, "weight": WHOLE["weight"][:2]},
        r"weight: float32\[3, 2\], expected float32\[2, 2\]",
    ),
    "fewer dimensions": (
        {**WHOLE, "weight": WHOLE["weight"][0]},
        r"weight: has slices along axis 1, the tensor is \[4\]",
    ),
    "another type": (
        {**WHOLE, "weight": WHOLE["weight"].astype(np.float64)},
        r"weight: float32\[3, 2\], expected float64\[3, 2\]",
    ),
    "other values in the slices": (
        {**WHOLE, "weight": WHOLE["weight"] + 1},
        "weight: holds other values than those that were tuned",
    ),
    "no such tensor": (
        {"embedding": WHOLE["embedding"], "bias": WHOLE["bias"]},
        "weight: not among the base values",
    ),
    "slices that nobody calls so": (
        {**WHOLE, "weight": BASE["weight"]},
        "weight: there is no slice 3 along axis 1, expected 0 to 1",
    ),
}


@pytest.mark.parametrize("case", OTHER_WHOLES)
def test_it_does_not_go_into_other_tensors(delta: Delta, case: str) -> None:
    base, message = OTHER_WHOLES[case]
    with pytest.raises(BundleError, match=f"the delta does not fit: {message}"):
        apply_delta(delta, base)


def test_values_outside_of_the_slices_may_differ(delta: Delta) -> None:
    base = {**WHOLE, "weight": WHOLE["weight"].copy()}
    base["weight"][:, 1] = 99
    found = apply_delta(delta, base)["weight"]
    np.testing.assert_array_equal(found[:, [0, 3]], TUNED["weight"])
    np.testing.assert_array_equal(found[:, [1, 2]], base["weight"][:, [1, 2]])


UNSOUND: dict[str, tuple[dict[str, Share], str]] = {
    "another number": (
        {"weight": Share(1, (0, 1, 3))},
        r"weight: float32\[3, 2\], expected 3 slices along axis 1 \(0, 1, 3\)",
    ),
    "no such axis": (
        {"weight": Share(2, (0, 1))},
        r"weight: float32\[3, 2\], expected 2 slices along axis 2",
    ),
    "axis from behind": (
        {"weight": Share(-1, (0, 1))},
        r"weight: float32\[3, 2\], expected 2 slices along axis -1",
    ),
    "negative": ({"weight": Share(1, (-1, 1))}, "weight: there is no slice -1 along axis 1"),
    "descending": ({"weight": Share(1, (1, 0))}, "weight: the indices of its slices are 1, 0"),
    "of nothing": ({"wieght": Share(1, (0, 1))}, "wieght: no values, expected 2 slices along axis"),
}


@pytest.mark.parametrize("case", UNSOUND)
def test_slices_that_cannot_be_make_no_delta(path: Path, case: str) -> None:
    shares, message = UNSOUND[case]
    with pytest.raises(BundleError, match=f"cannot make a delta: {message}"):
        write_delta(path, BASE, TUNED, "abc", shares)
    assert not path.exists()


@pytest.mark.parametrize("case", UNSOUND)
def test_slices_that_cannot_be_are_refused_when_read(path: Path, case: str) -> None:
    shares, message = UNSOUND[case]
    digests = {name: digest(array) for name, array in BASE.items()}
    delta_file._write(path, Delta(TUNED, "abc", digests, shares))
    with pytest.raises(BundleError, match=f"tuned.delta is not sound: {message}"):
        read_delta(path)


def test_it_goes_into_a_merged_model(delta: Delta, tmp_path: Path) -> None:
    (tmp_path / "base.onnx").write_bytes(onnx_model({"other": np.ones(2), **WHOLE}))
    apply_delta_to_model(delta, tmp_path / "base.onnx", tmp_path / "tuned.onnx")
    found = read_initializers((tmp_path / "tuned.onnx").read_bytes(), tmp_path)
    assert_same(found, {"other": np.ones(2), **tuned_whole()})


def test_it_does_not_go_into_a_model_of_slices(delta: Delta, tmp_path: Path) -> None:
    (tmp_path / "base.onnx").write_bytes(onnx_model(BASE))
    message = "base.onnx: the delta does not fit: 2 problems"
    with pytest.raises(BundleError, match=message):
        apply_delta_to_model(delta, tmp_path / "base.onnx", tmp_path / "tuned.onnx")
    assert not (tmp_path / "tuned.onnx").exists()
