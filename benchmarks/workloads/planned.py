"""The four models that plans are judged on, with seeded random weights: no data are needed.

`planned.py:mobilenet_v2`, `resnet50`, `minilm_l6`, `vit_small`: each with 8 samples of its usual
size. Memory and time do not depend on the values. Four smaller ones follow, on which times are
calibrated.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    MobileNetV1Config,
    MobileNetV1ForImageClassification,
    MobileNetV2Config,
    MobileNetV2ForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

Example = tuple[nn.Module, tuple[Any, Tensor], nn.Module]

SAMPLES = 8
CLASSES = 100


class Logits(nn.Module):
    """The logits of a Hugging Face classifier."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Any:
        return self.model(pixel_values=pixel_values).logits


class TextLogits(nn.Module):
    """The logits of a Hugging Face text classifier."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


def mobilenet_v2() -> Example:
    """MobileNetV2 1.0, 224 x 224."""
    return _mobilenet_v2(224)


def resnet50() -> Example:
    """ResNet-50, 224 x 224."""
    return _images(ResNetForImageClassification, ResNetConfig(num_labels=CLASSES))


def vit_small() -> Example:
    """ViT-S/16: 12 layers, 384 wide, 6 heads, 224 x 224."""
    config = ViTConfig(
        hidden_size=384, num_attention_heads=6, intermediate_size=1536, num_labels=CLASSES
    )
    return _images(ViTForImageClassification, config)


def minilm_l6() -> Example:
    """MiniLM-L6: 6 layers, 384 wide, 12 heads, 128 tokens."""
    return _bert(384, 6, 12, 1536, 128)


def resnet18_224() -> Example:
    """ResNet-18, 224 x 224: for calibration."""
    return _resnet18(224)


def mobilenet_v1_160() -> Example:
    """MobileNetV1 0.5, 160 x 160: for calibration."""
    config = MobileNetV1Config(
        num_labels=CLASSES, image_size=160, depth_multiplier=0.5, tf_padding=False
    )
    return _images(MobileNetV1ForImageClassification, config, 160)


def bert_2x256() -> Example:
    """BERT of 2 layers, 256 wide, 64 tokens: for calibration."""
    return _bert(256, 2, 4, 1024, 64)


def mobilenet_v2_96() -> Example:
    """MobileNetV2 1.0, 96 x 96: small enough for a minute on a slow machine."""
    return _mobilenet_v2(96)


def resnet18_160() -> Example:
    """ResNet-18, 160 x 160."""
    return _resnet18(160)


def cnn_64() -> Example:
    """Four plain 3x3 convolutions with strides, 64 x 64: for calibration."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    width = 3
    for wider in (32, 64, 128, 256):
        layers += [nn.Conv2d(width, wider, 3, stride=2, padding=1), nn.ReLU()]
        width = wider
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES)]
    images = torch.randn(SAMPLES, 3, 64, 64)
    targets = torch.randint(0, CLASSES, (SAMPLES,))
    return nn.Sequential(*layers), (images, targets), nn.CrossEntropyLoss()


def _mobilenet_v2(size: int) -> Example:
    config = MobileNetV2Config(num_labels=CLASSES, image_size=size, tf_padding=False)
    return _images(MobileNetV2ForImageClassification, config, size)


def _resnet18(size: int) -> Example:
    config = ResNetConfig(
        num_labels=CLASSES,
        layer_type="basic",
        depths=[2, 2, 2, 2],
        hidden_sizes=[64, 128, 256, 512],
        embedding_size=64,
    )
    return _images(ResNetForImageClassification, config, size)


def _bert(width: int, layers: int, heads: int, inner: int, tokens: int) -> Example:
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        num_labels=CLASSES,
        attn_implementation="sdpa",
    )
    ids = torch.randint(1000, 30000, (SAMPLES, tokens))
    inputs: Mapping[str, Tensor] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    model = TextLogits(BertForSequenceClassification(config))
    return model, (inputs, torch.randint(0, CLASSES, (SAMPLES,))), nn.CrossEntropyLoss()


def _images(kind: Any, config: Any, size: int = 224) -> Example:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = Logits(kind(config))
    images = torch.randn(SAMPLES, 3, size, size)
    return model, (images, torch.randint(0, CLASSES, (SAMPLES,))), nn.CrossEntropyLoss()
