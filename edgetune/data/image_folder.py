"""A folder with one sub-folder of images per class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetune.errors import DataError, RuntimeSetupError, raise_all
from edgetune.nouns.loss import LossSpec
from edgetune.nouns.signature import ArraySpec, Signature

Array = npt.NDArray[Any]

_PROBLEMS_SHOWN = 10


def read_image_folder(path: Path, signature: Signature, loss: LossSpec) -> dict[str, Array]:
    """Images and their classes, by the signature's names; see `load_data`.

    All sub-folders count, in sorted order, so a class without images needs an empty one: else the
    others would silently move. Hidden files are skipped, any other file must be an image.
    Raises DataError, or RuntimeSetupError when Pillow is missing.
    """
    if len(signature.inputs) != 1 or len(signature.targets) != 1 or signature.targets[0].shape:
        raise DataError(
            f"cannot read the images {path}: a folder by class gives one image and one label, and "
            "this bundle takes other inputs or targets; use an .npz file or file.py:factory"
        )
    spec = signature.inputs[0]
    mode, channels_first = _layout(path, spec)
    classes = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    if loss.classes is not None and len(classes) != loss.classes:
        raise DataError(
            f"cannot read the images {path}: found {len(classes)} class folders, expected "
            f"{loss.classes}; a class without images needs an empty folder"
        )
    files = [
        (file, label)
        for label, folder in enumerate(classes)
        for file in sorted(folder.iterdir())
        if not file.name.startswith(".")
    ]
    images = np.empty((len(files), *spec.shape), _pixel_type(path, spec))
    problems: list[str] = []
    for row, (file, _) in enumerate(files):
        image = images[row, ..., None] if mode == "L" and images.ndim == 3 else images[row]
        problems += _read_image(file, mode, image.transpose(1, 2, 0) if channels_first else image)
    raise_all(DataError, f"cannot read the images {path}", problems[:_PROBLEMS_SHOWN])
    labels = np.array([label for _, label in files], np.int64)
    return {spec.name: images, signature.targets[0].name: labels}


def _layout(path: Path, spec: ArraySpec) -> tuple[str, bool]:
    """(Pillow mode, whether the channels come first) of one sample."""
    modes = {1: "L", 3: "RGB"}
    if len(spec.shape) == 2:
        return "L", False
    if len(spec.shape) == 3 and spec.shape[0] in modes:
        return modes[spec.shape[0]], True
    if len(spec.shape) == 3 and spec.shape[2] in modes:
        return modes[spec.shape[2]], False
    raise DataError(
        f"cannot read the images {path}: the input {spec} has no shape of images, expected "
        "(C, H, W), (H, W, C) or (H, W) with 1 or 3 channels; use file.py:factory"
    )


def _pixel_type(path: Path, spec: ArraySpec) -> np.dtype[Any]:
    dtype = np.dtype(spec.dtype)
    if dtype.kind != "f" and dtype != np.uint8:
        raise DataError(
            f"cannot read the images {path}: the input {spec} holds neither floats nor uint8; use "
            "file.py:factory"
        )
    return dtype


def _read_image(file: Path, mode: str, out: Array) -> list[str]:
    """Decode `file` into `out` (H, W, C): 0 to 255 for uint8, else [0, 1]."""
    try:
        from PIL import Image, ImageOps  # noqa: PLC0415 - only folders of images need Pillow
    except ImportError as error:
        raise RuntimeSetupError(
            "reading images needs Pillow, which is not installed: pip install 'edgetune[images]'"
        ) from error
    height, width, channels = out.shape
    try:
        with Image.open(file) as image:
            upright = ImageOps.exif_transpose(image).convert(mode)
            if upright.size != (width, height):
                upright = upright.resize((width, height), Image.Resampling.BILINEAR)
            pixels = np.asarray(upright).reshape(height, width, channels)
    except (OSError, ValueError, SyntaxError) as error:
        return [f"{file} is no image that Pillow can read: {error}"]
    if out.dtype == np.uint8:
        out[...] = pixels
    else:
        np.divide(pixels, 255, out=out, dtype=out.dtype)
    return []
