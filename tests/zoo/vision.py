"""Image networks with random weights: each factory returns (model, (inputs, targets), loss).

The definitions are the published ones at small input sizes. BatchNorm gets statistics and an
affine that are not the identity, so that a wrong fold shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import ViTConfig, ViTForImageClassification

Example = tuple[nn.Module, tuple[Tensor, Tensor], nn.Module]
"""A model, its sample batch (images [N, 3, H, W], targets) and its loss."""


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Random numbers from `seed` inside, the caller's generator untouched outside."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def settle(model: nn.Module, images: Tensor) -> nn.Module:
    """Give each BatchNorm a random affine and the statistics of `images`; return it in eval."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.1)
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(images)
    for norm in norms:
        norm.momentum = 0.1
    return model.eval()


def classification(build: Callable[[], nn.Module], size: int) -> Example:
    """A settled classifier of ten classes on four images [4, 3, size, size]."""
    with seeded():
        model = settle(build(), torch.randn(16, 3, size, size))
        return (
            model,
            (torch.randn(4, 3, size, size), torch.randint(10, (4,))),
            nn.CrossEntropyLoss(),
        )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, projected where the shape changes."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inner != outer:
            self.downsample = nn.Sequential(
                nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return functional.relu(y + self.downsample(x))


class ResNet18(nn.Module):
    """The 18-layer residual network: four stages of two basic blocks."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self.layer1 = nn.Sequential(BasicBlock(64, 64, 1), BasicBlock(64, 64, 1))
        self.layer2 = nn.Sequential(BasicBlock(64, 128, 2), BasicBlock(128, 128, 1))
        self.layer3 = nn.Sequential(BasicBlock(128, 256, 2), BasicBlock(256, 256, 1))
        self.layer4 = nn.Sequential(BasicBlock(256, 512, 2), BasicBlock(512, 512, 1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] to logits [N, classes]."""
        x = self.maxpool(functional.relu(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


class ConvNorm(nn.Sequential):
    """Convolution with "same" padding for odd kernels, BatchNorm, activation."""

    def __init__(
        self,
        inner: int,
        outer: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        act: type[nn.Module] = nn.Identity,
    ) -> None:
        super().__init__(
            nn.Conv2d(inner, outer, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outer),
            act(),
        )


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from the channels' means."""

    def __init__(
        self, channels: int, squeezed: int, act: type[nn.Module], gate: type[nn.Module]
    ) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.act = act()
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.gate = gate()

    def forward(self, x: Tensor) -> Tensor:
        scale: Tensor = self.gate(self.fc2(self.act(self.fc1(self.avgpool(x)))))
        return x * scale


class Inverted(NamedTuple):
    """One row of an inverted-residual table."""

    kernel: int
    expanded: int
    outer: int
    squeeze: int
    """Channels inside squeeze-and-excite, 0 for none."""
    stride: int
    act: type[nn.Module]
    gate: type[nn.Module]


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise, squeeze-and-excite, project 1x1; a shortcut where shapes agree."""

    def __init__(self, inner: int, row: Inverted) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if row.expanded != inner:
            layers.append(ConvNorm(inner, row.expanded, 1, act=row.act))
        layers.append(
            ConvNorm(row.expanded, row.expanded, row.kernel, row.stride, row.expanded, row.act)
        )
        if row.squeeze:
            squeeze_act = nn.SiLU if row.act is nn.SiLU else nn.ReLU
            layers.append(SqueezeExcite(row.expanded, row.squeeze, squeeze_act, row.gate))
        layers.append(ConvNorm(row.expanded, row.outer, 1))
        self.block = nn.Sequential(*layers)
        self.shortcut = row.stride == 1 and inner == row.outer

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block(x)
        return x + y if self.shortcut else y


class MobileNet(nn.Module):
    """Stem, inverted residuals, a last 1x1 convolution and a classifier."""

    def __init__(
        self,
        stem: int,
        rows: Sequence[Inverted],
        last: int,
        hidden: Sequence[int],
        act: type[nn.Module],
        classes: int = 10,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvNorm(3, stem, 3, 2, act=act)]
        width = stem
        for row in rows:
            layers.append(InvertedResidual(width, row))
            width = row.outer
        layers.append(ConvNorm(width, last, 1, act=act))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        head: list[nn.Module] = []
        for inner, outer in zip((last, *hidden), hidden, strict=False):
            head += [nn.Linear(inner, outer), act()]
        head += [nn.Dropout(0.2), nn.Linear((last, *hidden)[-1], classes)]
        self.classifier = nn.Sequential(*head)

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] to logits [N, classes]."""
        logits: Tensor = self.classifier(self.avgpool(self.features(images)).flatten(1))
        return logits


def _mobilenet_v3_small() -> nn.Module:
    relu, hard = nn.ReLU, nn.Hardswish
    table = [  # kernel, expanded, outer, squeeze, stride, activation
        (3, 16, 16, 8, 2, relu),
        (3, 72, 24, 0, 2, relu),
        (3, 88, 24, 0, 1, relu),
        (5, 96, 40, 24, 2, hard),
        (5, 240, 40, 64, 1, hard),
        (5, 240, 40, 64, 1, hard),
        (5, 120, 48, 32, 1, hard),
        (5, 144, 48, 40, 1, hard),
        (5, 288, 96, 72, 2, hard),
        (5, 576, 96, 144, 1, hard),
        (5, 576, 96, 144, 1, hard),
    ]
    rows = [Inverted(*row, nn.Hardsigmoid) for row in table]
    return MobileNet(16, rows, 576, [1024], hard)


def _efficientnet_b0_like() -> nn.Module:
    """B0's seven stages and widths, with at most two blocks in each."""
    stages = [  # kernel, expansion, outer, stride, blocks
        (3, 1, 16, 1, 1),
        (3, 6, 24, 2, 2),
        (5, 6, 40, 2, 2),
        (3, 6, 80, 2, 2),
        (5, 6, 112, 1, 2),
        (5, 6, 192, 2, 2),
        (3, 6, 320, 1, 1),
    ]
    rows: list[Inverted] = []
    width = 32
    for kernel, expansion, outer, stride, blocks in stages:
        for block in range(blocks):
            squeeze = max(1, width // 4)
            step = stride if block == 0 else 1
            rows.append(
                Inverted(kernel, width * expansion, outer, squeeze, step, nn.SiLU, nn.Sigmoid)
            )
            width = outer
    return MobileNet(32, rows, 1280, [], nn.SiLU)


class DoubleConv(nn.Sequential):
    """Two 3x3 convolutions with BatchNorm and ReLU."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__(
            ConvNorm(inner, outer, 3, act=nn.ReLU), ConvNorm(outer, outer, 3, act=nn.ReLU)
        )


class UNet(nn.Module):
    """Two levels down, two up, skips concatenated."""

    def __init__(self, up: Literal["transpose", "bilinear"], width: int = 16) -> None:
        super().__init__()
        self.down1 = DoubleConv(3, width)
        self.down2 = DoubleConv(width, 2 * width)
        self.middle = DoubleConv(2 * width, 4 * width)
        self.up2 = self._upsample(up, 4 * width, 2 * width)
        self.join2 = DoubleConv(4 * width, 2 * width)
        self.up1 = self._upsample(up, 2 * width, width)
        self.join1 = DoubleConv(2 * width, width)
        self.head = nn.Conv2d(width, 5, 1)

    @staticmethod
    def _upsample(up: Literal["transpose", "bilinear"], inner: int, outer: int) -> nn.Module:
        if up == "transpose":
            return nn.ConvTranspose2d(inner, outer, 2, 2)
        return nn.Sequential(
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            nn.Conv2d(inner, outer, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] to logits of five classes per pixel [N, 5, H, W]."""
        fine = self.down1(images)
        coarse = self.down2(functional.max_pool2d(fine, 2))
        x = self.middle(functional.max_pool2d(coarse, 2))
        x = self.join2(torch.cat([coarse, self.up2(x)], dim=1))
        x = self.join1(torch.cat([fine, self.up1(x)], dim=1))
        logits: Tensor = self.head(x)
        return logits


class ViTTiny(nn.Module):
    """Two transformer layers of width 64 over the 16 patches of a 32x32 image."""

    def __init__(self) -> None:
        super().__init__()
        config = ViTConfig(
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
            image_size=32,
            patch_size=8,
        )
        config.num_labels = 10
        self.model = ViTForImageClassification(config)

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, 32, 32] to logits [N, 10]."""
        logits: Tensor = self.model(pixel_values=images).logits
        return logits


def resnet18() -> Example:
    """ResNet-18 on images [4, 3, 64, 64]."""
    return classification(ResNet18, 64)


def mobilenet_v3_small() -> Example:
    """MobileNetV3-small (hardswish, hard-sigmoid squeeze-and-excite) on [4, 3, 64, 64]."""
    return classification(_mobilenet_v3_small, 64)


def efficientnet_b0_like() -> Example:
    """EfficientNet-B0's blocks (SiLU, squeeze-and-excite, 5x5 depthwise) on [4, 3, 64, 64]."""
    return classification(_efficientnet_b0_like, 64)


def vit_tiny() -> Example:
    """A vision transformer on images [4, 3, 32, 32]."""
    return classification(ViTTiny, 32)


def _segmentation(up: Literal["transpose", "bilinear"]) -> Example:
    with seeded():
        model = settle(UNet(up), torch.randn(8, 3, 32, 32))
        images, targets = torch.randn(4, 3, 32, 32), torch.randint(5, (4, 32, 32))
        return model, (images, targets), nn.CrossEntropyLoss()


def unet() -> Example:
    """U-Net with transposed convolutions; images [4, 3, 32, 32], targets [4, 32, 32]."""
    return _segmentation("transpose")


def unet_bilinear() -> Example:
    """U-Net with bilinear upsampling; images [4, 3, 32, 32], targets [4, 32, 32]."""
    return _segmentation("bilinear")
