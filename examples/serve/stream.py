"""The requests of a load test: the same for every server, since they depend on a seed and the user's number alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

VOCABULARY, LONGEST = 1000, 128  # ids, and tokens of a sentence at most
MOST = 4  # samples of a request
DIGITS = Path(__file__).parent.parent.parent / "benchmarks" / "data" / "digits.npz"


@dataclass(frozen=True)
class Sent:
    """A request: its samples, the header with their sizes, and the raw values."""

    samples: int
    headers: dict[str, str]
    body: bytes


def requests(model: str, seed: int, user: int) -> Iterator[Sent]:
    """Draw requests of 1 to `MOST` samples without end, for `encoder` or `digits`."""
    draw = random.Random(f"{seed} {user}")
    images = np.load(DIGITS)["images"].astype(np.float32) / 16 if model == "digits" else None
    while True:
        samples = draw.randint(1, MOST)
        if images is None:
            yield _sentences(draw, samples)
        else:
            rows = images[[draw.randrange(len(images)) for _ in range(samples)]]
            yield Sent(samples, {"X-Shape": f"{samples},64"}, rows.tobytes())


def _sentences(draw: random.Random, samples: int) -> Sent:
    """Return sentences as they come: most short, some long, 25 tokens in the mean."""
    lengths = [min(LONGEST, 3 + int(draw.expovariate(1 / 23))) for _ in range(samples)]
    ids = np.array([draw.randrange(1, VOCABULARY) for _ in range(sum(lengths))], dtype=np.int64)
    return Sent(samples, {"X-Lengths": ",".join(map(str, lengths))}, ids.tobytes())
