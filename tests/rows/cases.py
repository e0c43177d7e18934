"""Functions of rows, x: f32[batch, tokens, 8] and ids: i64[batch, tokens], each with the verdict that it must get."""

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.rows.bundle import Case


def later(x: Tensor) -> Tensor:
    return x.exp() + x.neg_()


ROW_WISE: dict[str, Case] = {
    # elementwise and broadcasting
    "add": lambda m, x, ids: x + 2 * x,
    "pow of a scalar": lambda m, x, ids: torch.pow(2.0, x),
    "gelu": lambda m, x, ids: F.gelu(x),
    "where": lambda m, x, ids: torch.where(x > 0, x, -1.0),
    "masked_fill": lambda m, x, ids: x.masked_fill((ids == 0)[..., None], 0.0),
    "clamp": lambda m, x, ids: x.clamp(-1, 1),
    "cast": lambda m, x, ids: ids.to(torch.float32),
    "times tokens, a value": lambda m, x, ids: x * x.size(1),
    "full_like": lambda m, x, ids: torch.full_like(x, x.size(1)),
    "plus a position table": lambda m, x, ids: x + torch.arange(x.size(1))[:, None],
    "plus a fixed row": lambda m, x, ids: x + m.norm.bias,
    # products
    "Linear": lambda m, x, ids: m.fc(x),
    "linear": lambda m, x, ids: F.linear(x, m.fc.weight),
    "matmul, fixed": lambda m, x, ids: x @ m.fc.weight.t(),
    "matmul, fixed per head": lambda m, x, ids: x.unflatten(-1, (2, 4)).transpose(1, 2) @ m.per_head,
    "matmul, a fixed vector": lambda m, x, ids: x @ m.norm.weight,
    "matmul within a row": lambda m, x, ids: x.unflatten(-1, (2, 4)) @ x.unflatten(-1, (4, 2)),
    "layer_norm": lambda m, x, ids: m.norm(x),
    "rms_norm": lambda m, x, ids: F.rms_norm(x, (8,)),
    # tables
    "embedding": lambda m, x, ids: m.table(ids),
    "one_hot": lambda m, x, ids: F.one_hot(ids, 5),
    # along features
    "softmax": lambda m, x, ids: x.softmax(-1),
    "sum": lambda m, x, ids: x.sum(-1),
    "mean, dim kept": lambda m, x, ids: x.mean(2, keepdim=True),
    "mean of two dims": lambda m, x, ids: x.unflatten(-1, (2, 4)).mean((-1, -2)),
    "var": lambda m, x, ids: x.var(-1),
    "norm": lambda m, x, ids: x.norm(p=2, dim=-1),
    "cumsum": lambda m, x, ids: x.cumsum(-1),
    "argmax": lambda m, x, ids: x.argmax(-1),
    "max": lambda m, x, ids: x.max(-1).values,
    "maximum": lambda m, x, ids: torch.max(x, -x),
    "sort": lambda m, x, ids: x.sort(descending=True).indices,
    "topk": lambda m, x, ids: x.topk(3).values,
    "gather": lambda m, x, ids: x.gather(-1, x.topk(3).indices),
    "index_select": lambda m, x, ids: x.index_select(-1, m.pick),
    "flip": lambda m, x, ids: x.flip(-1),
    "roll": lambda m, x, ids: x.roll(1, -1),
    "glu": lambda m, x, ids: F.glu(x),
    "any": lambda m, x, ids: (x > 0).any(-1),
    "select": lambda m, x, ids: x[..., -1],
    "slice": lambda m, x, ids: x[..., 1::2],
    "narrow": lambda m, x, ids: x.narrow(-1, 2, 4),
    "pad": lambda m, x, ids: F.pad(x, (1, 2)),
    "chunk": lambda m, x, ids: torch.mul(*x.chunk(2, -1)),
    "split": lambda m, x, ids: x.split([3, 5], -1)[1],
    "unbind": lambda m, x, ids: x.unbind(-1)[3],
    "cat": lambda m, x, ids: torch.cat([x, x], -1),
    "stack": lambda m, x, ids: torch.stack([x, -x]),
    "repeat_interleave": lambda m, x, ids: x.repeat_interleave(2, -1),
    # moving axes and counting rows anew
    "heads first": lambda m, x, ids: x.view(x.size(0), -1, 2, 4).transpose(1, 2),
    "heads joined": lambda m, x, ids: x.unflatten(-1, (2, 4)).flatten(2) * 1,
    "tokens first": lambda m, x, ids: x.permute(1, 0, 2).reshape(x.size(1), x.size(0), 2, 4),
    "repeat of features": lambda m, x, ids: x.repeat(1, 1, 2),
    "repeated heads": lambda m, x, ids: x[:, :, None].expand(-1, -1, 3, -1).reshape(x.size(0), x.size(1), 24),
    "a fixed row, expanded": lambda m, x, ids: m.norm.bias.expand(x.size(0), x.size(1), 8),
    "zeros": lambda m, x, ids: torch.zeros(x.size(0), x.size(1), 3),
    "new_full": lambda m, x, ids: x.new_full((x.size(0), x.size(1)), 2.0),
    "all tokens": lambda m, x, ids: x[:, 0 : x.size(1)] * 1,
}
NO_ROWS = "mixes rows: its output has no rows"
PER_SAMPLE = "mixes rows: an operand has one value per sample, not per row"
MIXES: dict[str, tuple[str, Case]] = {
    "softmax of tokens": ("mixes rows: it works along axis 't'", lambda m, x, ids: x.softmax(1)),
    "softmax of samples": ("mixes rows: it works along axis 'b'", lambda m, x, ids: x.softmax(0)),
    "negative dim": ("mixes rows: it works along axis 't'", lambda m, x, ids: x.log_softmax(-2)),
    "cumsum of tokens": ("mixes rows: it works along axis 't'", lambda m, x, ids: x.cumsum(1)),
    "flip of samples": ("mixes rows: it works along axis 'b'", lambda m, x, ids: x.flip(0)),
    "flip of both": ("mixes rows: it works along axis 't'", lambda m, x, ids: x.flip(-1, 1)),
    "roll of tokens": ("mixes rows: it works along axis 't'", lambda m, x, ids: x.roll(1, 1)),
    "roll of all": ("mixes rows: it works over all axes at once", lambda m, x, ids: x.roll(1)),
    "sort of tokens": ("mixes rows: it works along axis 't'", lambda m, x, ids: x.sort(1).values),
    "gather of tokens": ("mixes rows: it works along axis 't'", lambda m, x, ids: x.gather(1, 0 * x[..., :1].long())),
    "mean of tokens": (NO_ROWS, lambda m, x, ids: x.mean(1, keepdim=True)),
    "mean of both": (NO_ROWS, lambda m, x, ids: x.mean((1, 2))),
    "sum of all": (NO_ROWS, lambda m, x, ids: x.sum()),
    "argmax of all": (NO_ROWS, lambda m, x, ids: x.argmax()),
    "norm of tokens": (NO_ROWS, lambda m, x, ids: x.norm(p=2, dim=1)),
    "max of tokens": (NO_ROWS, lambda m, x, ids: x.max(1).values),
    "one token": (NO_ROWS, lambda m, x, ids: x[:, 0]),
    "one token left out": (NO_ROWS, lambda m, x, ids: x[:, 1:]),
    "every other token": (NO_ROWS, lambda m, x, ids: x[:, ::2]),
    "one token put before": (NO_ROWS, lambda m, x, ids: F.pad(x, (0, 0, 1, 0))),
    "cat of tokens": (NO_ROWS, lambda m, x, ids: torch.cat([x, x], 1)),
    "repeat of tokens": (NO_ROWS, lambda m, x, ids: x.repeat(1, 2, 1)),
    "flat rows": (NO_ROWS, lambda m, x, ids: x.reshape(-1, 8)),
    "scores": (NO_ROWS, lambda m, x, ids: x @ x.transpose(1, 2)),
    "covariance": (NO_ROWS, lambda m, x, ids: x.transpose(1, 2) @ x),
    "the first 512 tokens": ("mixes rows: it cuts axis 't'", lambda m, x, ids: x[:, :512] * 1),
    "less the first token": (PER_SAMPLE, lambda m, x, ids: x - x[:, :1]),
    "where, by sample": (PER_SAMPLE, lambda m, x, ids: torch.where(ids[:, :1, None] > 2, x, 0.0)),
    "masked_fill, by sample": (PER_SAMPLE, lambda m, x, ids: x.masked_fill(ids[:, :1, None] > 2, 0.0)),
    "a sample's row, expanded": (PER_SAMPLE, lambda m, x, ids: x[:, :1].expand(-1, x.size(1), -1)),
    "rows from flat ones": (
        "mixes rows: the axes of its inputs cannot be told apart: ?.",
        lambda m, x, ids: x.reshape(-1, 8).view(x.size(0), x.size(1), 8),
    ),
    "mixed by scores": (
        "mixes rows: the axes of its inputs cannot be told apart: btt, bt.",
        lambda m, x, ids: x @ x.transpose(1, 2) @ x,
    ),
    "view after a transposition": (
        "mixes rows: reshaping b.t to bt. moves values across rows",
        lambda m, x, ids: x.transpose(1, 2).reshape(x.size(0), x.size(1), 8),
    ),
    "filled with tokens": (
        "mixes rows: it is filled with a computed value",
        lambda m, x, ids: torch.full((x.size(0), x.size(1)), x.size(1)),
    ),
    "in place": ("mixes rows: it writes in place", lambda m, x, ids: (x + 1).relu_()),
    "before in place": ("mixes rows: %relu__1 writes its value in place", lambda m, x, ids: (x - 1).relu_()),
    "a view in place": ("mixes rows: it writes in place", lambda m, x, ids: (x - 2).unflatten(-1, (2, 4)).mul_(2)),
    "read before it is written": ("mixes rows: %neg_ writes %atan in place later", lambda m, x, ids: later(x.atan())),
    **{
        name: (f"mixes rows: no rule for {op}", case)
        for name, op, case in [
            ("attention", "scaled_dot_product_attention", lambda m, x, ids: F.scaled_dot_product_attention(x, x, x)),
            ("random numbers", "rand_like", lambda m, x, ids: torch.rand_like(x) * 0),
            ("dropout while training", "dropout", lambda m, x, ids: F.dropout(x, 0.5, True) * 0),
            ("drawn", "bernoulli", lambda m, x, ids: torch.bernoulli(x.sigmoid()) * 0),
            ("convolution", "conv1d", lambda m, x, ids: F.conv1d(x.transpose(1, 2), torch.ones(8, 8, 1))),
            ("group norm", "group_norm", lambda m, x, ids: F.group_norm(x.transpose(1, 2), 2)),
            ("index", "index", lambda m, x, ids: x[..., m.pick]),
            ("triangle", "tril", lambda m, x, ids: x.tril()),
        ]
    },
}
