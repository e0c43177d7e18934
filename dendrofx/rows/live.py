"""The run time of live rows: plain functions that TorchScript compiles.

Live rows are *one long sample*: a value laid out [batch, heads, tokens, features] is packed as [1, heads, live rows, features],
same rank and same axes. So every row-wise op runs on it unchanged, and only sizes in view and expand arguments differ.

    rows = live_rows(mask)              where they are; once per call
    y    = take_rows(x, rows, 0, 1)     padded to live; a reshape where all rows are live
    x    = put_rows(y, rows, 0, 1)      live to padded; dead rows are zero
    plan = plan_attention(mask, rows)   what this call's mask allows; once per mask and call
    y    = attend_rows(q, k, v, ...)    attention from live rows to live rows

The order of rows is that of the padded layout, so each sample's rows are neighbours, and attention reads them as views. Short
neighbouring samples share one product with a block-diagonal mask: fewer, larger kernels (the idea of sequence packing: Krell
et al., "Efficient sequence packing without cross-contamination", 2021).

This file is read by TorchScript: no postponed annotations, plain types.
"""

from typing import Dict, List, NamedTuple, Tuple  # noqa: UP035

import torch
import torch.nn.functional as F
from torch import Tensor

from dendrofx.light.kernels import padded_rows


class LiveRows(NamedTuple):
    """Where the live rows of a padded [batch, tokens] layout are.

    `index` is i64[count], positions in the flattened batch * tokens, ascending; behind the `live` ones the last is repeated up to
    `count`, a row count that kernels like (`padded_rows`). `sample` and `token` are the two parts of `index`; `lengths` has each
    sample's live rows.
    """

    index: Tensor  # type: ignore[assignment]  # hides tuple.index
    sample: Tensor
    token: Tensor
    live: int
    lengths: List[int]  # noqa: UP006
    batch: int
    tokens: int


class AttentionPlan(NamedTuple):
    """How live rows may attend.

    `packed` is false where only the padded form is right. Otherwise chunk i holds the rows `starts[i]` to `starts[i] + sizes[i]`,
    whole samples, and `masks[i]` is f32[1 or heads, n, n], or f32[0] where every row sees all others.
    """

    packed: bool
    starts: List[int]  # noqa: UP006
    sizes: List[int]  # noqa: UP006
    masks: List[Tensor]  # noqa: UP006


def live_rows(mask: Tensor, inverted: bool, side: str = "any") -> LiveRows:
    """Rows where `mask` [batch, tokens] is not zero (is zero, when inverted); a sample without any keeps all of its rows.

    Args:
        mask: bool, int or float.
        inverted: ones mark dead rows.
        side: where dead rows may be, "right" or "left" of the live ones, or "any".

    Raises:
        RuntimeError: another shape, or dead rows elsewhere.
    """
    if mask.dim() != 2:
        raise RuntimeError(f"the mask of dead rows is shaped {mask.size()}, it takes [batch, tokens]")
    alive = mask.eq(0) if inverted else mask.ne(0)
    alive = alive.logical_or(alive.any(1, True).logical_not())
    if side != "any":
        first, second = (alive[:, :-1], alive[:, 1:]) if side == "right" else (alive[:, 1:], alive[:, :-1])
        if bool(second.logical_and(first.logical_not()).any()):
            raise RuntimeError(
                f"the mask has padding that is not on the {side}, the side on which the model was found to ignore it when it was"
                " transformed"
            )
    index = alive.reshape(-1).nonzero().squeeze(1)
    live = index.size(0)
    spare = min(padded_rows(live), mask.numel()) - live
    if spare > 0:
        index = torch.cat([index, index[-1:].expand(spare)])
    lengths: List[int] = alive.sum(1).tolist()  # noqa: UP006
    tokens = max(mask.size(1), 1)
    sample = torch.div(index, tokens, rounding_mode="floor")
    return LiveRows(index, sample, index.remainder(tokens), live, lengths, mask.size(0), mask.size(1))


def count_live(rows: LiveRows) -> int:
    """Rows of the packed layout."""
    return rows.index.size(0)


def take_rows(x: Tensor, rows: LiveRows, b: int, t: int) -> Tensor:
    """Padded to live.

    Args:
        x: a value with samples and tokens.
        rows: of this call.
        b: the axis that counts samples; -1 for a value that is the same for every sample.
        t: the axis that counts tokens.

    Raises:
        RuntimeError: x has other samples or tokens than the mask.
    """
    if x.size(t) != rows.tokens or (b >= 0 and x.size(b) != rows.batch):
        raise RuntimeError(
            f"the mask of dead rows is shaped [{rows.batch}, {rows.tokens}], which does not fit a value of {x.size()}"
        )
    if b < 0:
        return x.index_select(t, rows.token)
    x = x.movedim([b, t], [0, 1]).flatten(0, 1)
    if rows.live < x.size(0):
        x = x.index_select(0, rows.index)
    return x.unsqueeze(0).movedim([0, 1], [b, t])


def put_rows(x: Tensor, rows: LiveRows, b: int, t: int) -> Tensor:
    """Live to padded; dead rows are zero."""
    x = x.movedim([b, t], [0, 1]).squeeze(0)
    if rows.live < rows.batch * rows.tokens:
        shape = [rows.batch * rows.tokens] + list(x.shape[1:])  # noqa: RUF005  (TorchScript unpacks no list)
        x = x.new_zeros(shape).index_copy_(0, rows.index[: rows.live], x[: rows.live])
    padded: Tensor = x.unflatten(0, [rows.batch, rows.tokens]).movedim([0, 1], [b, t])
    return padded


def cut_chunks(lengths: List[int], most: int) -> Tuple[List[int], List[int]]:  # noqa: UP006
    """Starts and sizes of chunks of neighbouring samples, at most `most` rows together; a longer sample stays alone."""
    starts: List[int] = []  # noqa: UP006
    sizes: List[int] = []  # noqa: UP006
    start, size = 0, 0
    for length in lengths:
        if size > 0 and size + length > most:
            starts.append(start)
            sizes.append(size)
            start, size = start + size, 0
        size += length
    if size > 0:
        starts.append(start)
        sizes.append(size)
    return starts, sizes


def plan_attention(mask: Tensor, rows: LiveRows, most: int) -> AttentionPlan:
    """Whether, and with which masks, the live rows may attend among themselves: checked on every call.

    Exact where each live row sees no dead row and at least one live one.

    Args:
        mask: bool (True may attend) or float (added to the scores), [1 or batch, 1 or heads, tokens or 1, tokens].
        rows: of this call.
        most: rows of a chunk of several samples; measured best at 48 rows of 32 features (2 threads, Zen 5).
    """
    starts: List[int] = []  # noqa: UP006
    sizes: List[int] = []  # noqa: UP006
    masks: List[Tensor] = []  # noqa: UP006
    alive = torch.zeros([rows.batch * rows.tokens], dtype=torch.bool).index_fill_(0, rows.index, True)
    alive = alive.view(rows.batch, rows.tokens)
    seen = mask if mask.dtype == torch.bool else mask > -9999.0  # exp() of less is 0 beside any other score
    query, key = alive[:, None, :, None], alive[:, None, None, :]
    sees_dead = seen.logical_and(key.logical_not()).logical_and(query)
    sees_none = seen.logical_and(key).any(3, True).logical_not().logical_and(query)
    if bool(sees_dead.any()) or bool(sees_none.any()):
        return AttentionPlan(False, starts, sizes, masks)
    free = mask if mask.dtype == torch.bool else mask == 0
    unbiased = bool(free.logical_or(key.logical_not()).logical_or(query.logical_not()).all())
    starts, sizes = cut_chunks(rows.lengths, most)
    whole = mask.expand([rows.batch, mask.size(1), rows.tokens, rows.tokens])
    for start, size in zip(starts, sizes):  # noqa: B905
        sample = rows.sample[start : start + size]
        other = sample[:, None] != sample[None, :]
        if unbiased:
            if bool(sample[0] == sample[-1]):
                masks.append(torch.zeros([0]))
                continue
            chunk = torch.zeros([1, size, size])
        else:
            token = rows.token[start : start + size]
            crop = whole.permute(0, 2, 3, 1)[sample[:, None], token[:, None], token[None, :]].permute(2, 0, 1)
            if crop.dtype == torch.bool:
                chunk = torch.zeros(crop.size()).masked_fill_(crop.logical_not(), -float("inf"))
            else:
                chunk = crop.to(torch.float32).contiguous()
        masks.append(chunk.masked_fill_(other, -float("inf")))
    return AttentionPlan(True, starts, sizes, masks)


def attend_rows(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, plan: AttentionPlan, rows: LiveRows, scale: float
) -> Tensor:
    """Attention from live rows to live rows, each sample on its own.

    Args:
        q: f32[1, heads, count, features].
        k: the same.
        v: the same.
        mask: the call's own, for the padded form.
        plan: of this mask and call.
        rows: of this call.
        scale: of the scores.

    Returns:
        f32[1, heads, count, features]; rows behind the live ones are zero.
    """
    if not plan.packed:
        q, k, v = put_rows(q, rows, 0, 2), put_rows(k, rows, 0, 2), put_rows(v, rows, 0, 2)
        return take_rows(F.scaled_dot_product_attention(q, k, v, mask, 0.0, False, scale=scale), rows, 0, 2)
    out = q.new_empty([q.size(2), q.size(1), v.size(3)])
    none = q.new_zeros([1])
    for start, size, chunk in zip(plan.starts, plan.sizes, plan.masks):  # noqa: B905
        a, b, c = q[0].narrow(1, start, size), k[0].narrow(1, start, size), v[0].narrow(1, start, size)
        if size > 256:  # the flash kernel keeps long scores in the caches
            biases = chunk[None] if chunk.numel() > 0 else None
            y = F.scaled_dot_product_attention(a[None], b[None], c[None], biases, 0.0, False, scale=scale)[0]
        elif chunk.numel() > 0:
            y = torch.bmm(torch.baddbmm(chunk, a, b.transpose(1, 2), alpha=scale).softmax(-1), c)
        else:  # two batched products are twice as fast as its block loop on short samples
            y = torch.bmm(torch.baddbmm(none, a, b.transpose(1, 2), beta=0, alpha=scale).softmax(-1), c)
        out.narrow(0, start, size).copy_(y.transpose(0, 1))
    out.narrow(0, rows.live, out.size(0) - rows.live).zero_()
    return out.transpose(0, 1).unsqueeze(0)


def count_live_linears(rows: LiveRows, linear_macs: int) -> Dict[str, int]:  # noqa: UP006
    """What one call spared, for `forward_counted`.

    Args:
        rows: of this call.
        linear_macs: multiply-adds per row, of all Linears that run on live rows.

    Returns:
        rows and live_rows; executed_macs of those Linears, and original_macs of the same on all rows.
    """
    padded = rows.batch * rows.tokens
    executed = rows.index.size(0) * linear_macs
    return {"rows": padded, "live_rows": rows.live, "executed_macs": executed, "original_macs": padded * linear_macs}


def count_live_macs(
    rows: LiveRows,
    linear_macs: int,
    plans: List[AttentionPlan],  # noqa: UP006
    pair_macs: List[int],  # noqa: UP006
) -> Dict[str, int]:  # noqa: UP006
    """`count_live_linears` with attention.

    Args:
        rows: of this call.
        linear_macs: as there.
        plans: of this call.
        pair_macs: per plan, multiply-adds of one query with one key, in all attentions that follow it.
    """
    counts = count_live_linears(rows, linear_macs)
    whole = rows.batch * rows.tokens * rows.tokens
    for plan, macs in zip(plans, pair_macs):  # noqa: B905
        pairs = 0 if plan.packed else whole
        for size in plan.sizes:
            pairs += size * size
        counts["executed_macs"] += pairs * macs
        counts["original_macs"] += whole * macs
    return counts
