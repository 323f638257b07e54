"""What the frozen prefix makes of each sample, kept on disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgetune.runtime.feature_cache import FeatureCache
from edgetune.runtime.session import Array, Arrays, MicroBatch, Samples

SIZE, WIDTH = 4, 6
DATA = np.arange(40 * WIDTH, dtype=np.float32).reshape(40, WIDTH)


class Prefix:
    """A prefix that counts how often it runs."""

    def __init__(self, of: Callable[[Array], dict[str, Array]] | None = None) -> None:
        self.runs = 0
        self._of = of or (lambda x: {"twice": 2 * x, "flag": x[:, :1] > 10})

    def __call__(self, inputs: Arrays) -> dict[str, Array]:
        self.runs += 1
        return self._of(inputs["x"])


def batch(*rows: int, dataset: str = "data") -> MicroBatch:
    chosen = np.array(rows)
    return MicroBatch(
        {"x": DATA[chosen]}, {}, np.ones(SIZE, np.float32), Samples(dataset, len(DATA), chosen)
    )


def features(cache: FeatureCache, prefix: Prefix, *rows: int, dataset: str = "data") -> int:
    """Check what the cache gives for these rows; how often the prefix ran for it."""
    before = prefix.runs
    found = cache.features(batch(*rows, dataset=dataset), prefix)
    assert (found["twice"] == 2 * DATA[list(rows)]).all()
    assert (found["flag"] == (DATA[list(rows), :1] > 10)).all()
    assert found["twice"].dtype == np.float32 and found["flag"].dtype == bool
    return prefix.runs - before


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "features", "prefix", 2**20)


def only_file(cache: FeatureCache, tmp_path: Path) -> Path:
    (path,) = (tmp_path / "features").iterdir()
    return path


def test_each_sample_is_computed_once(cache: FeatureCache) -> None:
    prefix = Prefix()
    assert features(cache, prefix, 0, 1, 2, 3) == 2, "once, and once backwards to try it out"
    assert features(cache, prefix, 4, 5, 6, 7) == 1
    assert features(cache, prefix, 7, 0, 5, 2) == 0, "in whatever order"
    assert features(cache, prefix, 0, 1, 2, 8) == 1, "one is not there"
    assert cache.kept().samples == 9


def test_what_is_kept_serves_the_next_process(cache: FeatureCache, tmp_path: Path) -> None:
    features(cache, Prefix(), 0, 1, 2, 3)
    again, prefix = FeatureCache(tmp_path / "features", "prefix", 2**20), Prefix()
    features(again, prefix, 0, 1, 2, 3)
    assert features(again, prefix, 3, 2, 1, 0) == 0


@pytest.mark.parametrize("changed", ["prefix", "dataset"])
def test_another_prefix_or_data_set_is_never_mistaken(tmp_path: Path, changed: str) -> None:
    folder = tmp_path / "features"
    features(FeatureCache(folder, "prefix", 2**20), Prefix(), 0, 1, 2, 3)
    name = "other" if changed == "prefix" else "prefix"
    dataset = "other" if changed == "dataset" else "data"
    other, prefix = FeatureCache(folder, name, 2**20), Prefix()
    assert features(other, prefix, 0, 1, 2, 3, dataset=dataset) == 2
    assert len(list(folder.iterdir())) == 2


def test_a_header_that_says_something_else_empties_the_file(
    cache: FeatureCache, tmp_path: Path
) -> None:
    features(cache, Prefix(), 0, 1, 2, 3)
    path = only_file(cache, tmp_path)
    path.write_bytes(b"{}" + path.read_bytes()[2:])
    again, prefix = FeatureCache(tmp_path / "features", "prefix", 2**20), Prefix()
    assert features(again, prefix, 0, 1, 2, 3) == 2
    assert features(again, prefix, 0, 1, 2, 3) == 0


@pytest.mark.parametrize("damage", ["cut off", "flipped", "a hole"])
def test_a_damaged_record_is_computed_again(
    cache: FeatureCache, tmp_path: Path, damage: str
) -> None:
    features(cache, Prefix(), 0, 1, 2, 3)
    path = only_file(cache, tmp_path)
    content = bytearray(path.read_bytes())
    if damage == "cut off":
        content = content[:-70]
    elif damage == "flipped":
        content[-100] ^= 1
    else:
        content[-192:] = bytes(192)
    path.write_bytes(content)
    again, prefix = FeatureCache(tmp_path / "features", "prefix", 2**20), Prefix()
    features(again, prefix, 0, 1, 2, 3)
    assert features(again, prefix, 3, 2, 1, 0) == 0, "and kept whole"


def test_within_its_bound_the_first_samples_are_kept(tmp_path: Path) -> None:
    stride = 64 + 64 + 64  # check, twice, flag
    cache, prefix = FeatureCache(tmp_path / "features", "prefix", 4096 + 3 * stride), Prefix()
    features(cache, prefix, 0, 1, 2, 3)
    assert features(cache, prefix, 0, 1, 2, 1) == 0
    assert features(cache, prefix, 0, 1, 2, 3) == 1, "the fourth is computed each time"
    assert cache.kept().bytes <= 4096 + 3 * stride


def test_a_bound_that_holds_nothing_keeps_nothing(tmp_path: Path) -> None:
    cache, prefix = FeatureCache(tmp_path / "features", "prefix", 4096), Prefix()
    features(cache, prefix, 0, 1, 2, 3)
    assert features(cache, prefix, 0, 1, 2, 3) == 1
    assert not (tmp_path / "features").exists()


def test_files_of_others_give_way_the_oldest_first(tmp_path: Path) -> None:
    folder = tmp_path / "features"
    for number, name in enumerate(("oldest", "older")):
        features(FeatureCache(folder, name, 2**20), Prefix(), 0, 1, 2, 3)
        os.utime(next(folder.glob(f"{name}*")), (number, number))
    bound = 2 * 4096 + 4 * 192 + 40 * 192
    features(FeatureCache(folder, "new", bound), Prefix(), 0, 1, 2, 3)
    assert sorted(path.name.partition("-")[0] for path in folder.iterdir()) == ["new", "older"]


def test_a_disk_that_cannot_be_written_to_falls_back_to_computing(
    cache: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = Prefix()
    features(cache, prefix, 0, 1, 2, 3)

    def full(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    assert features(cache, prefix, 4, 5, 6, 7) == 1
    assert features(cache, prefix, 4, 5, 6, 7) == 1
    assert features(cache, prefix, 0, 1, 2, 3) == 0, "what is there is read"


def test_a_folder_that_cannot_be_made_falls_back_to_computing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache, prefix = FeatureCache(tmp_path / "file" / "features", "prefix", 2**20), Prefix()
    assert features(cache, prefix, 0, 1, 2, 3) == 2
    assert features(cache, prefix, 0, 1, 2, 3) == 1


@pytest.mark.parametrize(
    ("case", "of"),
    {
        "turned": lambda x: {"twice": 2 * x.T[:SIZE]},
        "mixed": lambda x: {"twice": x - x[:1]},
        "one for all": lambda x: {"twice": x.sum(keepdims=True)},
    }.items(),
)
def test_what_is_not_by_sample_is_never_kept(
    cache: FeatureCache, case: str, of: Callable[[Array], dict[str, Array]]
) -> None:
    prefix = Prefix(of)
    for _ in range(2):
        found = cache.features(batch(0, 1, 2, 3), prefix)
        assert (found["twice"] == of(DATA[:4])["twice"]).all(), case
    assert cache.kept().samples == 0


def test_a_batch_from_nowhere_is_computed(cache: FeatureCache) -> None:
    prefix = Prefix()
    for _ in range(2):
        cache.features(MicroBatch({"x": DATA[:4]}, {}, np.ones(4, np.float32)), prefix)
    assert prefix.runs == 2
