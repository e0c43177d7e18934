"""What a model takes, as a request spells it: rows of numbers, or token ids that the server pads and masks.

Both travel as raw bytes behind a header with their sizes: nothing is parsed number by number, and a float arrives as it was sent.
Sequences are sent one behind the other without padding, since what they are padded to depends on who else is in the batch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

DTYPES = {"f32": "float32", "i64": "int64"}


class RefusedError(Exception):
    """A request that is not answered: its HTTP status, and the reason for whoever sent it."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class Asked:
    """What one request brought.

    Attributes:
        samples: how many.
        values: f32[samples, features ...], or i64[tokens] of all its sequences.
        lengths: of the sequences; empty for rows.
    """

    samples: int
    values: Tensor
    lengths: tuple[int, ...] = ()


@dataclass(frozen=True)
class Rows:
    """Samples of fixed sizes in float32; `X-Shape: 3,64` is three of 64 features."""

    features: tuple[int, ...]
    header = "X-Shape"
    item = 4  # bytes of a value

    def __str__(self) -> str:
        return f"f32[{', '.join(['N', *map(str, self.features)])}]"

    def count(self, sizes: tuple[int, ...]) -> tuple[int, int]:
        """Return how many samples and values a request of these sizes has, or refuse it."""
        if sizes[1:] != self.features:
            shape = ",".join(map(str, sizes))
            raise RefusedError(422, f"{self.header} is {shape}, but the model takes {self}")
        return sizes[0], math.prod(sizes)

    def read(self, sizes: tuple[int, ...], body: bytes) -> Asked:
        """Return the samples in a request's body."""
        return Asked(sizes[0], torch.frombuffer(bytearray(body), dtype=torch.float32).view(sizes))

    def join(self, parts: Sequence[Asked]) -> tuple[Tensor, ...]:
        """Return the model's inputs for several requests."""
        return (torch.cat([p.values for p in parts]),)

    def examples(self, samples: int) -> Asked:
        """Return samples to warm up with."""
        return Asked(samples, torch.randn(samples, *self.features, generator=torch.Generator().manual_seed(0)))


@dataclass(frozen=True)
class Sequences:
    """Token ids in int64; `X-Lengths: 7,12` is 19 of them, of two sequences. The mask is made here, 1 at each token sent.

    Attributes:
        longest: tokens of a sequence at most.
        mask_first: the model takes the mask before the ids.
    """

    longest: int
    mask_first: bool = False
    header = "X-Lengths"
    item = 8  # bytes of a value

    def __str__(self) -> str:
        return f"token ids, at most {self.longest} a sequence"

    def count(self, sizes: tuple[int, ...]) -> tuple[int, int]:
        """Return how many samples and values a request of these sizes has, or refuse it."""
        if max(sizes) > self.longest:
            raise RefusedError(422, f"a sequence has {max(sizes)} tokens, but the server takes {self}")
        return len(sizes), sum(sizes)

    def read(self, sizes: tuple[int, ...], body: bytes) -> Asked:
        """Return the sequences in a request's body."""
        return Asked(len(sizes), torch.frombuffer(bytearray(body), dtype=torch.int64), sizes)

    def join(self, parts: Sequence[Asked]) -> tuple[Tensor, ...]:
        """Return ids and mask of several requests, i64[samples, longest] twice, padded with 0 on the right."""
        ids = pad_sequence([one for p in parts for one in p.values.split(p.lengths)], batch_first=True)
        lengths = torch.tensor([length for p in parts for length in p.lengths])
        mask = (torch.arange(ids.size(1)) < lengths[:, None]).long()
        return (mask, ids) if self.mask_first else (ids, mask)

    def examples(self, samples: int, tokens: int = 16) -> Asked:
        """Return samples to warm up with, one of this many tokens, the others shorter."""
        lengths = tuple(tokens - i % tokens for i in range(samples))
        return Asked(samples, torch.ones(sum(lengths), dtype=torch.int64), lengths)


Kind = Rows | Sequences


def sizes_of(kind: Kind, text: str | None) -> tuple[int, ...]:
    """Read the header with a request's sizes: positive numbers with commas between them."""
    if text is None or not re.fullmatch(r"\d{1,9}(, ?\d{1,9}){0,9999}", text):
        example = "3,64" if isinstance(kind, Rows) else "7,12"
        raise RefusedError(422, f"{kind.header} must say the sizes, as in {example}; the model takes {kind}")
    sizes = tuple(map(int, text.split(",")))
    if min(sizes) < 1:
        raise RefusedError(422, f"{kind.header} is {text}: nothing to answer")
    return sizes


def kind_of(text: str, names: Sequence[str], longest: int) -> Kind:
    """Return how a model is asked, by its inputs as text (`f32[N, 64]`, or `i64[N, T] i64[N, T]`) and their names.

    Raises:
        ValueError: this server cannot ask such a model.
    """
    found = [(dtype, tuple(re.split(r",\s*", axes))) for dtype, axes in re.findall(r"(\w+)\[([^\]]*)\]", text)]
    if len(found) == len(names) == 1 and found[0][0] == "f32" and all(a.isdigit() for a in found[0][1][1:]):
        return Rows(tuple(map(int, found[0][1][1:])))
    if len(names) == 2 and [(dtype, len(axes)) for dtype, axes in found] == [("i64", 2)] * 2:
        return Sequences(longest, mask_first="mask" in names[0])
    raise ValueError(
        f"cannot serve a model of {', '.join(names)}: {text or 'the file does not say what they are'}. It takes one"
        " f32[N, sizes ...], or ids and mask, i64[N, T] i64[N, T]; SERVE_INPUTS says which where the file does not"
    )
