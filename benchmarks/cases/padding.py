"""Batches that are mostly padding, of lengths for which others have published what packing by hand gains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.cases.options import CaseOptions
from benchmarks.models.encoder import PAD, pad, random_encoder
from dendrofx.compare.case import Case, Limit, Published
from dendrofx.compare.samples import Kinds, Sequences
from dendrofx.errors import InputError
from dendrofx.values.inputs import Inputs

BATCH, HEADS = 64, 12
VOCABULARY, LONGEST = 50265, 256  # RoBERTa's
QUICK, QUICK_BATCH = ("short uniform", "flat long"), 8  # what a quick run has time for: padding, and none
SECONDS, QUICK_SECONDS = 15.0, 2.0  # of a race
PUBLISHED = Published(
    "sequences packed by hand, over padded",
    "github.com/urchade/GLiNER/pull/292 (tokens/s of roberta-base at batch 64, another CPU)",
    BATCH,
    {"short uniform": 1.42, "short zipf": 1.94, "mixed tail": 5.55, "flat long": 0.83},
)


def draw_lengths() -> dict[str, list[int]]:
    """Return the lengths of a batch, by distribution, as that pull request draws them in `bench/bench_infer_packing.py`."""
    short = np.random.default_rng(314).integers(8, 48, size=BATCH - 1, endpoint=True)
    found = {
        "short uniform": np.random.default_rng(1337).integers(8, 64, size=BATCH, endpoint=True),
        "short zipf": np.random.default_rng(2024).zipf(1.2, size=BATCH).clip(8, 128),
        "mixed tail": np.concatenate([[LONGEST], short]),
        "flat long": np.full(BATCH, LONGEST),
    }
    return {name: lengths.tolist() for name, lengths in found.items()}


def padding(options: CaseOptions) -> Case:
    """A batch of each distribution; ids and weights are random numbers, which change no row's arithmetic."""
    layers, width = options.deep(6 if options.quick else 12), options.wide(384 if options.quick else 768)
    if width % HEADS:
        raise InputError(f"--width must be a multiple of the {HEADS} heads, got {width}")
    shape = "RoBERTa-base's shape" if (layers, width) == (12, 768) else "an encoder like RoBERTa"
    lengths = draw_lengths()
    step = BATCH // QUICK_BATCH
    if options.quick:  # the longest, and every eighth by length: about as much padding as all of them have
        lengths = {name: sorted(drawn)[step - 1 :: step] for name, drawn in lengths.items()}
    orders = QUICK if options.quick else tuple(lengths)
    random = np.random.default_rng(options.seed)
    seen = _sequences(draw_lengths()["short uniform"][: BATCH // 4 if options.quick else BATCH // 2], random)
    return Case(
        "padding",
        f"{shape}, {layers} layers of {width}, mean-pooled; random weights and ids; lengths of a published table",
        random_encoder(layers, width, VOCABULARY, LONGEST, options.seed),
        [pad(seen)],
        Kinds({name: Sequences(_sequences(lengths[name], random), pad) for name in orders}),
        classes=False,
        dead_rows="attention_mask",
        budgets=(0.0,),
        orders=orders,
        batch_sizes=(BATCH,),
        quick_sizes=(QUICK_BATCH,),
        synthetic=True,
        limit=Limit("tokens", token_limit),
        published=PUBLISHED,
        most_seconds=QUICK_SECONDS if options.quick else SECONDS,
    )


def token_limit(batches: Sequence[Inputs]) -> float:
    """Return the tokens of batches, padding included, over those that are none."""
    masks = [dict(batch.kwargs)["attention_mask"] for batch in batches]
    return float(sum(m.numel() for m in masks) / sum(int(m.sum()) for m in masks))


def _sequences(lengths: Sequence[int], random: np.random.Generator) -> list[list[int]]:
    return [random.integers(PAD + 1, VOCABULARY, size=n).tolist() for n in lengths]
