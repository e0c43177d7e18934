"""What the builders of all peers share: types, example inputs, silence, and failures in one line."""

from __future__ import annotations

import io
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export

Batch: TypeAlias = Mapping[str, Tensor]
Peer: TypeAlias = Callable[[Batch], Tensor]

LONGEST_REASON = 300  # characters
# OpenVINO and NNCF report every conversion over the network unless they run in a build job.
NO_TELEMETRY = {"CI": "true", "NNCF_CI": "1"}


class PeerUnavailableError(Exception):
    """A peer cannot run here; the message is the reason, on one line."""


@dataclass(frozen=True)
class Job:
    """What a builder gets.

    Attributes:
        model: a copy of the caller's model, in eval mode; the builder may change it.
        calibration: batches, tokens i64[batch, tokens] or features of any width.
        threads: that the peer may use.
        folder: for files; deleted when the peer is built.
    """

    model: nn.Module
    calibration: Sequence[Batch]
    threads: int
    folder: Path

    @property
    def tokens(self) -> bool:
        """Whether the second size of its inputs is free: see `has_tokens`."""
        return has_tokens(self.calibration[0])

    @property
    def example(self) -> dict[str, Tensor]:
        """A batch from which nothing is specialised: see `unlike`."""
        return unlike(self.calibration[0])


Builder: TypeAlias = Callable[[Job], Peer]


def has_tokens(batch: Batch) -> bool:
    """Whether a batch holds sequences: whole numbers alone, ids and masks of one shape. Others hold features of fixed widths."""
    return len({v.shape for v in batch.values()}) == 1 and not any(v.is_floating_point() for v in batch.values())


def unlike(batch: Batch) -> dict[str, Tensor]:
    """The batch with rows repeated until their number is neither 1 nor any other size, such as that of the tokens.

    torch compiles for a size of 1 separately, and takes two dynamic sizes that are equal in the example for one.
    """
    first = next(iter(batch.values()))
    rows, others = len(first), {1, *(size for values in batch.values() for size in values.shape[1:])}
    while rows in others:
        rows += 1
    index = torch.arange(rows) % len(first)
    return {name: values[index] for name, values in batch.items()}


def one_row(batch: Batch) -> dict[str, Tensor]:
    """Its first sample alone, a sequence one token shorter, laid out as a batch of its own."""
    whole = {n: v[:1, : max(2, v.size(1) - 1)] if has_tokens(batch) else v[:1] for n, v in batch.items()}
    return {n: v.clone(memory_format=torch.contiguous_format) for n, v in whole.items()}


def sequences(batches: Sequence[Batch], most: int) -> list[dict[str, Tensor]]:
    """Each sample as a batch of one, a sequence without its padding."""
    found: list[dict[str, Tensor]] = []
    for batch in batches:
        if not has_tokens(batch):
            found += [{n: v[i : i + 1] for n, v in batch.items()} for i in range(len(next(iter(batch.values()))))]
            continue
        live = batch.get("attention_mask", torch.ones_like(next(iter(batch.values())))).bool()
        found += [{n: v[i : i + 1, live[i]] for n, v in batch.items()} for i in range(len(live))]
    return found[:most]


def exported(job: Job) -> ExportedProgram:
    """The model as a graph whose batch and tokens are free."""
    free = (0, 1) if job.tokens else (0,)
    shapes = {name: dict.fromkeys(free, Dim.DYNAMIC) for name in job.example}
    return export(job.model, (), job.example, dynamic_shapes=shapes)


def saturates() -> bool:
    """Whether 8-bit products of 8-bit operands may overflow here: x86 without VNNI adds pairs of them in 16 bits."""
    has = torch.cpu.get_capabilities()
    return has["architecture"] == "x86_64" and not (has["avx512_vnni"] or has["avx_vnni"])


def one_line(error: BaseException) -> str:
    """What a failure says, cut to the line that tells most: a compiler's first error, or else the first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = next((line for line in lines if "error: " in line), lines[0] if lines else "")
    text = f"{type(error).__name__}: {telling}".removesuffix(": ")
    return text if len(text) <= LONGEST_REASON else f"{text[: LONGEST_REASON - 3]}..."


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """A thread count of torch's for a while; nothing is set where it is that already, since setting it takes time."""
    before = torch.get_num_threads()
    if before != number:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        if before != number:
            torch.set_num_threads(before)


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings, logging, progress bars or telemetry of the libraries."""
    disabled, handlers = logging.root.manager.disable, logging.root.handlers[:]
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
            patch.dict(os.environ, NO_TELEMETRY),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        logging.root.handlers[:] = handlers  # a library that logs to the root logger gives it a handler


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for a while."""
    with tempfile.TemporaryDirectory(prefix="peer-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
