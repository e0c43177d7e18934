"""Attention from live rows to live rows: plain functions that TorchScript compiles.

    plan = plan_attention(mask, rows)   what this call's mask allows; once per mask and call
    y    = attend_rows(q, k, v, ...)    each sample on its own live rows

Samples are neighbours among the live rows (`live.py`), so attention reads them as views. Short neighbouring samples share one
product with a block-diagonal mask: fewer, larger kernels (the idea of sequence packing: Krell et al., "Efficient sequence packing
without cross-contamination", 2021).
"""

from typing import List, NamedTuple, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dendrofx.runtime.live import LiveRows, pad_rows, unpad_rows


class AttentionPlan(NamedTuple):
    """How live rows may attend.

    `packed` is false where only the padded form is right. Otherwise chunk i holds the rows `starts[i]` to `starts[i] + sizes[i]`,
    whole samples, and `masks[i]` is f32[1 or heads, n, n], or f32[0] where every row sees all others. `floor` is the largest of
    what is added to the scores of dead rows to hide them; see `check_scores`.
    """

    packed: bool
    starts: List[int]
    sizes: List[int]
    masks: List[Tensor]
    floor: float


def bias_of(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what a spelled-out attention adds to its scores, in their type; NaN for a row that sees nothing, as a softmax does."""
    bias = mask.to(dtype)
    return bias.masked_fill(bias.eq(-float("inf")).all(-1, True), float("nan"))


def cut_chunks(lengths: List[int], most: int) -> Tuple[List[int], List[int]]:
    """Return starts and sizes of chunks of neighbouring samples, at most `most` rows together; a longer sample stays alone."""
    starts: List[int] = []
    sizes: List[int] = []
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


def cut_samples(plan: AttentionPlan, lengths: List[int]) -> AttentionPlan:
    """Return the plan with a chunk for each sample."""
    starts: List[int] = []
    sizes: List[int] = []
    masks: List[Tensor] = []
    start, chunk = 0, 0
    for length in lengths:
        if length == 0:
            continue
        while start >= plan.starts[chunk] + plan.sizes[chunk]:
            chunk += 1
        mask = plan.masks[chunk]
        if mask.numel() > 0:
            first = start - plan.starts[chunk]
            mask = mask[:, first : first + length, first : first + length]
        starts.append(start)
        sizes.append(length)
        masks.append(mask)
        start += length
    return AttentionPlan(plan.packed, starts, sizes, masks, plan.floor)


def plan_attention(mask: Tensor, rows: LiveRows, most: int) -> AttentionPlan:
    """Decide whether, and with which masks, the live rows may attend among themselves; on every call.

    Exact where each live row sees no dead row and at least one live one.

    Args:
        mask: bool (True may attend) or float (added to the scores), [1 or batch, 1 or heads, tokens or 1, tokens].
        rows: of this call.
        most: rows of a chunk of several samples; measured best at 48 rows of 32 features (2 threads, Zen 5).
    """
    starts: List[int] = []
    sizes: List[int] = []
    masks: List[Tensor] = []
    alive = torch.zeros([rows.batch * rows.tokens], dtype=torch.bool).index_fill_(0, rows.index, True)
    alive = alive.view(rows.batch, rows.tokens)
    seen = mask if mask.dtype == torch.bool else mask > -9000.0  # less hides a row: that its score allows it is checked
    query, key = alive[:, None, :, None], alive[:, None, None, :]
    dead = query.logical_and(key.logical_not())
    floor = -float("inf")
    if mask.dtype != torch.bool and mask.numel() > 0:
        hides = dead.logical_and(mask <= -9000.0)
        floor = float(torch.where(hides, mask, -float("inf")).max())
    sees_dead = seen.logical_and(dead)
    sees_none = seen.logical_and(key).any(3, True).logical_not().logical_and(query)
    if bool(sees_dead.any()) or bool(sees_none.any()):
        return AttentionPlan(False, starts, sizes, masks, floor)
    free = mask if mask.dtype == torch.bool else mask == 0
    unbiased = bool(free.logical_or(key.logical_not()).logical_or(query.logical_not()).all())
    starts, sizes = cut_chunks(rows.lengths, most)
    whole = mask.expand([rows.batch, mask.size(1), rows.tokens, rows.tokens])
    for start, size in zip(starts, sizes):
        sample = rows.sample[start : start + size]
        other = sample[:, None] != sample[None, :]
        if unbiased:
            if bool(sample[0] == sample[-1]):
                masks.append(torch.zeros([0], dtype=torch.float32))
                continue
            chunk = torch.zeros([1, size, size], dtype=torch.float32)
        else:
            token = rows.token[start : start + size]
            crop = whole.permute(0, 2, 3, 1)[sample[:, None], token[:, None], token[None, :]].permute(2, 0, 1)
            if crop.dtype == torch.bool:
                chunk = torch.zeros(crop.size(), dtype=torch.float32).masked_fill_(crop.logical_not(), -float("inf"))
            else:
                chunk = crop.contiguous()
        masks.append(chunk.masked_fill_(other, -float("inf")))
    return AttentionPlan(True, starts, sizes, masks, floor)


def check_scores(q: Tensor, k: Tensor, scale: float, floor: float) -> None:
    """Raise where scores are so large that what hides dead rows does not.

    A dead row has no weight where its score, with `floor` added, is 750 below that of a live one: exp() of it is 0 in every type.
    No score is above `scale |q| |k|`. The keys of dead rows are not computed; they are taken to be at most four times as long as
    the longest of a live row.

    Args:
        q: [1, heads, count, features].
        k: the same.
        scale: of the scores.
        floor: the largest that is added to a dead row's score.

    Raises:
        RuntimeError: quotes both.
    """
    longest = torch.linalg.vector_norm(q, 2, -1).amax(-1) * torch.linalg.vector_norm(k, 2, -1).amax(-1)
    reach = float(longest.nan_to_num(0.0, 0.0, 0.0).max()) * abs(scale)
    if floor + 750.0 + 5.0 * reach > 0.0:
        raise RuntimeError(
            f"attention scores may reach {reach}, beside which the mask's {floor} does not hide the dead rows of this call: let the"
            " model add a mask of -inf, or transform it without dead_rows"
        )


def attend_rows(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, plan: AttentionPlan, rows: LiveRows, scale: float
) -> Tensor:
    """Attend from live rows to live rows, each sample on its own.

    Args:
        q: [1, heads, count, features], floats of any type.
        k: the same.
        v: the same.
        mask: the call's own, for the padded form.
        plan: of this mask and call.
        rows: of this call.
        scale: of the scores.

    Returns:
        [1, heads, count, features]; rows behind the live ones have no meaning.
    """
    if plan.floor > -1e30 and q.size(2) > 0:
        check_scores(q, k, scale, plan.floor)
    if not plan.packed:
        mask = mask if mask.dtype == torch.bool else mask.to(q.dtype)
        q, k, v = pad_rows(q, rows, 0, 2), pad_rows(k, rows, 0, 2), pad_rows(v, rows, 0, 2)
        return unpad_rows(F.scaled_dot_product_attention(q, k, v, mask, 0.0, False, scale=scale), rows, 0, 2)
    out = attend_chunks(q, k, v, plan, rows.live, scale)
    if not bool(
        out.sum().isfinite()
    ):  # a weight of 0 keeps out every number of another sample, but not NaN and infinity
        out = attend_chunks(q, k, v, cut_samples(plan, rows.lengths), rows.live, scale)
    return out.transpose(0, 1).unsqueeze(0)


def attend_chunks(q: Tensor, k: Tensor, v: Tensor, plan: AttentionPlan, live: int, scale: float) -> Tensor:
    """Return [count, heads, features], each chunk on its own; zero behind the `live` rows. See `attend_rows`."""
    out = q.new_empty([q.size(2), q.size(1), v.size(3)])
    none = q.new_zeros([1])
    for start, size, bias in zip(plan.starts, plan.sizes, plan.masks):
        chunk = bias.to(q.dtype)
        a, b, c = q[0].narrow(1, start, size), k[0].narrow(1, start, size), v[0].narrow(1, start, size)
        if size > 256:  # the flash kernel keeps long scores in the caches
            biases = chunk[None] if chunk.numel() > 0 else None
            y = F.scaled_dot_product_attention(a[None], b[None], c[None], biases, 0.0, False, scale=scale)[0]
        elif chunk.numel() > 0:
            y = torch.bmm(torch.baddbmm(chunk, a, b.transpose(1, 2), alpha=scale).softmax(-1), c)
        else:  # two batched products are twice as fast as its block loop on short samples
            y = torch.bmm(torch.baddbmm(none, a, b.transpose(1, 2), beta=0, alpha=scale).softmax(-1), c)
        out.narrow(0, start, size).copy_(y.transpose(0, 1))
    out.narrow(0, live, out.size(0) - live).zero_()
    return out
