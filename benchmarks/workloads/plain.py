"""The models that step times are compared on, in PyTorch alone, with seeded random weights.

`plain.py:mobilenet_v2`, `resnet18`, `bert6`, `motion`: each with 8 samples of its usual size.
Without Hugging Face, whose import would add 150 MiB to the process that PyTorch is measured in.
Convolutions have biases and nothing normalises behind them: BatchNorm is folded on all sides.
"""

from __future__ import annotations

from typing import Any

import torch
from motion import CLASSES as MOTION_CLASSES
from motion import MotionCNN
from torch import Tensor, nn
from torch.nn import functional

Example = tuple[nn.Module, tuple[Any, Tensor], nn.Module]

SAMPLES = 8
CLASSES = 100
# (outer channels, stride) of the inverted residuals of MobileNetV2 behind the first.
_INVERTED = (
    *((24, 2), (24, 1)),
    *((32, 2), (32, 1), (32, 1)),
    *((64, 2), (64, 1), (64, 1), (64, 1)),
    *((96, 1), (96, 1), (96, 1)),
    *((160, 2), (160, 1), (160, 1)),
    (320, 1),
)


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1; a shortcut where shapes agree."""

    def __init__(self, inner: int, outer: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inner * expansion
        self.expand = nn.Conv2d(inner, wide, 1) if expansion > 1 else None
        self.depthwise = nn.Conv2d(wide, wide, 3, stride, 1, groups=wide)
        self.project = nn.Conv2d(wide, outer, 1)
        self.shortcut = stride == 1 and inner == outer

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else functional.relu6(self.expand(x))
        y = self.project(functional.relu6(self.depthwise(y)))
        return x + y if self.shortcut else y


class MobileNetV2(nn.Module):
    """MobileNetV2 1.0."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, 2, 1)
        blocks, width = [InvertedResidual(32, 16, 1, 1)], 16
        for outer, stride in _INVERTED:
            blocks.append(InvertedResidual(width, outer, stride, 6))
            width = outer
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Conv2d(width, 1280, 1)
        self.head = nn.Linear(1280, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, 224, 224] to logits [N, 100]."""
        x = self.blocks(functional.relu6(self.stem(images)))
        logits: Tensor = self.head(functional.relu6(self.last(x)).mean(dim=(2, 3)))
        return logits


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1)
        self.shortcut = nn.Conv2d(inner, outer, 1, stride) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(functional.relu(self.conv1(x)))
        return functional.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet18(nn.Module):
    """ResNet-18."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 7, 2, 3)
        blocks, width = [], 64
        for outer in (64, 128, 256, 512):
            blocks += [BasicBlock(width, outer, outer // width), BasicBlock(outer, outer, 1)]
            width = outer
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(512, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, 224, 224] to logits [N, 100]."""
        x = functional.max_pool2d(functional.relu(self.stem(images)), 3, 2, 1)
        logits: Tensor = self.head(self.blocks(x).mean(dim=(2, 3)))
        return logits


class EncoderLayer(nn.Module):
    """A layer of BERT: attention and two dense layers, each normalised behind its shortcut."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.output = nn.Linear(width, width), nn.Linear(width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.wider, self.narrower = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        batch, tokens, width = x.shape

        def split(y: Tensor) -> Tensor:
            return y.view(batch, tokens, self.heads, width // self.heads).transpose(1, 2)

        attended = functional.scaled_dot_product_attention(
            split(self.query(x)), split(self.key(x)), split(self.value(x)), attn_mask=mask
        )
        attended = attended.transpose(1, 2).reshape(batch, tokens, width)
        x = self.norm1(x + self.output(attended))
        y: Tensor = self.norm2(x + self.narrower(functional.gelu(self.wider(x))))
        return y


class Bert6(nn.Module):
    """MiniLM-like: 6 layers, 384 wide, 12 heads; the first token is classified."""

    def __init__(self, width: int = 384, vocabulary: int = 30522, tokens: int = 128) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.randn(tokens, width) * 0.02)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(EncoderLayer(width, 12, 4 * width) for _ in range(6))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Tokens and mask [N, 128] int64 to logits [N, 100]."""
        x = self.norm(self.words(input_ids) + self.positions)
        # 0 for a token, -10,000 for padding, as BERT has it
        mask = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * -1e4
        for layer in self.layers:
            x = layer(x, mask)
        logits: Tensor = self.head(x[:, 0])
        return logits


def mobilenet_v2() -> Example:
    """MobileNetV2, 224 x 224."""
    torch.manual_seed(0)
    return _images(MobileNetV2())


def resnet18() -> Example:
    """ResNet-18, 224 x 224."""
    torch.manual_seed(0)
    return _images(ResNet18())


def bert6() -> Example:
    """BERT of 6 layers, 128 tokens, the last samples padded."""
    torch.manual_seed(0)
    model = Bert6().eval()
    ids = torch.randint(1000, 30000, (SAMPLES, 128))
    lengths = torch.tensor([128, 128, 128, 120, 112, 100, 80, 64])
    mask = (torch.arange(128) < lengths[:, None]).long()
    inputs = {"input_ids": ids, "attention_mask": mask}
    return model, (inputs, torch.randint(0, CLASSES, (SAMPLES,))), nn.CrossEntropyLoss()


def motion() -> Example:
    """The 1-D CNN of motion.py, 6 x 100."""
    torch.manual_seed(0)
    targets = torch.randint(0, MOTION_CLASSES, (SAMPLES,))
    return MotionCNN().eval(), (torch.randn(SAMPLES, 6, 100), targets), nn.CrossEntropyLoss()


def _images(model: nn.Module) -> Example:
    images = torch.randn(SAMPLES, 3, 224, 224)
    return model.eval(), (images, torch.randint(0, CLASSES, (SAMPLES,))), nn.CrossEntropyLoss()
