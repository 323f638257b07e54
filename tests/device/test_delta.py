from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import safetensors.numpy

from edgetune.errors import BundleError, StorageError
from edgetune.files.delta import (
    DELTA_SCHEMA,
    Delta,
    apply_delta,
    apply_delta_to_model,
    read_delta,
    write_delta,
)
from edgetune.files.onnx_tensor import new_tensor
from edgetune.files.onnx_weights import read_initializers
from edgetune.files.protobuf_wire import Chunks, bytes_field, integer_field

Arrays = dict[str, npt.NDArray[Any]]

BASE: Arrays = {
    "conv.weight": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3),
    "conv.bias": np.array([0.0, np.nan], np.float32),
    "head.scale": np.asarray(2.0, np.float32),
    "head.bias": np.array([1.0, 2.0], np.float16),
}


def changed(**arrays: npt.NDArray[Any]) -> Arrays:
    """BASE with other arrays, `_` in a name for `.`."""
    return {**BASE, **{name.replace("_", "."): array for name, array in arrays.items()}}


TUNED = changed(conv_weight=BASE["conv.weight"] * 3, head_scale=np.asarray(2.5, np.float32))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tuned.delta"


@pytest.fixture
def delta(path: Path) -> Delta:
    write_delta(path, BASE, TUNED, "abc")
    return read_delta(path)


def assert_same(found: Arrays, expected: Arrays) -> None:
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


def test_applying_to_the_base_gives_the_tuned_values_bit_for_bit(delta: Delta) -> None:
    assert_same(apply_delta(delta, BASE), TUNED)


def test_only_what_changed_is_kept(delta: Delta, path: Path) -> None:
    assert sorted(delta.tensors) == sorted(delta.base_digests) == ["conv.weight", "head.scale"]
    assert sorted(safetensors.numpy.load_file(path)) == ["conv.weight", "head.scale"]
    assert delta.bundle_digest == "abc"


BITS = {
    "same bits, NaN among them": (BASE["conv.bias"].copy(), False),
    "same values in another memory layout": (BASE["conv.bias"][::-1].copy()[::-1], False),
    "zero of the other sign": (np.array([-0.0, np.nan], np.float32), True),
    "last bit": (np.array([1e-45, np.nan], np.float32), True),
}


@pytest.mark.parametrize("case", BITS)
def test_changed_means_other_bits(path: Path, case: str) -> None:
    array, expected = BITS[case]
    write_delta(path, BASE, changed(conv_bias=array), "abc")
    assert ("conv.bias" in read_delta(path).tensors) is expected


def test_nothing_changed_is_an_empty_delta(path: Path) -> None:
    write_delta(path, BASE, BASE, "abc")
    assert_same(apply_delta(read_delta(path), BASE), BASE)
    assert read_delta(path).tensors == {}


def test_equal_arguments_make_equal_bytes_whatever_the_order(path: Path) -> None:
    write_delta(path, BASE, TUNED, "abc")
    first = path.read_bytes()
    write_delta(path, dict(reversed(BASE.items())), dict(reversed(TUNED.items())), "abc")
    assert path.read_bytes() == first


def test_any_memory_layout_is_stored_right(path: Path) -> None:
    transposed = np.asfortranarray(BASE["conv.weight"] + 1)
    write_delta(path, BASE, changed(conv_weight=transposed), "abc")
    np.testing.assert_array_equal(read_delta(path).tensors["conv.weight"], transposed)


# What cannot become a delta

MISFITS = {
    "missing": (
        {k: v for k, v in BASE.items() if k != "conv.bias"},
        "conv.bias: not among the tuned",
    ),
    "extra": (
        {**BASE, "conv.bais": BASE["conv.bias"]},
        "conv.bais: not among the base .*conv.bias",
    ),
    "shape": (
        changed(conv_weight=np.zeros((3, 2), np.float32)),
        r"float32\[3, 2\], expected float32\[2, 3\]",
    ),
    "dtype": (changed(head_bias=np.zeros(2, np.float32)), r"float32\[2\], expected float16\[2\]"),
    "several": ({"conv.weight": np.zeros(2, np.float16)}, "4 problems"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_values_that_do_not_match_make_no_delta(path: Path, case: str) -> None:
    tuned, message = MISFITS[case]
    with pytest.raises(BundleError, match=f"cannot make a delta: .*{message}"):
        write_delta(path, BASE, tuned, "abc")
    assert not path.exists()


def test_a_disk_that_refuses_leaves_the_old_delta(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_delta(path, BASE, TUNED, "abc")
    before = path.read_bytes()

    def refuse(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(StorageError, match="No space left on device"):
        write_delta(path, BASE, BASE, "abc")
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


# What a delta cannot be applied to

OTHER_BASES = {
    "other values": (
        changed(conv_weight=BASE["conv.weight"] + 1),
        "conv.weight: holds other values",
    ),
    "tuned already": (TUNED, "2 problems.*conv.weight: holds other.*head.scale: holds other"),
    "missing": (
        {"conv.weigth": BASE["conv.weight"]},
        "conv.weight: not .*are conv.weigth.*head.scale: not",
    ),
    "shape": (
        changed(conv_weight=BASE["conv.weight"].T),
        r"float32\[2, 3\], expected float32\[3, 2\]",
    ),
    "dtype": (
        changed(head_scale=np.asarray(2.0)),
        r"head.scale: float32\[\], expected float64\[\]",
    ),
}


@pytest.mark.parametrize("case", OTHER_BASES)
def test_a_delta_does_not_go_onto_something_else(delta: Delta, case: str) -> None:
    base, message = OTHER_BASES[case]
    with pytest.raises(BundleError, match=f"(?s)the delta does not fit: .*{message}"):
        apply_delta(delta, base)


def test_what_the_delta_leaves_alone_may_differ(delta: Delta) -> None:
    base = changed(head_bias=np.zeros(2, np.float16))
    assert_same(apply_delta(delta, base), {**TUNED, "head.bias": base["head.bias"]})


# Files that are no sound delta


def test_a_missing_file_is_named(path: Path) -> None:
    with pytest.raises(BundleError, match=r"cannot read the delta .*tuned.delta: No such file"):
        read_delta(path)


def test_every_flipped_byte_is_found_or_changes_nothing(delta: Delta, path: Path) -> None:
    whole = path.read_bytes()
    unnoticed = []
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        try:
            found = read_delta(path)
        except BundleError as error:
            assert str(path) in str(error)
        else:
            unnoticed.append(position)
            assert_same(apply_delta(found, BASE), TUNED)
            assert found.bundle_digest == "abc"
    assert unnoticed == []


def test_every_truncation_is_found(delta: Delta, path: Path) -> None:
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(BundleError, match="is damaged"):
            read_delta(path)


def rewritten(path: Path, **entries: object) -> None:
    """The delta at `path` with other metadata entries, None to leave one out."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    metadata = json.loads(header["__metadata__"]["edgetune_delta"])
    kept = {key: value for key, value in {**metadata, **entries}.items() if value is not None}
    arrays = safetensors.numpy.load_file(path)
    safetensors.numpy.save_file(arrays, path, {"edgetune_delta": json.dumps(kept)})


METADATA = {
    "newer": (
        {"schema": DELTA_SCHEMA + 1},
        "has schema 3, and this edgetune reads up to 2: upgrade",
    ),
    "schema in words": ({"schema": "one"}, "is damaged, or no delta: _Header.schema is 'one'"),
    "no content": ({"content": None}, "is damaged, or no delta: _Header.content is missing"),
    "unknown entry": ({"more": 1}, "is damaged, or no delta: _Header.more is not known"),
    "other bundle": ({"bundle_digest": "abd"}, "does not have the SHA-256 it states"),
    "other base": ({"base_digests": {}}, "does not have the SHA-256 it states"),
}


@pytest.mark.parametrize("case", METADATA)
def test_other_metadata_is_refused(delta: Delta, path: Path, case: str) -> None:
    entries, message = METADATA[case]
    rewritten(path, **entries)
    with pytest.raises(BundleError, match=message):
        read_delta(path)


def test_rewriting_the_same_metadata_is_accepted(delta: Delta, path: Path) -> None:
    rewritten(path)
    assert_same(apply_delta(read_delta(path), BASE), TUNED)


@pytest.mark.parametrize(
    "data",
    [b"", b"PK\x03\x04 some zip", safetensors.numpy.save(BASE), b"\x02" + b"\0" * 7 + b"[]"],
    ids=["empty", "zip", "weights", "list"],
)
def test_another_file_is_no_delta(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(BundleError, match=r"tuned.delta is damaged, or no delta"):
        read_delta(path)


# Onto an ONNX model


def onnx_model(arrays: Arrays) -> bytes:
    """A model that is nothing but initializers."""
    tensors = [bytes_field(5, new_tensor(name, array)) for name, array in arrays.items()]
    graph: Chunks = [chunk for tensor in tensors for chunk in tensor]
    return b"".join([*integer_field(1, 8), *bytes_field(7, graph)])


def test_a_delta_goes_into_a_merged_model(delta: Delta, tmp_path: Path) -> None:
    other = {"frozen": np.ones(3, np.int8)}
    (tmp_path / "base.onnx").write_bytes(onnx_model({**other, **BASE}))
    apply_delta_to_model(delta, tmp_path / "base.onnx", tmp_path / "tuned.onnx")
    found = read_initializers((tmp_path / "tuned.onnx").read_bytes(), tmp_path)
    assert_same(found, {**other, **TUNED})


MODELS = {
    "missing file": (None, "m.onnx: cannot read the model: No such file"),
    "damaged": (onnx_model(BASE)[:-1], "m.onnx: damaged protobuf message"),
    "other values": (onnx_model(TUNED), "m.onnx: the delta does not fit: 2 problems"),
    "no such initializer": (onnx_model({}), "m.onnx: the delta does not fit: 2 problems"),
}


@pytest.mark.parametrize("case", MODELS)
def test_a_delta_does_not_go_into_another_model(delta: Delta, tmp_path: Path, case: str) -> None:
    data, message = MODELS[case]
    if data is not None:
        (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(BundleError, match=message):
        apply_delta_to_model(delta, tmp_path / "m.onnx", tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()
