"""Bundles, deltas and checkpoints that are damaged, newer, or not there at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bundles.support import (
    assert_one_error,
    bundle_of,
    copy_of,
    data_of,
    edgetune,
    listing,
    train,
)

NAME = "distilbert"  # it has every kind of file: features.onnx, and a frozen.bin that is not empty
FILES = [
    *("costs.json", "evaluate.onnx", "features.onnx", "frozen.bin", "gradients.onnx"),
    *("predict.onnx", "selftest.npz", "state.safetensors", "update.onnx"),
]

Damage = Callable[[Path], None]


def flip(name: str, where: float = 0.5) -> Damage:
    """Flip one bit of a file."""

    def damage(bundle: Path) -> None:
        data = bytearray((bundle / name).read_bytes())
        data[int(where * (len(data) - 1))] ^= 1
        (bundle / name).write_bytes(data)

    return damage


def remove(name: str) -> Damage:
    return lambda bundle: (bundle / name).unlink()


def cut(name: str) -> Damage:
    return lambda bundle: (bundle / name).write_bytes((bundle / name).read_bytes()[:-9])


def manifest(change: Callable[[dict[str, Any]], object]) -> Damage:
    """Rewrite the manifest after `change` had it."""

    def damage(bundle: Path) -> None:
        plain = json.loads((bundle / "manifest.json").read_text())
        change(plain)
        (bundle / "manifest.json").write_text(json.dumps(plain))

    return damage


DAMAGES: list[Any] = [
    *[
        pytest.param(
            flip(name),
            [f"{name} is not what was exported (its SHA-256 differs)"],
            id=f"flip-{name}",
        )
        for name in FILES
    ],
    *[pytest.param(remove(name), [f"{name} is missing"], id=f"missing-{name}") for name in FILES],
    pytest.param(remove("manifest.json"), ["no bundle at", "edgetune export"], id="no-manifest"),
    pytest.param(cut("manifest.json"), ["manifest.json is damaged"], id="cut-manifest"),
    pytest.param(
        manifest(lambda plain: plain.update(schema=2, news="?")),
        ["the bundle has schema 2, this edgetune reads up to 1: upgrade edgetune"],
        id="newer-schema",
    ),
    pytest.param(
        manifest(lambda plain: plain.update(news="?")),
        ["manifest.news is not known"],
        id="unknown-key",
    ),
    pytest.param(
        manifest(lambda plain: plain["plan"].pop("optimizer")),
        ["manifest.plan.optimizer is missing"],
        id="missing-key",
    ),
    pytest.param(
        manifest(lambda plain: plain["plan"]["optimizer"].update(kind="lion")),
        ["unknown optimizer 'lion'"],
        id="unknown-optimizer",
    ),
    pytest.param(
        manifest(lambda plain: plain.update(format="pytorch")),
        ["is not the manifest of an edgetune bundle"],
        id="unknown-format",
    ),
    pytest.param(
        manifest(lambda plain: plain["digests"].update({"../mine": "0" * 64})),
        ["'../mine' is no name of a file in a bundle"],
        id="name-outside",
    ),
    pytest.param(
        manifest(lambda plain: plain["plan"]["selection"]["trainable"].append("fc9.weight")),
        ["state.safetensors does not fit the manifest: fc9.weight is missing"],
        id="another-selection",
    ),
]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint and a delta of NAME."""
    folder = tmp_path_factory.mktemp("results")
    assert train(NAME, folder).code == 0
    return folder


@pytest.fixture
def trained(results: Path, tmp_path: Path) -> Path:
    """A copy of it for each test."""
    return Path(shutil.copytree(results, tmp_path / "trained"))


def test_the_table_damages_every_kind_of_file() -> None:
    found = {path.name: path.stat().st_size for path in bundle_of(NAME).iterdir()}
    assert sorted(found) == sorted([*FILES, "manifest.json"])
    assert min(found.values()) > 0


@pytest.mark.parametrize(("damage", "parts"), DAMAGES)
def test_a_damaged_bundle_is_refused_by_every_command(
    trained: Path, damage: Damage, parts: list[str]
) -> None:
    bundle = copy_of(NAME, trained)
    damage(bundle)
    before, out = listing(trained), trained / "out"
    data = ("--data", data_of(NAME))
    for command in (
        ("verify", bundle),
        ("verify", bundle, "--json"),
        ("train", bundle, *data, "--out", out, "--checkpoint", trained / "new"),
        ("evaluate", bundle, *data),
        ("merge", bundle, "--out", out),
        ("delta", "make", bundle, "--checkpoint", trained / "checkpoint", "--out", out),
        ("delta", "apply", trained / "delta", "--to", bundle, "--out", out),
    ):
        assert_one_error(edgetune(*command), 6, *parts)
        assert listing(trained) == before


def test_all_that_is_damaged_is_named_at_once(tmp_path: Path) -> None:
    bundle = copy_of(NAME, tmp_path)
    flip("frozen.bin")(bundle)
    remove("update.onnx")(bundle)
    ran = edgetune("verify", bundle)
    assert_one_error(ran, 6, "2 problems", "frozen.bin is not", "update.onnx is missing")


def test_a_bundle_that_computes_something_else_fails_verification(tmp_path: Path) -> None:
    """Every digest is right, and the values are those of another bundle."""
    bundle = copy_of(NAME, tmp_path)
    data = bytearray((bundle / "state.safetensors").read_bytes())
    data[-1] ^= 64  # an exponent's bit
    (bundle / "state.safetensors").write_bytes(data)
    manifest(lambda plain: plain["digests"].update(_digests(bundle)))(bundle)
    ran = edgetune("verify", bundle)
    assert_one_error(ran, 6, "fails its self-test here", "PyTorch's is")
    report = edgetune("verify", bundle, "--json")
    assert report.code == 6
    assert len(report.json["report"]["problems"]) > 0
    assert report.err.startswith("edgetune: error: ")


def _digests(bundle: Path) -> dict[str, str]:
    return {name: digest for name, digest in listing(bundle).items() if name != "manifest.json"}


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        pytest.param("absent", ["no bundle at", "No such file or directory"], id="absent"),
        pytest.param(".", ["no bundle at"], id="a-folder"),
        pytest.param("file", ["no bundle at", "Not a directory"], id="a-file"),
    ],
)
def test_what_is_no_bundle_is_said_so(tmp_path: Path, path: str, parts: list[str]) -> None:
    (tmp_path / "file").write_text("mine")
    assert_one_error(edgetune("verify", tmp_path / path), 6, *parts)


@pytest.mark.parametrize("file", ["delta", "checkpoint"])
@pytest.mark.parametrize("place", [0.0, 0.01, 0.3, 0.6, 1.0])
def test_one_flipped_bit_of_a_result_is_noticed(trained: Path, file: str, place: float) -> None:
    flip(file, place)(trained)
    before = listing(trained)
    ran = edgetune(
        *("evaluate", bundle_of(NAME), "--data", data_of(NAME), f"--{file}", trained / file)
    )
    assert_one_error(ran, 6, str(trained / file))
    if file == "checkpoint":
        assert_one_error(train(NAME, trained, "--resume"), 6, str(trained / file))
    assert listing(trained) == before


def test_a_delta_of_another_bundle_is_refused(tmp_path: Path) -> None:
    assert train("regression", tmp_path).code == 0
    before = listing(tmp_path)
    delta = tmp_path / "delta"
    for command in (
        ("evaluate", bundle_of(NAME), "--data", data_of(NAME), "--delta", delta),
        ("merge", bundle_of(NAME), "--delta", delta, "--out", tmp_path / "model.onnx"),
        ("delta", "apply", delta, "--to", bundle_of(NAME), "--out", tmp_path / "tuned"),
    ):
        ran = edgetune(*command)
        assert_one_error(ran, 6, "the delta does not fit", "not among the base values")
        assert listing(tmp_path) == before
