"""Attention from live rows to live rows: plain functions that TorchScript compiles.

    plan = plan_attention(mask, rows)   what this call's mask allows; once per mask and call
    y    = attend_rows(q, k, v, ...)    each sample on its own live rows

Samples share *chunks* of alike size, and all chunks of a size attend in one product (the idea of sequence packing: Krell et al.,
"Efficient sequence packing without cross-contamination", 2021). A product per sample is as fast on a quiet machine, but opens
hundreds of parallel regions a call, and beside a busy neighbour each of them waits for a core.
"""

from typing import List, NamedTuple, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dendrofx.runtime.chunks import cut_chunks, group_chunks
from dendrofx.runtime.live import LiveRows


class Chunks(NamedTuple):
    """One way in which live rows may attend.

    Group i has `chunks[i]` chunks of `sizes[i]` rows each, and `biases[i]` is added to its scores: f32[chunks, 1 or heads, size,
    size], or f32[0] where every row sees all of its chunk; what bools forbid is left out. `index` is i64[rows of all chunks], the
    live row that stands there, `place` where each live row stands; both are empty where rows stay where they are. `blank` says
    that `index` may be one more than the last live row, which is a row of zeros.
    """

    chunks: List[int]
    sizes: List[int]
    biases: List[Tensor]
    index: Tensor  # type: ignore[assignment]  # hides tuple.index
    place: Tensor
    blank: bool


class AttentionPlan(NamedTuple):
    """How live rows may attend in this call.

    `forms` are tried in their order until a result is finite: where several samples share chunks these, and then samples beside
    their dead rows as in the original. `alone` says that all rows are one sample's, with nothing to move or to mask. `floor` is the
    largest of what is added to the scores of dead rows to hide them, see `check_scores`.
    """

    forms: List[Chunks]
    alone: bool
    floor: float


def bias_of(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what a spelled-out attention adds to its scores, in their type; NaN for a row that sees nothing, as a softmax does."""
    bias = mask.to(dtype)
    return bias.masked_fill(bias.eq(-float("inf")).all(-1, True), float("nan"))


def chunk_bias(mask: Tensor, unbiased: bool, rows: LiveRows, owner: Tensor, index: Tensor) -> Tensor:
    """Return what is added to the scores of a group: f32[chunks, 1 or heads, size, size], or f32[0] where nothing is.

    Args:
        mask: of the call, expanded to [batch, 1 or heads, tokens, tokens].
        unbiased: it hides dead rows alone.
        rows: of this call.
        owner: i64[chunks, size], the sample of each row, -1 for rows without one.
        index: i64[chunks, size], live rows.
    """
    other = owner[:, :, None] != owner[:, None, :]
    if unbiased:
        if not bool(other.any()):
            return torch.zeros([0], dtype=torch.float32)
        zero = torch.zeros(other.size(), dtype=torch.float32)
        return zero.masked_fill_(other, -float("inf")).unsqueeze(1)
    sample, token = rows.sample[index], rows.token[index]
    crop = mask.permute(0, 2, 3, 1)[sample[:, :, None], token[:, :, None], token[:, None, :]].permute(0, 3, 1, 2)
    if crop.dtype == torch.bool:
        crop = torch.zeros(crop.size(), dtype=torch.float32).masked_fill_(crop.logical_not(), -float("inf"))
    return crop.masked_fill(other.unsqueeze(1), -float("inf"))


def pack_chunks(mask: Tensor, unbiased: bool, floor: float, rows: LiveRows, most: int) -> AttentionPlan:
    """Return the plan of live rows that attend in chunks; see `plan_attention`."""
    nothing = torch.zeros([0], dtype=torch.int64)
    chunk_of, before, used, first = cut_chunks(rows.lengths, most)
    places, groups, chunks, sizes = group_chunks(used, most)
    start, total = 0, 0
    starts: List[int] = []
    shifts: List[int] = []
    for sample, length in enumerate(rows.lengths):
        starts.append(start)
        shifts.append(places[chunk_of[sample]] + before[sample] - start if length > 0 else 0)
        start += length
    for count, size in zip(chunks, sizes):
        total += count * size
    every, sample_of = torch.arange(rows.live), rows.sample[: rows.live]
    place = every + torch.tensor(shifts, dtype=torch.int64)[sample_of]
    index = torch.zeros([total], dtype=torch.int64)
    for chunk in range(len(used)):
        if used[chunk] < sizes[groups[chunk]]:
            index.narrow(0, places[chunk], sizes[groups[chunk]]).fill_(starts[first[chunk]])
    index.index_copy_(0, place, every)
    owner = torch.full([total], -1, dtype=torch.int64).index_copy_(0, place, sample_of)
    whole = mask.expand([rows.batch, mask.size(1), rows.tokens, rows.tokens])
    biases: List[Tensor] = []
    at, shared = 0, False
    for count, size in zip(chunks, sizes):
        shape = [count, size]
        own, row = owner.narrow(0, at, count * size).view(shape), index.narrow(0, at, count * size).view(shape)
        biases.append(chunk_bias(whole, unbiased, rows, own, row))
        shared = shared or biases[-1].numel() > 0
        at += count * size
    if torch.equal(index, every):
        index, place = nothing, nothing
    forms = [Chunks(chunks, sizes, biases, index, place, False)]
    if shared:  # a weight of 0 keeps out another sample's numbers, but not its NaN and infinity
        forms.append(padded_chunks(mask, rows))
    return AttentionPlan(forms, False, floor)


def padded_chunks(mask: Tensor, rows: LiveRows) -> Chunks:
    """Return the way of the original: each sample beside its dead rows, which are zero here."""
    count = rows.index.size(0)
    index = torch.full([rows.batch * rows.tokens], count, dtype=torch.int64)
    index.index_copy_(0, rows.index[: rows.live], torch.arange(rows.live))
    return Chunks([rows.batch], [rows.tokens], [mask], index, rows.index, True)


def narrow_mask(mask: Tensor) -> Tensor:
    """Return a mask [batch, heads or 1, tokens or 1, tokens] without the axes along which it stays the same."""
    if mask.size(1) > 1 and mask.stride(1) == 0:
        mask = mask.narrow(1, 0, 1)
    if mask.size(2) > 1 and (mask.stride(2) == 0 or bool((mask == mask.narrow(2, 0, 1)).all())):
        mask = mask.narrow(2, 0, 1)
    return mask


def plan_attention(mask: Tensor, rows: LiveRows, most: int) -> AttentionPlan:
    """Decide whether, and with which masks, the live rows may attend among themselves; on every call.

    Exact where each live row sees no dead row and at least one live one.

    Args:
        mask: bool (True may attend) or float (added to the scores), [1 or batch, 1 or heads, tokens or 1, tokens].
        rows: of this call.
        most: rows of a chunk of several samples.
    """
    if rows.live == rows.batch * rows.tokens:
        nothing = torch.zeros([0], dtype=torch.int64)
        free = bool((mask if mask.dtype == torch.bool else mask == 0).all())
        whole = Chunks([rows.batch], [rows.tokens], [nothing if free else mask], nothing, nothing, False)
        return AttentionPlan([whole], free and rows.batch == 1, -float("inf"))
    mask = narrow_mask(mask)
    packed, unbiased, floor = allows(mask, rows)
    if packed:
        return pack_chunks(mask, unbiased, floor, rows, most)
    return AttentionPlan([padded_chunks(mask, rows)], False, floor)


def allows(mask: Tensor, rows: LiveRows) -> Tuple[bool, bool, float]:
    """Tell whether live rows may attend among themselves, whether the mask does no more than hide dead rows, and its floor."""
    alive = torch.zeros([rows.batch * rows.tokens], dtype=torch.bool).index_fill_(0, rows.index, True)
    alive = alive.view(rows.batch, rows.tokens)
    seen = mask if mask.dtype == torch.bool else mask > -9000.0  # less hides a row: that its score allows it is checked
    query, key = alive[:, None, :, None], alive[:, None, None, :]
    query = query.any(2, True) if mask.size(2) == 1 else query
    dead = query.logical_and(key.logical_not())
    floor = -float("inf")
    if mask.dtype != torch.bool and mask.numel() > 0:
        hides = dead.logical_and(mask <= -9000.0)
        floor = float(torch.where(hides, mask, -float("inf")).max())
    sees_dead = seen.logical_and(dead)
    sees_none = seen.logical_and(key).any(3, True).logical_not().logical_and(query)
    if bool(sees_dead.any()) or bool(sees_none.any()):
        return False, False, floor
    free = mask if mask.dtype == torch.bool else mask == 0
    return True, bool(free.logical_or(key.logical_not()).logical_or(query.logical_not()).all()), floor


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


def attend_rows(q: Tensor, k: Tensor, v: Tensor, plan: AttentionPlan, scale: float, added: bool) -> Tensor:
    """Attend from live rows to live rows, each sample on its own.

    Args:
        q: [1, heads, count, features], floats of any type.
        k: the same.
        v: the same.
        plan: of this mask and call.
        scale: of the scores.
        added: the mask is added to the scores, so that large ones may outweigh it.

    Returns:
        [1, heads, count, features]; rows behind the live ones have no meaning.

    Raises:
        RuntimeError: see `check_scores`.
    """
    if q.size(2) == 0:
        return v
    if added and plan.floor > -1e30:
        check_scores(q, k, scale, plan.floor)
    if plan.alone:
        return F.scaled_dot_product_attention(q, k, v, None, 0.0, False, scale=scale)
    given = [x[0].transpose(0, 1) for x in [q, k, v]]
    out = given[2]
    for number, form in enumerate(plan.forms):
        if number == 0 or not bool(out.sum().isfinite()):
            out = attend_chunks(given, form, scale)
    return out.transpose(0, 1).unsqueeze(0)


def attend_chunks(given: List[Tensor], form: Chunks, scale: float) -> Tensor:
    """Map q, k and v, [count, heads, features] each, to the same of the result; zero behind the live rows. See `attend_rows`."""
    own, moved = given, form.index.numel() > 0
    if form.blank:
        own = [F.pad(x, [0, 0, 0, 0, 0, 1]) for x in own]
    if moved:
        own = [x.index_select(0, form.index) for x in own]
    parts: List[Tensor] = []
    at = 0
    for chunks, size, bias in zip(form.chunks, form.sizes, form.biases):
        q, k, v = [x.narrow(0, at, chunks * size).unflatten(0, [chunks, size]).transpose(1, 2) for x in own]
        typed = bias if bias.dtype == torch.bool else bias.to(q.dtype)
        mask = typed if bias.numel() > 0 else None
        got = F.scaled_dot_product_attention(q, k, v, mask, 0.0, False, scale=scale)
        parts.append(got.transpose(1, 2).flatten(0, 1))
        at += chunks * size
    out = parts[0] if len(parts) == 1 else torch.cat(parts)
    if moved:
        out = out.index_select(0, form.place)
    spare = given[0].size(0) - out.size(0)
    return F.pad(out, [0, 0, 0, 0, 0, spare]) if spare > 0 else out
