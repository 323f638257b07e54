from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from edgetune.data.dataset import load_data
from edgetune.errors import DataError, RuntimeSetupError
from edgetune.nouns.signature import ArraySpec
from tests.device.data_cases import LABELS, NUMBERS, ONE, TABLE, TWO, good, signature

# Sources ------------------------------------------------------------------------------------


@pytest.mark.parametrize("input_name", ["image", "x"])
@pytest.mark.parametrize("target_name", ["label", "y", "targets", "labels"])
def test_an_npz_may_use_the_signatures_names_or_the_usual_ones(
    tmp_path: Path, input_name: str, target_name: str
) -> None:
    path, arrays = tmp_path / "data.npz", good()
    weights = np.linspace(0, 1, 5)
    np.savez(
        path, **{input_name: arrays["image"], target_name: arrays["label"]}, sample_weight=weights
    )
    data = load_data(str(path), ONE, LABELS)
    np.testing.assert_array_equal(data.inputs["image"], arrays["image"])
    np.testing.assert_array_equal(data.targets["label"], arrays["label"])
    assert data.sample_weights is not None
    assert data.sample_weights.dtype == np.float32
    assert len(data) == 5


def test_several_inputs_go_by_their_own_names_only(tmp_path: Path) -> None:
    arrays = {"tokens": np.zeros((2, 4), np.int32), "mask": np.ones((2, 4)), "y": np.array([0, 1])}
    np.savez(tmp_path / "data.npz", **arrays)
    data = load_data(str(tmp_path / "data.npz"), TWO, LABELS)
    assert {name: a.dtype.name for name, a in data.inputs.items()} == {
        "tokens": "int64",
        "mask": "float32",
    }
    np.savez(tmp_path / "data.npz", x=arrays["mask"], tokens=arrays["tokens"], y=arrays["y"])
    with pytest.raises(DataError) as caught:
        load_data(str(tmp_path / "data.npz"), TWO, LABELS)
    assert "the input 'mask' is missing" in str(caught.value)
    assert "the input 'x' is not known; expected tokens, mask" in str(caught.value)


@pytest.mark.parametrize(
    ("found", "expected", "converted"),
    [
        pytest.param("float64", "float32", True, id="double-to-single"),
        pytest.param("float64", "float16", True, id="double-to-half"),
        pytest.param("float16", "float32", True, id="half-to-single"),
        pytest.param("uint8", "float32", True, id="bytes-to-floats"),
        pytest.param("int64", "float32", True, id="integers-to-floats"),
        pytest.param("int32", "int64", True, id="wider"),
        pytest.param("uint8", "int64", True, id="bytes-to-integers"),
        pytest.param("int64", "int8", True, id="narrower-when-all-fit"),
        pytest.param("bool", "int64", True, id="bool-to-integers"),
        pytest.param("float32", "int64", False, id="floats-never-to-integers"),
        pytest.param("float64", "bool", False, id="floats-never-to-bool"),
        pytest.param("int64", "bool", False, id="integers-never-to-bool"),
        pytest.param("complex64", "float32", False, id="complex"),
        pytest.param("U3", "float32", False, id="text"),
    ],
)
def test_types_are_converted_only_where_nothing_but_precision_is_lost(
    tmp_path: Path, found: str, expected: str, converted: bool
) -> None:
    path, spec = tmp_path / "data.npz", signature(ArraySpec("v", expected, (2,)))
    np.savez(path, v=np.array([[0, 1], [1, 1]]).astype(found), y=np.array([0, 1]))
    if converted:
        values = load_data(str(path), spec, LABELS).inputs["v"]
        assert values.dtype == expected
        np.testing.assert_array_equal(values, [[0, 1], [1, 1]])
    else:
        with pytest.raises(DataError, match=rf"'v' is .*, expected {expected}"):
            load_data(str(path), spec, LABELS)


def test_integers_that_do_not_fit_are_not_made_narrower(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", v=np.array([[0, 300]]), y=np.array([0]))
    with pytest.raises(DataError, match="'v' is int64, expected uint8"):
        load_data(str(tmp_path / "d.npz"), signature(ArraySpec("v", "uint8", (2,))), LABELS)


def test_a_value_too_large_for_its_type_is_found_as_inf(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", v=np.array([[0.0, 1.0], [1e300, 0.0]]), y=np.array([0, 1]))
    with pytest.raises(DataError, match="'v' holds Inf, first in sample 1"):
        load_data(str(tmp_path / "d.npz"), signature(ArraySpec("v", "float32", (2,))), LABELS)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param("d.npz", b"PK\x03\x04 cut off", "expected what numpy.savez writes", id="cut"),
        pytest.param("d.npz", b"", "cannot read the data", id="empty"),
        pytest.param(
            "d.txt", b"1", r"expected an \.npz or \.csv file, a folder", id="unknown-kind"
        ),
        pytest.param("d.csv", b"", "a header line with at least two columns", id="csv-empty"),
        pytest.param("d.csv", b"1,2,0\n3,4,1\n", "its first line holds numbers", id="csv-headless"),
        pytest.param("d.csv", b"a,a,y\n1,2,0\n", "'a' more than once", id="csv-doubled"),
        pytest.param("d.csv", b"a,b,y\n1,2\n", "line 2 has 2 cells, expected 3", id="csv-short"),
        pytest.param("d.csv", b"a,y\n1,0\n", "1 feature columns, expected 2", id="csv-few"),
        pytest.param("d.csv", b"a,b,y\n1,2,0.5\n", "holds 0.5 in sample 0", id="csv-fraction"),
        pytest.param("d.csv", b"a,b,y\n", "there are no samples", id="csv-no-rows"),
        pytest.param("d.csv", b"a,b,y\n1,nan,0\n", "holds NaN, first in sample 0", id="csv-nan"),
        pytest.param("d.csv", b"a,b,y\n\xff,2,0\n", "can't decode", id="csv-not-utf-8"),
    ],
)
def test_a_damaged_or_unsuitable_file_is_one_clear_error(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_data(str(tmp_path / name), TABLE, LABELS)


def test_arrays_of_objects_are_not_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.array([{}, {}]), y=np.array([0, 1]), allow_pickle=True)
    with pytest.raises(DataError, match="without arrays of objects"):
        load_data(str(tmp_path / "d.npz"), TABLE, LABELS)


def test_a_single_array_is_no_dataset(tmp_path: Path) -> None:
    with (tmp_path / "d.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DataError, match="a single array, not named ones"):
        load_data(str(tmp_path / "d.npz"), TABLE, LABELS)


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.npz: there is no such file or folder"):
        load_data(str(tmp_path / "nowhere.npz"), ONE, LABELS)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a,b,c\n1,2,0\n3,4,2\n", id="target-last"),
        pytest.param("y,a,b\n0,1,2\n2,3,4\n", id="target-by-name"),
        pytest.param("a, label ,b\r\n1,0,2\r\n3,2.0,4\r\n", id="target-of-the-signature"),
        pytest.param("\ufeffa,b,c\n1,2,0\n\n3,4,2\n", id="byte-order-mark-and-empty-line"),
    ],
)
def test_a_csv_gives_features_and_the_target(tmp_path: Path, text: str) -> None:
    (tmp_path / "d.csv").write_text(text, encoding="utf-8")
    data = load_data(str(tmp_path / "d.csv"), TABLE, LABELS)
    np.testing.assert_array_equal(data.inputs["features"], [[1, 2], [3, 4]])
    np.testing.assert_array_equal(data.targets["label"], [0, 2])
    assert data.inputs["features"].dtype == np.float32
    assert data.sample_weights is None


def test_a_csv_may_weigh_its_samples(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("a,b,y,sample_weight\n1,2,0,0.5\n3,4,2,2\n")
    data = load_data(str(tmp_path / "d.csv"), TABLE, LABELS)
    np.testing.assert_array_equal(data.sample_weights, np.array([0.5, 2], np.float32))


def test_a_csv_with_several_inputs_goes_by_column(tmp_path: Path) -> None:
    spec = signature(
        ArraySpec("age", "float32", ()),
        ArraySpec("size", "float32", (1,)),
        target=ArraySpec("cost", "float32", (1,)),
    )
    (tmp_path / "d.csv").write_text("size,age,cost\n1,2,3.5\n")
    data = load_data(str(tmp_path / "d.csv"), spec, NUMBERS)
    assert data.inputs["age"].shape == (1,)
    np.testing.assert_array_equal(data.inputs["size"], [[1]])
    np.testing.assert_array_equal(data.targets["cost"], [[3.5]])
    (tmp_path / "d.csv").write_text("sizes,age,cost\n1,2,3.5\n")
    with pytest.raises(DataError) as caught:
        load_data(str(tmp_path / "d.csv"), spec, NUMBERS)
    assert "there is no column 'size'" in str(caught.value)
    assert "the column 'sizes' is no input" in str(caught.value)


def test_all_bad_cells_of_a_csv_are_named(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("a,b,y\n1,x,0\n1,2,0\n,3,1\n")
    with pytest.raises(DataError) as caught:
        load_data(str(tmp_path / "d.csv"), TABLE, LABELS)
    assert "line 2, column 'b': 'x' is not a number" in str(caught.value)
    assert "line 4, column 'a': '' is not a number" in str(caught.value)


# A factory ----------------------------------------------------------------------------------

FACTORIES = """
import numpy as np
X, Y = np.ones((4, 2, 3)), np.array([0, 1, 2, 0])
def named(): return {"image": X, "label": Y, "sample_weight": np.ones(4)}
def pair(): return X, Y
def dicts(): return {"x": X}, {"y": Y}
def wrong(): return [X, Y, Y]
def broken(): raise RuntimeError("no sensor")
number = 3
"""


@pytest.mark.parametrize("name", ["named", "pair", "dicts"])
def test_a_factory_returns_arrays_by_name_or_in_a_pair(tmp_path: Path, name: str) -> None:
    (tmp_path / "mine.py").write_text(FACTORIES)
    data = load_data(f"{tmp_path / 'mine.py'}:{name}", ONE, LABELS)
    assert data.inputs["image"].dtype == np.float32
    np.testing.assert_array_equal(data.targets["label"], [0, 1, 2, 0])
    assert (data.sample_weights is not None) == (name == "named")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wrong", "the factory returned list, expected a dict of arrays or"),
        ("broken", r"broken\(\) raised RuntimeError: no sensor"),
        ("absent", "has no function absent"),
        ("number", "has no function number"),
    ],
)
def test_a_factory_that_does_not_work_is_named(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "mine.py").write_text(FACTORIES)
    with pytest.raises(DataError, match=message):
        load_data(f"{tmp_path / 'mine.py'}:{name}", ONE, LABELS)


def test_a_factorys_file_must_be_there_and_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no file .*none\.py"):
        load_data(f"{tmp_path / 'none.py'}:make", ONE, LABELS)
    (tmp_path / "bad.py").write_text("1 / 0")
    with pytest.raises(DataError, match=r"bad\.py raised ZeroDivisionError"):
        load_data(f"{tmp_path / 'bad.py'}:make", ONE, LABELS)


def test_a_memory_map_from_a_factory_stays_one(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((4, 2, 3), np.float32))
    (tmp_path / "mine.py").write_text(
        f"import numpy as np\n"
        f"def make(): return np.load(r'{tmp_path / 'x.npy'}', mmap_mode='r'), np.zeros(4, int)\n"
    )
    data = load_data(f"{tmp_path / 'mine.py'}:make", ONE, LABELS)
    assert isinstance(data.inputs["image"], np.memmap)


# Images -------------------------------------------------------------------------------------

PNG_NAMES = ("ant/1.png", "ant/2.png", "bee/1.png")


def image_folder(path: Path) -> None:
    images = pytest.importorskip("PIL.Image")
    for index, name in enumerate(PNG_NAMES):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((4, 6, 3), 51 * index, np.uint8)
        pixels[0, 0] = [255, 0, 0]
        images.fromarray(pixels).save(path / name)
    (path / "cow").mkdir()
    (path / "ant" / ".DS_Store").write_bytes(b"x")


@pytest.mark.parametrize(
    ("spec", "red"),
    [
        pytest.param(ArraySpec("v", "float32", (3, 4, 6)), [1, 0, 0], id="channels-first"),
        pytest.param(ArraySpec("v", "float32", (4, 6, 3)), [1, 0, 0], id="channels-last"),
        pytest.param(ArraySpec("v", "uint8", (4, 6, 3)), [255, 0, 0], id="bytes"),
        pytest.param(ArraySpec("v", "float32", (1, 4, 6)), [76 / 255], id="grey"),
        pytest.param(ArraySpec("v", "float32", (4, 6)), [76 / 255], id="grey-without-channel"),
    ],
)
def test_a_folder_by_class_gives_images_in_the_inputs_shape(
    tmp_path: Path, spec: ArraySpec, red: list[float]
) -> None:
    image_folder(tmp_path)
    data = load_data(str(tmp_path), signature(spec), LABELS)
    images = data.inputs["v"]
    assert images.shape == (3, *spec.shape)
    assert images.dtype == spec.dtype
    assert list(data.targets["label"]) == [0, 0, 1]
    first = images[1].reshape(3, 24)[:, 0] if spec.shape[0] == 3 else images[1].ravel()[: len(red)]
    np.testing.assert_allclose(first, red, rtol=1e-6)
    last = 102 if spec.dtype == "uint8" else 102 / 255
    assert images[2].ravel()[-1] == pytest.approx(last, rel=1e-6)


def test_images_of_another_size_are_resized_and_turned_upright(tmp_path: Path) -> None:
    images = pytest.importorskip("PIL.Image")
    image_folder(tmp_path)
    data = load_data(str(tmp_path), signature(ArraySpec("v", "float32", (3, 2, 3))), LABELS)
    assert data.inputs["v"].shape == (3, 3, 2, 3)
    upright = np.zeros((4, 6), np.uint8)
    upright[0] = 255
    exif = images.Exif()
    exif[0x0112] = 6  # "rotate 90 degrees clockwise to show"
    images.fromarray(np.rot90(upright)).save(tmp_path / "ant" / "1.png", exif=exif)
    data = load_data(str(tmp_path), signature(ArraySpec("v", "uint8", (4, 6))), LABELS)
    np.testing.assert_array_equal(data.inputs["v"][0], upright)


def test_class_folders_must_be_as_many_as_the_classes(tmp_path: Path) -> None:
    image_folder(tmp_path)
    (tmp_path / "cow").rmdir()
    with pytest.raises(DataError, match="found 2 class folders, expected 3; a class without imag"):
        load_data(str(tmp_path), signature(ArraySpec("v", "float32", (3, 4, 6))), LABELS)


def test_every_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    image_folder(tmp_path)
    (tmp_path / "cow" / "notes.txt").write_text("moo")
    (tmp_path / "bee" / "1.png").write_bytes((tmp_path / "bee" / "1.png").read_bytes()[:40])
    with pytest.raises(DataError) as caught:
        load_data(str(tmp_path), signature(ArraySpec("v", "float32", (3, 4, 6))), LABELS)
    assert "notes.txt is no image" in str(caught.value)
    assert "1.png is no image" in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ArraySpec("v", "float32", (5, 4, 6)), "has no shape of images"),
        (ArraySpec("v", "int64", (3, 4, 6)), "holds neither floats nor uint8"),
    ],
)
def test_an_input_that_is_no_image_is_refused(
    tmp_path: Path, spec: ArraySpec, message: str
) -> None:
    image_folder(tmp_path)
    with pytest.raises(DataError, match=message):
        load_data(str(tmp_path), signature(spec), LABELS)


def test_without_pillow_one_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ant/1.png", "bee/1.png", "cow/1.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(RuntimeSetupError, match=r"pip install 'edgetune\[images\]'"):
        load_data(str(tmp_path), signature(ArraySpec("v", "float32", (3, 4, 6))), LABELS)
