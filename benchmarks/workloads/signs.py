"""Sign-language digits with an ImageNet MobileNetV2: ten classes of 96x96 photographs.

`signs.py:factory` is the model; `write_data(folder)` writes `train.npz` and `validation.npz`.
Weights and photographs come from the folder named by EDGETUNE_DATA.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

Example = tuple[nn.Module, tuple[Tensor, Tensor], nn.Module]

WEIGHTS = "vision/mobilenetv2_100_imagenet_fp16.safetensors"
PHOTOS = "vision/signdigits96_jpeg.npz"
CLASSES = 10
TRAIN_SAMPLES = 1000
VALIDATION_SAMPLES = 500

HEAD = ("classifier.*",)
LAST_TWO_BLOCKS_AND_HEAD = ("blocks.5.2.*", "blocks.6.0.*", "conv_head.*", *HEAD)


def data_file(name: str) -> Path:
    """The path of a file in the folder named by EDGETUNE_DATA."""
    folder = os.environ.get("EDGETUNE_DATA")
    if not folder:
        raise FileNotFoundError("EDGETUNE_DATA is not set: it names the folder with the real data")
    path = Path(folder) / name
    if not path.is_file():
        raise FileNotFoundError(f"EDGETUNE_DATA is {folder}, which has no {name}")
    return path


def pad_same(x: Tensor, stride: int) -> Tensor:
    """TensorFlow's SAME padding before a 3x3 convolution of even-sized [N, C, H, W].

    At stride 2 the padding is on the right and below only; at stride 1 it is symmetric, and the
    convolution's own.
    """
    return functional.pad(x, (0, 1, 0, 1)) if stride == 2 else x


class DepthwiseSeparable(nn.Module):
    """Depthwise 3x3, then project 1x1; stride 1."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv_pw = nn.Conv2d(inner, outer, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu6(self.bn1(self.conv_dw(x)))
        y: Tensor = self.bn2(self.conv_pw(x))
        return y


class InvertedResidual(nn.Module):
    """Expand six times 1x1, depthwise 3x3, project 1x1; a shortcut where shapes agree."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        wide = 6 * inner
        self.conv_pw = nn.Conv2d(inner, wide, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(wide)
        self.conv_dw = nn.Conv2d(wide, wide, 3, stride, padding=2 - stride, groups=wide, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)
        self.conv_pwl = nn.Conv2d(wide, outer, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outer)
        self.stride = stride
        self.shortcut = stride == 1 and inner == outer

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = functional.relu6(self.bn1(self.conv_pw(x)))
        y = functional.relu6(self.bn2(self.conv_dw(pad_same(y, self.stride))))
        y = self.bn3(self.conv_pwl(y))
        return x + y if self.shortcut else y


class MobileNetV2(nn.Module):
    """MobileNetV2 1.0 with timm's names (`mobilenetv2_100`, pad_type="same")."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv_stem = nn.Conv2d(3, 32, 3, 2, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        stages = [nn.Sequential(DepthwiseSeparable(32, 16))]
        width = 16
        for outer, stride, blocks in (
            (24, 2, 2),
            (32, 2, 3),
            (64, 2, 4),
            (96, 1, 3),
            (160, 2, 3),
            (320, 1, 1),
        ):
            stage = nn.Sequential()
            for block in range(blocks):
                stage.append(InvertedResidual(width, outer, stride if block == 0 else 1))
                width = outer
            stages.append(stage)
        self.blocks = nn.Sequential(*stages)
        self.conv_head = nn.Conv2d(320, 1280, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(1280)
        self.classifier = nn.Linear(1280, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W], scaled to -1..1, H and W multiples of 32, to [N, classes]."""
        x = functional.relu6(self.bn1(self.conv_stem(pad_same(images, 2))))
        x = self.blocks(x)
        x = functional.relu6(self.bn2(self.conv_head(x)))
        logits: Tensor = self.classifier(x.mean(dim=(2, 3)))
        return logits

    def train(self, mode: bool = True) -> MobileNetV2:
        """As usual, but BatchNorm keeps its statistics frozen: they are estimates."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


def factory() -> Example:
    """MobileNetV2 with ImageNet weights and a new head; images [8, 3, 96, 96], targets [8]."""
    state = {name: value.float() for name, value in load_file(data_file(WEIGHTS)).items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MobileNetV2(CLASSES)
        state["classifier.weight"] = torch.randn(CLASSES, 1280) * 0.01
        state["classifier.bias"] = torch.zeros(CLASSES)
        images, targets = torch.rand(8, 3, 96, 96) * 2 - 1, torch.randint(CLASSES, (8,))
    model.load_state_dict(state)
    return model.eval(), (images, targets), nn.CrossEntropyLoss()


def write_data(folder: Path, seed: int = 0) -> None:
    """Write `train.npz` (1,000 photographs) and `validation.npz` (500 others) into `folder`.

    `images` is float32 [N, 3, 96, 96] scaled to -1..1, `targets` int64 [N].
    """
    with np.load(data_file(PHOTOS)) as file:
        data, offset, label = file["bytes"], file["offset"], file["label"].astype(np.int64)
    order = np.random.default_rng(seed).permutation(len(label))
    parts = {
        "train": order[:TRAIN_SAMPLES],
        "validation": order[TRAIN_SAMPLES : TRAIN_SAMPLES + VALIDATION_SAMPLES],
    }
    for name, rows in parts.items():
        images = np.stack([_decode(data[offset[row] : offset[row + 1]]) for row in rows])
        np.savez(Path(folder) / f"{name}.npz", images=images, targets=label[rows])


def _decode(jpeg: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The bytes of one JPEG to an image [3, 96, 96] scaled to -1..1."""
    with Image.open(io.BytesIO(jpeg.tobytes())) as photo:
        pixels = np.asarray(photo.convert("RGB"), dtype=np.float32)
    return np.ascontiguousarray((pixels.transpose(2, 0, 1) - 127.5) / 127.5, dtype=np.float32)
