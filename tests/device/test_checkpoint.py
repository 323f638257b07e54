from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from edgetune.errors import BundleError, CheckpointError
from edgetune.files import checkpoint as checkpoint_file
from edgetune.files.checkpoint import (
    Checkpoint,
    EpochRecord,
    Tally,
    read_checkpoint,
    write_checkpoint,
)


def make(step: int = 3) -> Checkpoint:
    generator = np.random.PCG64([1, 2])
    return Checkpoint(
        state={
            "w": np.arange(6, dtype=np.float32).reshape(2, 3),
            "count": np.array(step),
            "odd": np.array([np.pi, -0.0, np.nextafter(1, 2)]),
        },
        bundle_digest="ab" * 32,
        step=step,
        epoch=1,
        batch_in_epoch=2,
        learning_rate=0.1 + 0.2,
        seed=5,
        random_state=generator.state,
        configuration={"batch": 8, "clip_norm": None, "sha256": "0" * 64},
        tally=Tally(1.1, 3.0, 4, 5),
        history=(EpochRecord(0, 1.0, None, 0.3, 0.5, 1e-3),),
        best_metric=0.3,
        best_epoch=0,
        stale_epochs=1,
        best_values={"w": np.ones((2, 3), np.float32)},
    )


def same(a: Checkpoint, b: Checkpoint) -> bool:
    for name in ("state", "best_values"):
        left, right = getattr(a, name), getattr(b, name)
        assert set(left) == set(right)
        for key in left:
            assert left[key].dtype == right[key].dtype
            assert left[key].shape == right[key].shape
            assert left[key].tobytes() == right[key].tobytes()
    empty = {"state": {}, "best_values": {}}
    return dataclasses.replace(a, **empty) == dataclasses.replace(b, **empty)


def test_what_is_read_is_what_was_written_to_the_last_bit(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "run.safetensors", make())
    found = read_checkpoint(tmp_path / "run.safetensors")
    assert same(found, make())
    assert all(array.flags.writeable for array in found.state.values())
    generator = np.random.PCG64(0)
    generator.state = found.random_state
    assert generator.random_raw() == np.random.PCG64([1, 2]).random_raw()


def test_the_bytes_are_those_of_every_version_before(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "run", make())
    digest = hashlib.sha256((tmp_path / "run").read_bytes()).hexdigest()
    assert digest == "62d6e2816719f744ef1af7b22bdb961bb05c50e449344c76b6fca211f1fe75f5"


def test_equal_checkpoints_are_equal_bytes_in_any_order_of_their_entries(tmp_path: Path) -> None:
    first = make()
    second = dataclasses.replace(
        first,
        state=dict(reversed(list(first.state.items()))),
        configuration=dict(reversed(list(first.configuration.items()))),
    )
    files = []
    for name, checkpoint in (("a", first), ("b", second), ("c", make(step=4))):
        write_checkpoint(tmp_path / name, checkpoint)
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]
    assert files[0] != files[2]


def test_the_file_is_safetensors_that_other_programs_can_open(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "run", make())
    arrays = safetensors.numpy.load_file(tmp_path / "run")
    assert set(arrays) == {"state/w", "state/count", "state/odd", "best/w"}


def test_strided_arrays_keep_their_values(tmp_path: Path) -> None:
    strided = np.arange(12.0).reshape(3, 4).T[::2]
    checkpoint = dataclasses.replace(make(), state={"strided": strided})
    write_checkpoint(tmp_path / "run", checkpoint)
    np.testing.assert_array_equal(read_checkpoint(tmp_path / "run").state["strided"], strided)


def test_the_configuration_digest_depends_on_values_and_not_on_order() -> None:
    first = make()
    turned = dict(reversed(list(first.configuration.items())))
    same_digest = dataclasses.replace(first, configuration=turned).configuration_digest
    other = dataclasses.replace(first, configuration={"batch": 9}).configuration_digest
    assert first.configuration_digest == same_digest
    assert first.configuration_digest != other


def test_a_flipped_byte_anywhere_is_found(tmp_path: Path) -> None:
    path = tmp_path / "run"
    write_checkpoint(path, make())
    good = path.read_bytes()
    for position in range(len(good)):
        damaged = bytearray(good)
        damaged[position] ^= 0x01 if position % 2 else 0x80
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            read_checkpoint(path)


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 9, 100, -200, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "run"
    write_checkpoint(path, make())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        read_checkpoint(path)


def test_a_file_with_bytes_after_its_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run"
    write_checkpoint(path, make())
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        read_checkpoint(path)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no checkpoint at .*nothing-here"):
        read_checkpoint(tmp_path / "nothing-here")
    assert issubclass(CheckpointError, BundleError)


def test_a_folder_is_not_readable_as_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot read"):
        read_checkpoint(tmp_path)


def test_other_safetensors_files_are_no_checkpoints(tmp_path: Path) -> None:
    safetensors.numpy.save_file({"w": np.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="is no edgetune checkpoint"):
        read_checkpoint(tmp_path / "model.safetensors")


def test_a_newer_schema_asks_for_an_upgrade(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as later:
        later.setattr(checkpoint_file, "CHECKPOINT_SCHEMA", 2)
        write_checkpoint(tmp_path / "run", make())
    with pytest.raises(CheckpointError, match=r"schema 2.*reads up to 1: upgrade edgetune"):
        read_checkpoint(tmp_path / "run")


def test_tensors_that_are_not_where_the_header_says_are_refused_although_the_digest_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = checkpoint_file.encode_header
    with monkeypatch.context() as wrong:
        wrong.setattr(
            checkpoint_file,
            "encode_header",
            lambda *arguments: really(*arguments).replace(b'"shape":[3]', b'"shape":[2]'),
        )
        write_checkpoint(tmp_path / "run", make())
    with pytest.raises(CheckpointError, match=r"can read: the tensor state/odd is not"):
        read_checkpoint(tmp_path / "run")


def test_an_unknown_field_is_refused_although_the_digest_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_another_field(plain: dict[str, object]) -> str:
        inner = plain.get("checkpoint")
        if isinstance(inner, dict):
            inner["surprise"] = 1
        return json.dumps(plain, sort_keys=True, separators=(",", ":"))

    with monkeypatch.context() as later:
        later.setattr(checkpoint_file, "_to_json", with_another_field)
        write_checkpoint(tmp_path / "run", make())
    with pytest.raises(CheckpointError, match=r"Checkpoint\.surprise is not known"):
        read_checkpoint(tmp_path / "run")


def test_the_digest_is_hexadecimal_and_in_the_metadata(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "run", make())
    data = (tmp_path / "run").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    body = json.loads(header["__metadata__"]["edgetune"])
    assert re.fullmatch("[0-9a-f]{64}", body["sha256"])
    assert body["sha256"] != "0" * 64
