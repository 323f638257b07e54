"""The machine's side: one product of fp32 matrices is a step. Job: size, threads."""

from __future__ import annotations

from typing import Any

import torch
from turns import Step, serve


def load(job: dict[str, Any]) -> Step:
    """One product of two square matrices."""
    torch.set_num_threads(job["threads"])
    size = job["size"]
    left, right, out = torch.randn(size, size), torch.randn(size, size), torch.empty(size, size)
    return lambda: torch.mm(left, right, out=out)


if __name__ == "__main__":
    serve(load)
