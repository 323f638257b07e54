from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edgetune.errors import BundleError, ExportError
from edgetune.files import onnx_weights
from edgetune.files.onnx_weights import (
    initializer_names,
    read_initializers,
    with_initializers,
    write_with_initializers,
)
from edgetune.files.protobuf_wire import (
    bytes_field,
    integer_field,
    read_fields,
    read_integers,
    text_field,
)

W = np.arange(6, dtype=np.float32).reshape(2, 3)
B = np.array([0.5, -0.0], np.float32)
TUNED_W = W + 1


# A tiny writer of ONNX messages: what the onnx package would make, where there is none.


def varint(number: int, value: int) -> bytes:
    return b"".join(integer_field(number, value))


def text(number: int, value: str) -> bytes:
    return b"".join(text_field(number, value))


def sub(number: int, *payload: bytes) -> bytes:
    return b"".join(bytes_field(number, [memoryview(b"".join(payload))]))


def tensor(name: str, data_type: int, dims: tuple[int, ...], *data: bytes) -> bytes:
    head = [varint(1, size) for size in dims]
    return b"".join([*head, varint(2, data_type), text(8, name), *data])


def raw(name: str, array: npt.NDArray[np.float32]) -> bytes:
    return tensor(name, 1, array.shape, sub(9, array.tobytes()))


def external(name: str, dims: tuple[int, ...], **entries: str) -> bytes:
    pairs = [sub(13, text(1, key), text(2, value)) for key, value in entries.items()]
    return tensor(name, 1, dims, *pairs, varint(14, 1))


def value_info(name: str, data_type: int, dims: tuple[int | str, ...]) -> bytes:
    sizes = [sub(1, varint(1, d) if isinstance(d, int) else text(2, d)) for d in dims]
    return text(1, name) + sub(2, sub(1, varint(1, data_type), sub(2, *sizes)))


def model(*graph_fields: bytes, ir_version: int = 8) -> bytes:
    return varint(1, ir_version) + sub(7, *graph_fields) + sub(8, varint(2, 17))


def node(*attributes: bytes) -> bytes:
    return sub(1, text(1, "x"), text(4, "If"), *attributes)


INPUT_X = sub(11, value_info("x", 1, ("batch", 3)))
INPUT_W = sub(11, value_info("fc.weight", 1, (2, 3)))
PREDICT = model(node(), text(2, "g"), sub(5, raw("fc.bias", B)), INPUT_X, INPUT_W)


def test_an_input_becomes_the_last_initializer_and_all_else_keeps_its_bytes(tmp_path: Path) -> None:
    result = with_initializers(PREDICT, {"fc.weight": TUNED_W}, tmp_path)
    expected = model(
        node(),
        text(2, "g"),
        sub(5, raw("fc.bias", B)),
        INPUT_X,
        sub(5, raw("fc.weight", TUNED_W)),
    )
    assert result == expected
    assert initializer_names(result) == ("fc.bias", "fc.weight")
    np.testing.assert_array_equal(read_initializers(result, tmp_path)["fc.weight"], TUNED_W)


def test_an_initializer_gets_its_value_in_place(tmp_path: Path) -> None:
    result = with_initializers(PREDICT, {"fc.bias": B * 2}, tmp_path)
    assert result == PREDICT.replace(B.tobytes(), (B * 2).tobytes())


def test_without_values_a_model_without_external_data_keeps_every_byte(tmp_path: Path) -> None:
    assert with_initializers(PREDICT, {}, tmp_path) == PREDICT


def test_the_order_of_the_values_does_not_matter(tmp_path: Path) -> None:
    values = {"fc.bias": B, "fc.weight": W}
    backwards = dict(reversed(values.items()))
    assert with_initializers(PREDICT, values, tmp_path) == with_initializers(
        PREDICT, backwards, tmp_path
    )


@pytest.mark.parametrize(("ir_version", "stays"), [(3, True), (4, False)])
def test_an_old_model_keeps_the_inputs_of_its_initializers(
    tmp_path: Path, ir_version: int, stays: bool
) -> None:
    old = model(INPUT_X, INPUT_W, sub(5, raw("fc.weight", W)), ir_version=ir_version)
    result = with_initializers(old, {"fc.weight": TUNED_W}, tmp_path)
    assert (INPUT_W in result) is stays
    assert initializer_names(result) == ("fc.weight",)


def test_values_of_any_memory_layout_are_written_in_c_order(tmp_path: Path) -> None:
    expected = with_initializers(PREDICT, {"fc.weight": TUNED_W}, tmp_path)
    for layout in (np.asfortranarray(TUNED_W), TUNED_W.astype(">f4"), TUNED_W[::-1][::-1]):
        assert with_initializers(PREDICT, {"fc.weight": layout}, tmp_path) == expected


# External data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "frozen.bin").write_bytes(b"\xff" * 8 + W.tobytes() + B.tobytes())
    return tmp_path


EXTERNAL_W = external("w", (2, 3), location="frozen.bin", offset="8", length="24")


def test_external_data_is_read_and_embedded(folder: Path) -> None:
    linked = model(sub(5, EXTERNAL_W), INPUT_X)
    np.testing.assert_array_equal(read_initializers(linked, folder)["w"], W)
    assert with_initializers(linked, {}, folder) == model(sub(5, raw("w", W)), INPUT_X)


def test_external_data_of_a_replaced_initializer_is_not_needed(tmp_path: Path) -> None:
    linked = model(sub(5, EXTERNAL_W))
    assert with_initializers(linked, {"w": TUNED_W}, tmp_path) == model(sub(5, raw("w", TUNED_W)))


def test_external_data_without_a_length_goes_to_the_end_of_the_file(folder: Path) -> None:
    rest = model(sub(5, external("b", (2,), location="frozen.bin", offset="32")))
    np.testing.assert_array_equal(read_initializers(rest, folder)["b"], B)


def test_external_data_of_types_that_numpy_lacks_is_embedded(folder: Path) -> None:
    linked = external("w", (4,), location="frozen.bin", offset="0", length="8")
    bfloat16 = linked.replace(varint(2, 1), varint(2, 16))
    expected = tensor("w", 16, (4,), sub(9, b"\xff" * 8))
    assert with_initializers(model(sub(5, bfloat16)), {}, folder) == model(sub(5, expected))


def attribute(*fields: bytes) -> bytes:
    return sub(5, text(1, "value"), *fields)


# Everywhere that a tensor can be, besides the main graph's initializers.
PLACES: dict[str, Callable[[bytes], bytes]] = {
    "constant": lambda t: model(node(attribute(sub(5, t)))),
    "list of tensors": lambda t: model(node(attribute(sub(10, t)))),
    "branch": lambda t: model(node(attribute(sub(6, sub(5, t))))),
    "branch in a branch": lambda t: model(
        node(attribute(sub(6, node(attribute(sub(11, sub(5, t)))))))
    ),
    "sparse initializer": lambda t: model(sub(15, sub(1, t), varint(3, 2))),
    "sparse attribute": lambda t: model(node(attribute(sub(22, sub(2, t))))),
    "training": lambda t: model() + sub(20, sub(2, sub(5, t))),
    "default of a function": lambda t: model() + sub(25, sub(11, sub(5, t))),
    "function": lambda t: (
        sub(25, text(1, "f"), sub(7, text(4, "C"), attribute(sub(5, t)))) + model()
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_external_data_is_embedded_wherever_it_is(folder: Path, place: str) -> None:
    build = PLACES[place]
    assert with_initializers(build(EXTERNAL_W), {}, folder) == build(raw("w", W))


def test_a_name_inside_a_branch_is_no_place_for_a_value(tmp_path: Path) -> None:
    inside = model(node(attribute(sub(6, sub(5, raw("w", W))))))
    with pytest.raises(BundleError, match="no graph input or initializer 'w'"):
        with_initializers(inside, {"w": W}, tmp_path)


BAD_EXTERNAL = {
    "missing": ({"location": "gone.bin"}, "w: cannot read .*gone.bin: .*No such file"),
    "folder": ({"location": "sub"}, "w: cannot read .*sub"),
    "beyond the end": (
        {"location": "frozen.bin", "offset": "16", "length": "32"},
        "w: bytes 16 to 48 of .*frozen.bin, which has 40 bytes: the file is damaged",
    ),
    "offset beyond the end": ({"location": "frozen.bin", "offset": "41"}, "w: bytes 41 to 41"),
    "too short": (
        {"location": "frozen.bin", "length": "20"},
        r"w: 20 bytes of data for float32\[2, 3\], expected 24",
    ),
    "no length": ({"location": "frozen.bin", "offset": "40"}, "w: 0 bytes of data"),
    "negative": (
        {"location": "frozen.bin", "offset": "-8"},
        "offset '-8', expected a whole number",
    ),
    "word": ({"location": "frozen.bin", "length": "all"}, "length 'all', expected a whole number"),
    "absolute": ({"location": "/etc/passwd"}, "at '/etc/passwd', expected a file beside the model"),
    "outside": ({"location": "../frozen.bin"}, "expected a file beside the model"),
    "no location": ({"offset": "0"}, "expected a file beside the model"),
}


@pytest.mark.parametrize("case", BAD_EXTERNAL)
def test_bad_external_data_is_refused(folder: Path, case: str) -> None:
    entries, message = BAD_EXTERNAL[case]
    (folder / "sub").mkdir()
    linked = model(sub(5, external("w", (2, 3), **entries)))
    with pytest.raises(BundleError, match=message):
        read_initializers(linked, folder)
    with pytest.raises(BundleError, match=message):
        with_initializers(linked, {}, folder)


# Typed data, packed and not

TYPED: dict[str, tuple[bytes, npt.ArrayLike]] = {
    "float packed": (tensor("t", 1, (2,), sub(4, B.tobytes())), B),
    "float unpacked": (
        tensor("t", 1, (2,), *(b"\x25" + v.tobytes() for v in B)),  # field 4, fixed 32 bits
        B,
    ),
    "int64 packed": (tensor("t", 7, (2,), sub(7, b"\x96\x01" + b"\xff" * 9 + b"\x01")), [150, -1]),
    "int64 unpacked": (tensor("t", 7, (2,), varint(7, 150), varint(7, -1)), [150, -1]),
    "int8": (tensor("t", 3, (2,), varint(5, -128), varint(5, 127)), [-128, 127]),
    "bool": (tensor("t", 9, (2,), sub(5, b"\x01\x00")), [True, False]),
    "float16": (tensor("t", 10, (1,), varint(5, 0x3C00)), [1.0]),
    "dims packed": (sub(1, b"\x02\x01") + tensor("t", 1, (), sub(4, B.tobytes())), B[:, None]),
    "scalar": (tensor("t", 6, (), varint(5, 3)), 3),
    "empty": (tensor("t", 1, (0, 3)), np.empty((0, 3))),
    "last one counts": (tensor("t", 6, (), sub(9, b"\1\0\0\0"), sub(9, b"\2\0\0\0")), 2),
}


@pytest.mark.parametrize("case", TYPED)
def test_typed_data_is_read(tmp_path: Path, case: str) -> None:
    message, expected = TYPED[case]
    found = read_initializers(model(sub(5, message)), tmp_path)["t"]
    np.testing.assert_array_equal(found, expected, strict=False)
    assert found.shape == np.asarray(expected).shape
    assert not found.flags.writeable


def test_only_the_named_initializers_are_read(tmp_path: Path) -> None:
    strings = tensor("s", 8, (1,), sub(6, b"word"))
    mixed = model(sub(5, strings), sub(5, raw("b", B)))
    assert list(read_initializers(mixed, tmp_path, ["b", "unknown"])) == ["b"]
    with pytest.raises(BundleError, match="s: element type 8 has no numpy equivalent"):
        read_initializers(mixed, tmp_path)


# What does not fit

F16, F64 = np.float16, np.float64
UNFIT = {
    "unknown": ({"fc.wieght": W}, "no graph input or initializer 'fc.wieght'.*names are fc.weight"),
    "shape": ({"fc.weight": W.T}, r"fc.weight: found float32\[3, 2\], expected float32\[2, 3\]"),
    "rank": ({"fc.weight": W[0]}, r"fc.weight: found float32\[3\], expected float32\[2, 3\]"),
    "dtype": ({"fc.weight": W.astype(F64)}, r"found float64\[2, 3\], expected float32\[2, 3\]"),
    "of an initializer": (
        {"fc.bias": B[:1]},
        r"fc.bias: found float32\[1\], expected float32\[2\]",
    ),
    "free size": ({"x": W[:, :2]}, r"x: found float32\[2, 2\], expected float32\[\?, 3\]"),
    "several": (
        {"a": W, "fc.bias": W, "fc.weight": W.astype(F16)},
        "3 problems\n  - .*\n  - .*\n  - ",
    ),
}


@pytest.mark.parametrize("case", UNFIT)
def test_values_that_do_not_fit_are_refused(tmp_path: Path, case: str) -> None:
    values, message = UNFIT[case]
    with pytest.raises(BundleError, match=f"the values do not fit the model: .*{message}"):
        with_initializers(PREDICT, values, tmp_path)


def test_a_free_size_takes_any(tmp_path: Path) -> None:
    assert "x" in initializer_names(with_initializers(PREDICT, {"x": W}, tmp_path))


def test_an_input_without_a_shape_takes_any(tmp_path: Path) -> None:
    free = model(sub(11, text(1, "x"), sub(2, sub(1, varint(1, 1)))))
    assert initializer_names(with_initializers(free, {"x": W}, tmp_path)) == ("x",)


def test_an_input_that_is_no_tensor_takes_nothing(tmp_path: Path) -> None:
    sequence = model(sub(11, text(1, "x"), sub(2, sub(4, b""))))
    with pytest.raises(
        BundleError, match=r"x: found float32.*, expected something that is no tensor"
    ):
        with_initializers(sequence, {"x": W}, tmp_path)


def test_a_result_over_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(with_initializers(PREDICT, {"fc.weight": W}, tmp_path))
    monkeypatch.setattr(onnx_weights, "_PROTOBUF_LIMIT", size)
    with_initializers(PREDICT, {"fc.weight": W}, tmp_path)
    monkeypatch.setattr(onnx_weights, "_PROTOBUF_LIMIT", size - 1)
    with pytest.raises(ExportError, match=f"{size} bytes, at most {size - 1} are possible"):
        with_initializers(PREDICT, {"fc.weight": W}, tmp_path)


DAMAGED = {
    "empty": (b"", "not an ONNX model: 0 graphs, expected one"),
    "two graphs": (sub(7) + sub(7), "not an ONNX model: 2 graphs"),
    "text": (b"this is no model", "damaged protobuf message"),
    "graph is a number": (varint(7, 1), "field 7 has wire type 0, expected 2"),
    "cut": (PREDICT[:-1], "ends at byte"),
    "cut in a tag": (PREDICT + b"\x80", "a number at byte .* does not end"),
    "long number": (PREDICT + b"\x08" + b"\xff" * 11, "does not end"),
    "field zero": (PREDICT + b"\x00\x00", "field number 0"),
    "group": (PREDICT + b"\x0b", "wire type 3"),
    "no text": (model(sub(5, sub(8, b"\xff"))), "field 8: .*utf-8"),
    "dims cut": (model(sub(5, sub(1, b"\x80"))), "its last number does not end"),
    "dims too long": (model(sub(5, sub(1, b"\x80" * 10 + b"\x01"))), "a number of 11 bytes"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_model_is_refused(tmp_path: Path, case: str) -> None:
    data, message = DAMAGED[case]
    with pytest.raises(BundleError, match=message):
        initializer_names(data)
    with pytest.raises(BundleError, match=message):
        with_initializers(data, {}, tmp_path)


BAD_SIZES = {
    "too few": tensor("t", 1, (3,), sub(9, B.tobytes())),
    "too many": tensor("t", 1, (1,), sub(9, B.tobytes())),
    "negative": tensor("t", 1, (-1, -2), sub(9, B.tobytes())),
    "enormous": tensor("t", 1, (2**62, 2**62), sub(9, B.tobytes())),
    "typed": tensor("t", 7, (2,), varint(7, 1)),
}


@pytest.mark.parametrize("case", BAD_SIZES)
def test_data_that_does_not_fill_the_shape_is_refused(tmp_path: Path, case: str) -> None:
    with pytest.raises(BundleError, match=r"t: \d+ bytes of data for .*, expected"):
        read_initializers(model(sub(5, BAD_SIZES[case])), tmp_path)


# Files


def test_the_written_file_is_what_with_initializers_makes(folder: Path) -> None:
    (folder / "predict.onnx").write_bytes(PREDICT)
    write_with_initializers(folder / "predict.onnx", {"fc.weight": W}, folder / "new" / "m.onnx")
    expected = with_initializers(PREDICT, {"fc.weight": W}, folder)
    assert (folder / "new" / "m.onnx").read_bytes() == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "predict.onnx: cannot read the model: No such file"),
        (PREDICT[:-3], "predict.onnx: damaged protobuf message"),
        (model(), "predict.onnx: the values do not fit the model"),
    ],
    ids=["missing", "damaged", "unfit"],
)
def test_on_an_error_the_file_is_named_and_nothing_is_written(
    tmp_path: Path, data: bytes | None, message: str
) -> None:
    source, out = tmp_path / "predict.onnx", tmp_path / "model.onnx"
    out.write_bytes(b"before")
    if data is not None:
        source.write_bytes(data)
    with pytest.raises(BundleError, match=message):
        write_with_initializers(source, {"fc.weight": W}, out)
    assert out.read_bytes() == b"before"
    assert {path.name for path in tmp_path.iterdir()} <= {"predict.onnx", "model.onnx"}


def test_integers_are_read_in_twos_complement_up_to_64_bits() -> None:
    values = [0, 1, 127, 128, 2**31, 2**63 - 1, -1, -(2**63)]
    packed = b"".join(varint(1, value) for value in values)
    assert read_integers(list(read_fields(memoryview(packed)))).tolist() == values
