"""Rearranging, reducing, multiplying and indexing: the lowered step against autograd."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from tests.export.lowered import Pairs, assert_equal, compare_table

Function = Callable[..., Any]
BATCH = 3


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# x is (3, 4, 5).
SHAPES: dict[str, Function] = {
    "reshape": lambda x: x.reshape(BATCH, 10, 2),
    "reshape minus one": lambda x: x.reshape(-1, 20),
    "flatten": lambda x: x.flatten(1),
    "unflatten": lambda x: x.unflatten(1, (2, 2)),
    "squeeze": lambda x: x[:, :1].squeeze(1),
    "unsqueeze": lambda x: x.unsqueeze(-2),
    "permute": lambda x: x.permute(0, 2, 1),
    "permute negative": lambda x: x.permute(0, -1, -2),
    "transpose negative": lambda x: x.transpose(-1, -2),
    "movedim": lambda x: x.movedim(2, 1),
    "expand": lambda x: x[:, :1].expand(-1, 6, -1),
    "expand new axis": lambda x: x[:, None].expand(-1, 2, -1, -1),
    "broadcast of the batch": lambda x: x[:1] + x,
    "repeat": lambda x: x.repeat(1, 2, 3),
    "repeat new axis": lambda x: x.repeat(1, 1, 1, 1)[0],
    "repeat interleave": lambda x: x.repeat_interleave(2, 1),
    "flip": lambda x: x.flip(2),
    "flip two": lambda x: x.flip([1, -1]),
    "roll": lambda x: x.roll(2, 1),
    "pad": lambda x: F.pad(x, (1, 2)),
    "pad value": lambda x: F.pad(x, (0, 1, 2, 0), value=0.5),
    "pad negative": lambda x: F.pad(x, (-1, -2)),
    "pad mixed": lambda x: F.pad(x, (-1, 2, 1, -1)),
    "pad reflect": lambda x: F.pad(x, (1, 2), mode="reflect"),
    "slice": lambda x: x[:, 1:3],
    "slice negative": lambda x: x[:, -3:-1],
    "slice step": lambda x: x[:, ::2, 1::3],
    "slice beyond": lambda x: x[:, 1:99],
    "select": lambda x: x[:, 2],
    "select negative": lambda x: x[..., -1],
    "narrow": lambda x: x.narrow(2, 1, 3),
    "cat": lambda x: torch.cat([x, x * 2], 1),
    "cat negative": lambda x: torch.cat([x, x[..., :1]], -1),
    "cat one": lambda x: torch.cat([x], 1),
    "stack": lambda x: torch.stack([x, x * 2], 1),
    "stack last": lambda x: torch.stack([x, x * 2], -1),
    "split": lambda x: x.split(2, 2)[2],
    "split sizes": lambda x: x.split([1, 3], 1)[1] * 2,
    "chunk": lambda x: torch.mul(*x.chunk(2, 1)),
    "unbind": lambda x: torch.mul(*x.unbind(1)[:2]),
    "unfold": lambda x: x.unfold(2, 3, 2),
    "triu": lambda x: x.triu(),
    "tril diagonal": lambda x: x.tril(-1),
    "meshgrid": lambda x: x + torch.meshgrid(torch.arange(4), torch.arange(5), indexing="ij")[1],
    "pixel shuffle": lambda x: F.pixel_shuffle(x[:, :, :, None], 2),
    "where broadcast": lambda x: torch.where(x[:, :1] > 0, x, x[:, :, :1]),
    "written slice": lambda x: torch.slice_scatter(x, x[:, :1] * 3, 1, 1, 2),
    "written slice at the end": lambda x: torch.slice_scatter(x, x[:, :1] * 3, 1, 3),
    "written row": lambda x: torch.select_scatter(x, x[:, 0] * 3, 1, -1),
    "empty like": lambda x: x + torch.zeros_like(x) + torch.ones_like(x) * 2,
    "new full": lambda x: x + x.new_full((1, 5), 2.0) + x.new_ones(5) + x.new_zeros(4, 1),
    "clone": lambda x: x.clone().contiguous(),
    "detach": lambda x: x + x.detach() * 2,
}
REDUCTIONS: dict[str, Function] = {
    "sum": lambda x: x + x.sum(),
    "sum dim": lambda x: x.sum(1),
    "sum dims keep": lambda x: x.sum((1, -1), keepdim=True),
    "sum of one": lambda x: x[:, :1].sum(1),
    "mean": lambda x: x + x.mean(),
    "mean dim": lambda x: x.mean(-1),
    "mean keep": lambda x: x.mean(-2, keepdim=True),
    "amax": lambda x: x.amax(1),
    "amax keep": lambda x: x.amax((1, 2), keepdim=True),
    "amin": lambda x: x.amin(-1),
    "max": lambda x: x + x.max(),
    "max dim": lambda x: x.max(1),
    "min dim keep": lambda x: x.min(-1, keepdim=True),
    "argmax": lambda x: (x, x.argmax(1)),
    "argmax negative keep": lambda x: (x, x.argmax(-1, keepdim=True)),
    "argmin": lambda x: (x, x.argmin(-1)),
    "argmax of all": lambda x: (x, x.argmax()),
    "var": lambda x: x.var(-1),
    "var population keep": lambda x: x.var(1, unbiased=False, keepdim=True),
    "std": lambda x: x.std(-1),
    "var mean": lambda x: torch.var_mean(x, (1, 2), correction=0),
    "norm": lambda x: x.norm(dim=-1),
    "normalize": lambda x: F.normalize(x, dim=1),
    "cosine similarity": lambda x: F.cosine_similarity(x[:, 0], x[:, 1]),
    "logsumexp": lambda x: x.logsumexp(1),
    "cumsum": lambda x: x.cumsum(1),
    "cumsum negative": lambda x: x.cumsum(-1),
    "softmax": lambda x: x.softmax(1),
    "softmax negative": lambda x: x.softmax(-1),
    "log softmax": lambda x: x.log_softmax(1),
    "softmin": lambda x: F.softmin(x, -1),
    "glu": lambda x: F.glu(x, 1),
    "layer norm": lambda x: F.layer_norm(x, (5,)),
    "layer norm two axes": lambda x: F.layer_norm(x, (4, 5), eps=1e-3),
    "layer norm affine": lambda x: F.layer_norm(x, (5,), x[0, 0] + 1, x[0, 1]),
    "layer norm weight": lambda x: F.layer_norm(x, (5,), x[0, 0] + 1),
    "rms norm": lambda x: F.rms_norm(x, (5,), x[0, 0] + 1),
    "group norm": lambda x: F.group_norm(x, 2, x[0, :, 0] + 1, x[0, :, 1]),
    "instance norm": F.instance_norm,
    "batch norm": lambda x: F.batch_norm(x, torch.zeros(4), torch.ones(4), x[0, :, 0], x[0, :, 1]),
}
PRODUCTS: dict[str, Function] = {
    "matmul": lambda x: x @ x.transpose(1, 2),
    "matmul vector": lambda x: x @ x[0, 0],
    "matmul matrix": lambda x: x @ x[0].T,
    "mm": lambda x: x[0] @ x[1].T + x[:, :, :1],
    "mm of transposed": lambda x: x[0].T.mm(x[1])[:3] + x[:, :3],
    "linear": lambda x: F.linear(x, x[0], x[1, :, 0]),
    "linear of rows": lambda x: F.linear(x[:, 0], x[1], x[1, :, 0]),
    "addmm": lambda x: torch.addmm(x[:, :, 0], x[:, 0], x[0].T, beta=0.5, alpha=2),
    "bmm": lambda x: torch.bmm(x.transpose(1, 2), x),
    "baddbmm": lambda x: torch.baddbmm(x[:, :, :4], x, x.transpose(1, 2), beta=0.5),
    "outer": lambda x: x[:, :, :1] * torch.outer(x[0, 0, :4], x[0, 1]),
    "dot": lambda x: x * torch.dot(x[0, 0], x[0, 1]),
    "mv": lambda x: x[:, :, 0] + x[0].mv(x[1, 0]),
    "einsum": lambda x: torch.einsum("bij,bkj->bik", x, x),
    "einsum of three": lambda x: torch.einsum("bij,j,bi->bj", x, x[0, 0], x[:, :, 0]),
    "attention": lambda x: F.scaled_dot_product_attention(x, x * 2, x),
    "causal attention": lambda x: F.scaled_dot_product_attention(x, x * 2, x, is_causal=True),
    "cdist of squares": lambda x: ((x[:, :, None] - x[:, None]) ** 2).sum(-1),
    "convolution": lambda x: F.conv1d(x, x[:2, :, :3], x[0, 0, :2], padding=1),
    "transposed convolution": lambda x: F.conv_transpose1d(
        x, x[:2, :, :2].transpose(0, 1), stride=2
    ),
    "max pooling": lambda x: F.max_pool2d(x[:, None], 2, 1, 1),
    "max pooling 1d": lambda x: F.max_pool1d(x, 2),
    "average pooling": lambda x: F.avg_pool2d(x[:, None], 2, 1),
    "average pooling 1d": lambda x: F.avg_pool1d(x, 2, 2),
    "adaptive pooling": lambda x: F.adaptive_avg_pool2d(x[:, None], (3, 2)),
    "bilinear": lambda x: F.interpolate(x[:, None], scale_factor=2, mode="bilinear"),
    "nearest": lambda x: F.interpolate(x[:, None], scale_factor=2),
}
# i is (3, 2) in [0, 4), j is (3, 2) in [-4, 4).
INDEXING: dict[str, Function] = {
    "embedding": lambda x, i, j: F.embedding(i, x[0]),
    "index select": lambda x, i, j: x.index_select(1, i[0]),
    "index select negative axis": lambda x, i, j: x.index_select(-1, i[0]),
    "gather": lambda x, i, j: x.gather(1, i[:, :, None]),
    "gather last": lambda x, i, j: x.gather(-1, i[:, None]),
    "take along": lambda x, i, j: torch.take_along_dim(x, i[:, None], -1),
    "index first": lambda x, i, j: x[i[:, 0] % BATCH],
    "index second": lambda x, i, j: x[:, i[0]],
    "index negative": lambda x, i, j: x[:, j[0]],
    "index matrix": lambda x, i, j: x[:, i],
    "index matrix negative": lambda x, i, j: x[0][j],
    "index last": lambda x, i, j: x[..., j[0]],
    "index pairs": lambda x, i, j: x[torch.arange(BATCH), i[:, 0]],
    "index pairs negative": lambda x, i, j: x[torch.arange(BATCH), j[:, 0]],
    "index broadcast pairs": lambda x, i, j: x[torch.arange(BATCH)[:, None], j],
    "index triples": lambda x, i, j: x[torch.arange(BATCH), i[:, 0], j[:, 1]],
    "index repeated rows": lambda x, i, j: x[:, torch.tensor([0, 0, 3, 0])],
    "put": lambda x, i, j: x.index_put((torch.arange(BATCH), i[:, 0]), x[:, 0] * 2),
    "put negative": lambda x, i, j: x.index_put((torch.arange(BATCH), j[:, 0]), x[:, 0] * 2),
    "put number": lambda x, i, j: x.index_put((torch.arange(BATCH),), torch.tensor(2.0)) * x,
    "put added": lambda x, i, j: x.index_put((i[:, 0] % 1,), x[:, 0, 0, None, None], True),
    "put added at one place": lambda x, i, j: x.index_put((j[:, 0] % 2 * 3 - 1,), x[:, :1], True),
    "put added at pairs": lambda x, i, j: x.index_put((i % 2, j), x[:, :2, 0, None], True),
    "put added to zero": lambda x, i, j: torch.zeros(3, 5).index_put((i[:, 0] % 2,), x[:, 0], True),
    "put added behind": lambda x, i, j: torch.ops.aten.index_put(
        x, [None, i[0] % 1], x[:, :2], True
    ),
    "index add": lambda x, i, j: x.index_add(1, i[0], x[:, :2]),
    "index copy": lambda x, i, j: x.index_copy(1, torch.tensor([3, 1]), x[:, :2]),
    "index fill": lambda x, i, j: x.index_fill(1, i[0], 0.5),
    "scatter": lambda x, i, j: x.scatter(1, i[:, :1, None], x[:, :1, :1] * 2),
    "scatter number": lambda x, i, j: x.scatter(2, i[:, None], 0.5),
    "scatter add": lambda x, i, j: x.scatter_add(1, i[:, :, None], x[:, :2, :1]),
    "top values": lambda x, i, j: x.topk(2, 1),
    "top of last axis": lambda x, i, j: x.topk(3)[0],
    "lowest values": lambda x, i, j: x.topk(2, 1, largest=False),
    "masked rows": lambda x, i, j: x * (i > 1).any(1)[:, None, None],
    "last token": lambda x, i, j: x[torch.arange(BATCH), i.argmax(-1)],
    "one hot product": lambda x, i, j: (i[:, :, None] == torch.arange(4)).float() @ x,
}
DATA = (rand(BATCH, 4, 5),)
INDICES = (torch.tensor([[1, 3], [0, 2], [3, 1]]), torch.tensor([[-1, 2], [-4, 0], [3, -2]]))
TABLES = {
    "shapes": (SHAPES, DATA),
    "reductions": (REDUCTIONS, DATA),
    "products": (PRODUCTS, DATA),
    "indexing": (INDEXING, (*DATA, *INDICES)),
}


@cache
def compared(table: str) -> dict[str, Pairs]:
    functions, inputs = TABLES[table]
    return compare_table(functions, *inputs)


@pytest.mark.parametrize(("table", "name"), [(t, n) for t, (f, _) in TABLES.items() for n in f])
def test_operator(table: str, name: str) -> None:
    assert_equal(compared(table)[name], tolerance=5e-5)
