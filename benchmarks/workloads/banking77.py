"""Banking77 intents with MiniLM: 77 classes of short customer questions.

`banking77.py:factory` is the model; `write_data(folder)` writes `train.npz` and
`validation.npz`. Weights and questions come from the folder named by EDGETUNE_DATA.
"""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

Example = tuple[nn.Module, tuple[dict[str, Tensor], Tensor], nn.Module]

LENGTH = 32
CLASSES = 77
TRAIN_SAMPLES = 2000
VALIDATION_SAMPLES = 1000

HEAD = ("head.*",)
LAST_TWO_LAYERS_AND_HEAD = ("encoder.encoder.layer.4.*", "encoder.encoder.layer.5.*", *HEAD)


def data_file(name: str) -> Path:
    """The path of a file in the folder named by EDGETUNE_DATA."""
    folder = os.environ.get("EDGETUNE_DATA")
    if not folder:
        raise FileNotFoundError("EDGETUNE_DATA is not set: it names the folder with the real data")
    path = Path(folder) / name
    if not path.is_file():
        raise FileNotFoundError(f"EDGETUNE_DATA is {folder}, which has no {name}")
    return path


class IntentClassifier(nn.Module):
    """A sentence encoder, its token states averaged, and a linear head."""

    def __init__(self, encoder: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(width, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Tokens and mask [N, T] int64 to logits [N, classes]."""
        output = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        states = output.last_hidden_state
        weight = attention_mask.unsqueeze(-1).to(states.dtype)
        sentence = (states * weight).sum(dim=1) / weight.sum(dim=1)
        logits: Tensor = self.head(sentence)
        return logits


def factory() -> Example:
    """MiniLM-L6 with a new head; input_ids and attention_mask [8, 32], targets [8]."""
    weights = load_file(data_file("text/minilm_l6_fp16.safetensors"))
    state = {name: value.float() for name, value in weights.items()}
    config = AutoConfig.from_pretrained(data_file("text/config.json"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder: nn.Module = AutoModel.from_config(  # type: ignore[no-untyped-call]
            config, add_pooling_layer=False
        )
        model = IntentClassifier(encoder, config.hidden_size, CLASSES)
        nn.init.normal_(model.head.weight, std=0.02)
        nn.init.zeros_(model.head.bias)
        lengths = torch.tensor([32, 24, 20, 16, 12, 10, 8, 6])
        mask = (torch.arange(LENGTH) < lengths[:, None]).long()
        input_ids = torch.randint(1000, config.vocab_size, (8, LENGTH)) * mask
        targets = torch.randint(CLASSES, (8,))
    # The file also holds position ids and a pooler, which this encoder has no use for.
    missing = encoder.load_state_dict(state, strict=False).missing_keys
    if missing:
        raise ValueError(f"the weights lack {', '.join(missing)}")
    inputs = {"input_ids": input_ids, "attention_mask": mask}
    return model.eval(), (inputs, targets), nn.CrossEntropyLoss()


def write_data(
    folder: Path,
    seed: int = 0,
    train_samples: int = TRAIN_SAMPLES,
    validation_samples: int = VALIDATION_SAMPLES,
) -> None:
    """Write `train.npz` and `validation.npz`, from the official train and test questions.

    `input_ids` and `attention_mask` are int64 [N, 32], `targets` int64 [N].
    """
    tokenizer = Tokenizer.from_file(str(data_file("text/tokenizer.json")))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)
    categories = json.loads(data_file("text/banking77_categories.json").read_text("utf-8"))
    generator = np.random.default_rng(seed)
    for name, source, samples in (
        ("train", "train", train_samples),
        ("validation", "test", validation_samples),
    ):
        with data_file(f"text/banking77_{source}.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        chosen = [rows[i] for i in generator.permutation(len(rows))[:samples]]
        encoded = tokenizer.encode_batch([row["text"] for row in chosen])
        np.savez(
            Path(folder) / f"{name}.npz",
            input_ids=_int64([tokens.ids for tokens in encoded]),
            attention_mask=_int64([tokens.attention_mask for tokens in encoded]),
            targets=_int64([categories.index(row["category"]) for row in chosen]),
        )


def _int64(values: list[list[int]] | list[int]) -> NDArray[np.int64]:
    return np.asarray(values, dtype=np.int64)
