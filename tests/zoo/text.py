"""Small text transformers with random weights, inputs as a dict of token tensors.

Each factory returns (model, (inputs, targets), loss) for a batch of 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
)

Loss = Callable[[Any, Tensor], Tensor]
Example = tuple[nn.Module, tuple[dict[str, Tensor], Tensor], Loss]
"""A model, its sample batch (named inputs [N, T] int64, targets int64) and its loss."""

VOCABULARY = 200
LENGTH = 16
CLASSES = 6


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Random numbers from `seed` inside, the caller's generator untouched outside."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


class SequenceLogits(nn.Module):
    """A transformers classifier that returns its logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Tokens and mask [N, T] to logits [N, classes]."""
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


class LanguageModelLogits(nn.Module):
    """A transformers language model that returns its logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        """Tokens [N, T] to logits of the next token [N, T, vocabulary]."""
        logits: Tensor = self.model(input_ids=input_ids).logits
        return logits


def _distilbert() -> nn.Module:
    config = DistilBertConfig(
        vocab_size=VOCABULARY,
        max_position_embeddings=32,
        n_layers=2,
        n_heads=4,
        dim=64,
        hidden_dim=128,
    )
    config.num_labels = CLASSES
    return DistilBertForSequenceClassification(config)


def _tokens() -> tuple[dict[str, Tensor], Tensor]:
    """Four sentences of different lengths, padded with 0 to [4, LENGTH]; targets [4]."""
    lengths = torch.tensor([LENGTH, 11, 7, 3])
    mask = (torch.arange(LENGTH) < lengths[:, None]).long()
    input_ids = torch.randint(1, VOCABULARY, (4, LENGTH)) * mask
    return {"input_ids": input_ids, "attention_mask": mask}, torch.randint(CLASSES, (4,))


def next_token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """Cross entropy of logits [N, T, V] against tokens [N, T] shifted by one."""
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def loss_of_output(output: Any, targets: Tensor) -> Tensor:
    """Cross entropy on a transformers output object."""
    return functional.cross_entropy(output.logits, targets)


def distilbert() -> Example:
    """DistilBERT classifier, two layers of width 64; input_ids, attention_mask [4, 16]."""
    with seeded():
        model = SequenceLogits(_distilbert())
        return model.eval(), _tokens(), nn.CrossEntropyLoss()


def distilbert_as_published() -> Example:
    """The same without a wrapper: the output is an object and the loss reads `.logits`."""
    with seeded():
        return _distilbert().eval(), _tokens(), loss_of_output


def gpt2_tiny() -> Example:
    """GPT-2 with tied embeddings, two layers of width 64; input_ids and targets [4, 16]."""
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=32,
        n_embd=64,
        n_layer=2,
        n_head=4,
        bos_token_id=0,
        eos_token_id=0,
        use_cache=False,
    )
    with seeded():
        model = LanguageModelLogits(GPT2LMHeadModel(config))
        tokens = torch.randint(VOCABULARY, (4, LENGTH))
        return model.eval(), ({"input_ids": tokens}, tokens), next_token_loss


def peft_lora() -> Example:
    """DistilBERT with LoRA of rank 4 on the query and value projections (`*.lora_*`).

    PEFT's own initialisation is kept: every `lora_B` starts as the same zeros.
    """
    with seeded():
        config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_lin", "v_lin"])
        model = SequenceLogits(get_peft_model(_distilbert(), config))
        return model.eval(), _tokens(), nn.CrossEntropyLoss()
