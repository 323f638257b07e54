from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgetune.errors import BundleError
from edgetune.files.bundle import check_digests, digests_of, read_manifest, write_manifest
from edgetune.nouns.folding import FoldedBatchNorm
from edgetune.nouns.manifest import Manifest
from tests.device.fake_session import make_manifest

FILES = {
    "gradients.onnx": b"\x08\x08graph",
    "frozen.bin": bytes(range(256)) * 9000,  # more than one chunk of the digest
    "state.safetensors": b"\x02\0\0\0\0\0\0\0{}",
    "selftest.npz": b"PK",
    "costs.json": b"{}\n",
    "empty.bin": b"",
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A folder with a file of each kind, whose manifest states their digests."""
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    write_manifest(tmp_path, replace(make_manifest(), digests=digests_of(tmp_path)))
    return tmp_path


RICH = replace(
    make_manifest(class_weights=(0.1, 1.0, 1 / 3)),
    features=("relu_1", "output.1"),
    folded=(FoldedBatchNorm("conv.weight", "bn.bias", "bn", False),),
    digests={"b": "1" * 64, "a": "0" * 64},
)


@pytest.mark.parametrize(
    "manifest", [pytest.param(make_manifest(), id="plain"), pytest.param(RICH, id="rich")]
)
def test_a_manifest_comes_back_as_it_was(tmp_path: Path, manifest: Manifest) -> None:
    write_manifest(tmp_path, manifest)
    found, digest = read_manifest(tmp_path)
    assert found == manifest
    data = (tmp_path / "manifest.json").read_bytes()
    assert digest == hashlib.sha256(data).hexdigest()
    write_manifest(tmp_path, found)
    assert (tmp_path / "manifest.json").read_bytes() == data


def test_the_digests_are_those_of_every_file_but_the_manifest(bundle: Path) -> None:
    manifest, _ = read_manifest(bundle)
    assert dict(manifest.digests) == {
        name: hashlib.sha256(data).hexdigest() for name, data in sorted(FILES.items())
    }
    check_digests(bundle, manifest.digests)


@pytest.mark.parametrize("name", [name for name, data in FILES.items() if data])
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_a_flipped_bit_anywhere_is_noticed(bundle: Path, name: str, place: float) -> None:
    data = bytearray(FILES[name])
    data[int(place * (len(data) - 1))] ^= 128
    (bundle / name).write_bytes(data)
    with pytest.raises(BundleError) as caught:
        check_digests(bundle, digests_of_manifest(bundle))
    assert str(caught.value) == (
        f"the bundle {bundle} is damaged; copy it again: {name} is not what was exported "
        "(its SHA-256 differs)"
    )


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=f"copy it again: {name} is missing"):
        check_digests(bundle, digests_of_manifest(bundle))


def test_everything_that_is_damaged_is_named(bundle: Path) -> None:
    (bundle / "frozen.bin").write_bytes(b"")
    (bundle / "empty.bin").write_bytes(b"x")
    (bundle / "costs.json").unlink()
    (bundle / "costs.json").mkdir()
    with pytest.raises(BundleError) as caught:
        check_digests(bundle, digests_of_manifest(bundle))
    assert "3 problems" in str(caught.value)
    for problem in ("costs.json is missing", "empty.bin is not what", "frozen.bin is not what"):
        assert problem in str(caught.value)


def test_a_file_more_is_nobodys_business(bundle: Path) -> None:
    (bundle / "notes.txt").write_text("mine")
    check_digests(bundle, digests_of_manifest(bundle))


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/b", "..", ""])
def test_a_name_that_leads_out_of_the_bundle_is_refused(bundle: Path, name: str) -> None:
    with pytest.raises(BundleError, match="is no name of a file in a bundle"):
        check_digests(bundle, {name: "0" * 64})


def digests_of_manifest(bundle: Path) -> Any:
    return read_manifest(bundle)[0].digests


def without(*path: str) -> Callable[[Any], None]:
    def change(plain: Any) -> None:
        for key in path[:-1]:
            plain = plain[key]
        del plain[path[-1]]

    return change


def with_value(value: Any, *path: str) -> Callable[[Any], None]:
    def change(plain: Any) -> None:
        for key in path[:-1]:
            plain = plain[key]
        plain[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            with_value(2, "schema"),
            r"has schema 2, this edgetune reads up to 1: upgrade edgetune on this device, or",
            id="newer",
        ),
        pytest.param(with_value("1", "schema"), "is not the manifest of an edgetune", id="text"),
        pytest.param(with_value(True, "schema"), "is not the manifest of an edgetune", id="bool"),
        pytest.param(without("schema"), "is not the manifest of an edgetune", id="no-schema"),
        pytest.param(with_value("onnx", "format"), "is not the manifest of an", id="format"),
        pytest.param(without("plan"), "is damaged: manifest.plan is missing", id="no-plan"),
        pytest.param(
            without("plan", "cost", "peak_bytes"),
            "is damaged: manifest.plan.cost.peak_bytes is missing; export or copy the bundle again",
            id="deep",
        ),
        pytest.param(with_value(1, "extra"), "manifest.extra is not known", id="unknown"),
        pytest.param(
            with_value(1, "plan", "extra"), "manifest.plan.extra is not known", id="unknown-deep"
        ),
        pytest.param(
            with_value("8", "plan", "batch"), "manifest.plan.batch is '8', expected int", id="type"
        ),
        pytest.param(
            with_value([1], "plan", "selection", "trainable"),
            r"manifest.plan.selection.trainable\[0\] is 1, expected str",
            id="type-in-a-list",
        ),
        pytest.param(
            with_value("lion", "plan", "optimizer", "kind"), "unknown optimizer 'lion'", id="noun"
        ),
    ],
)
def test_a_manifest_that_cannot_be_followed_is_refused(
    bundle: Path, change: Callable[[Any], None], message: str
) -> None:
    plain = json.loads((bundle / "manifest.json").read_text())
    change(plain)
    (bundle / "manifest.json").write_text(json.dumps(plain))
    with pytest.raises(BundleError, match=message):
        read_manifest(bundle)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b'{"schema": 1, "format": "port', id="cut"),
        pytest.param(b"\xff\xfe{}", id="no-text"),
        pytest.param(b"[1, 2]", id="a-list"),
        pytest.param(b"null", id="null"),
    ],
)
def test_what_is_no_manifest_is_said_so(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(text)
    with pytest.raises(BundleError, match=r"is damaged: |is not the manifest of an edgetune"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("path", ["absent", ".", "file"])
def test_where_no_bundle_is_the_error_says_what_was_expected(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(BundleError, match="expected a folder written by `edgetune export`"):
        read_manifest(tmp_path / path)
