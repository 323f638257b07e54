"""PyTorch's side: forward, backward and AdamW, eager or compiled.

Job: factory (file.py:name), trainable (names of parameters), compiled, threads. AdamW is the fused
one, the fastest that PyTorch has on a CPU.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import torch
from turns import Step, serve

LEARNING_RATE = 1e-5


def load(job: dict[str, Any]) -> Step:
    """One step on a batch in a new order, as a data loader hands it out."""
    torch.set_num_threads(job["threads"])
    file, _, name = job["factory"].partition(":")
    sys.path.insert(0, str(Path(file).parent))
    model, (inputs, targets), loss = getattr(importlib.import_module(Path(file).stem), name)()
    model.eval()
    trainable = set(job["trainable"])
    for parameter_name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter_name in trainable)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    run = torch.compile(model) if job["compiled"] else model
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        rows = torch.randperm(len(targets), generator=generator)
        if isinstance(inputs, dict):
            outputs = run(**{key: value[rows] for key, value in inputs.items()})
        else:
            outputs = run(inputs[rows])
        value = loss(outputs, targets[rows])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        value.item()

    return step


if __name__ == "__main__":
    serve(load)
