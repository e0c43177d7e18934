"""Live rows without branches; the functions of `runtime/live.py` and `runtime/attention.py`.

Dead rows are left out of every call, however few they are. Attention runs in the padded layout, as the original's: queries, keys
and values of live rows are padded with zeros for it. Chunks of samples would spare a part of that, but how many there are is a
matter of the call, and so no shape of a graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dendrofx.branchless.checked import by_index, checked
from dendrofx.runtime.live import LiveRows

NOTHING = "a batch without samples or tokens, of which a view of the model cannot infer a size"
HIDDEN = -9000.0  # what is added to the score of a dead row is less; see `runtime.attention.allows`


_SOME: ContextVar[bool] = ContextVar("some", default=False)


@contextmanager
def some_live() -> Iterator[None]:
    """Trace for calls with a live row at least, and refuse others: of nothing a view cannot infer a size."""
    token = _SOME.set(True)
    try:
        yield
    finally:
        _SOME.reset(token)


class AttentionPlan(NamedTuple):
    """How live rows attend in this call.

    Attributes:
        mask: of the call.
        rows: of the call.
        floor: f32[], the largest of what is added to the scores of dead rows to hide them.
    """

    mask: Tensor
    rows: LiveRows
    floor: Tensor


def live_rows(mask: Tensor, inverted: bool, side: str = "any") -> LiveRows:
    """Find the rows where `mask` [batch, tokens] is not zero; see `runtime.live.live_rows`."""
    if mask.dim() != 2:
        raise RuntimeError(f"the mask of dead rows has {mask.dim()} axes, it takes [batch, tokens]")
    batch, tokens = mask.size(0), mask.size(1)
    alive = mask.eq(0) if inverted else mask.ne(0)
    alive = alive.logical_or(alive.any(1, True).logical_not())
    if side != "any":
        message = f"the mask has padding that is not on the {side}, the side on which the model was found to ignore it"
        holds = _on_side(alive, side).eq(alive).logical_not().sum().eq(0)
        alive = checked(alive.to(torch.int64), holds, message).ne(0)
    if _SOME.get():
        alive = checked(alive.to(torch.int64), alive.sum().gt(0), NOTHING).ne(0)
    index = alive.reshape(-1).nonzero().squeeze(1)
    if _SOME.get():
        torch._check(index.size(0) >= 1, lambda: NOTHING)
    sample = torch.div(index, tokens, rounding_mode="floor")
    return LiveRows(index, sample, index - sample * tokens, index.size(0), [], batch, tokens, index[:0])


def _on_side(alive: Tensor, side: str) -> Tensor:
    """Return as many live rows a sample, all behind its dead ones or before them, bool[batch, tokens]; cut slices bound sizes."""
    tokens, live = alive.size(1), alive.sum(1, True)
    every = torch.arange(tokens)
    return every < live if side == "right" else every >= tokens - live


def unpad_rows(x: Tensor, rows: LiveRows, b: int, t: int) -> Tensor:
    """Unpad a value: from the padded layout to live rows; see `runtime.live.unpad_rows`."""
    torch._check(x.size(t) == rows.tokens, lambda: "the mask of dead rows has other tokens than the values")
    if b >= 0:
        torch._check(x.size(b) == rows.batch, lambda: "the mask of dead rows has other samples than the values")
    if b < 0:
        return x.index_select(t, rows.token)
    return x.movedim([b, t], [0, 1]).flatten(0, 1).index_select(0, rows.index).unsqueeze(0).movedim([0, 1], [b, t])


def pad_rows(x: Tensor, rows: LiveRows, b: int, t: int) -> Tensor:
    """Pad a value: from live rows to the padded layout; dead rows are zero."""
    x = x.movedim([b, t], [0, 1]).select(0, 0)
    padded = x.new_zeros([rows.batch * rows.tokens, *x.shape[1:]]).index_copy(0, rows.index, x)
    made: Tensor = padded.unflatten(0, [rows.batch, rows.tokens]).movedim([0, 1], [b, t])
    return made


def plan_attention(mask: Tensor, rows: LiveRows, most: int) -> AttentionPlan:
    """Keep the mask, and find the largest number by which it hides a dead row from a live one."""
    del most
    if mask.dtype == torch.bool:
        return AttentionPlan(mask, rows, torch.full([], -float("inf")))
    alive = torch.zeros([rows.batch * rows.tokens], dtype=torch.bool).index_fill(0, rows.index, True)
    alive = alive.reshape([rows.batch, rows.tokens])
    query, key = alive[:, None, :, None], alive[:, None, None, :]
    hides = query.logical_and(key.logical_not()).logical_and(mask <= HIDDEN)
    floor = torch.where(hides, mask, -float("inf")).to(torch.float32).flatten()
    return AttentionPlan(mask, rows, torch.cat([floor.new_full([1], -float("inf")), floor]).amax(0))


def attend_rows(q: Tensor, k: Tensor, v: Tensor, plan: AttentionPlan, scale: float, added: bool) -> Tensor:
    """Attend from live rows to live rows, each sample on its own; see `runtime.attention.attend_rows`."""
    rows = plan.rows
    if added:
        q = checked(
            q, _hides(q, k, scale, plan.floor), "attention scores are so large that the mask does not hide dead rows"
        )
    padded = [pad_rows(x, rows, 0, 2) for x in (q, k, v)]
    mask = plan.mask if plan.mask.dtype == torch.bool else plan.mask.to(q.dtype)
    out = _attend(padded[0], padded[1], padded[2], mask, scale)
    return unpad_rows(out, rows, 0, 2)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Attend; spelled out for ONNX, whose form of it takes no sample without tokens, and no row that sees none for zero."""
    if not by_index():
        return F.scaled_dot_product_attention(q, k, v, mask, 0.0, False, scale=scale)
    scores = (q * scale) @ k.transpose(-1, -2)
    hidden = mask.logical_not() if mask.dtype == torch.bool else mask.eq(-float("inf"))
    scores = scores.masked_fill(hidden, -float("inf")) if mask.dtype == torch.bool else scores + mask
    return (scores.softmax(-1) @ v).masked_fill(hidden.all(-1, True), 0.0)


def _hides(q: Tensor, k: Tensor, scale: float, floor: Tensor) -> Tensor:
    """Tell whether what is added to the scores of dead rows hides them, bool[]; see `runtime.attention.check_scores`."""
    norms = [torch.linalg.vector_norm(x, 2, -1).nan_to_num(0.0, 0.0, 0.0) for x in (q, k)]
    longest = [F.pad(n, [0, 1]).amax(-1) for n in norms]  # of no rows: 0
    reach = (longest[0] * longest[1]).flatten().amax(0) * abs(scale)
    return (floor + 750.0 + 5.0 * reach <= 0.0).logical_or(floor <= -1e30)
