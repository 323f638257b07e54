"""Rows that many positions add to.

onnxruntime's ScatterND adds to one row from several threads at once: of 100 sums of 4,096 terms, 1
to 4 lost some (1.19.2, two and four threads). A run that happens to be right proves nothing, so
what is looked at is the graph.
"""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch
from edgetune_exporters.dense_step import dense_step
from edgetune_exporters.factory import Example
from torch import nn

ROWS, WIDTH, POSITIONS = 3, 64, 128


def test_no_sum_by_row_is_left_to_several_threads() -> None:
    torch.manual_seed(0)

    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(ROWS, WIDTH)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.table(ids).sum(1)
            return found

    model, ids = Mean(), torch.randint(ROWS, (4, POSITIONS))
    wanted = torch.randn(4, WIDTH)
    example = Example(model, ids, wanted, nn.MSELoss())
    graph = dense_step(example, 4).lowered.model
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    feeds = {"ids": ids.numpy(), "targets": wanted.numpy(), "scale": np.ones(4, np.float32)}
    (found,) = session.run(["gradient:table.weight"], feeds)
    loss = ((model(ids) - wanted) ** 2).sum()
    (gradient,) = torch.autograd.grad(loss, [model.table.weight])
    np.testing.assert_allclose(found, gradient, rtol=1e-4, atol=1e-2)
    adding = [
        n.op_type for n in graph.graph.node if any(a.name == "reduction" for a in n.attribute)
    ]
    assert adding == ["ScatterElements"]
