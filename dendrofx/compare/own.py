"""A case of a caller's own: any model, and batches of its inputs.

    case = own_case(model, batches, "my model")
    for _, _, record in compare_case(case, Asked(), (1, 32), Effort(4.0, sweep=True)):
        ...

The first part of the data is calibration, the rest is for testing alone: samples of one source should lie in one batch, and the
order of the batches should tell nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dendrofx.compare.case import Case
from dendrofx.compare.samples import Order
from dendrofx.errors import InputError
from dendrofx.values.inputs import Inputs

CALIBRATION = 0.6  # of the samples
LEAST = 20  # samples that test


@dataclass(frozen=True)
class Batches:
    """Samples in the batches that they came in, each padded as its caller did: those of one batch alone can be joined or cut."""

    given: tuple[Inputs, ...]

    def __len__(self) -> int:
        return sum(b.samples for b in self.given)

    def batches(self, size: int, order: Order = "random") -> list[Inputs]:
        """See `Samples`; a batch that is larger is cut, and samples of two batches are not put together."""
        return [
            b.take(torch.arange(start, min(start + size, b.samples)))
            for b in self.given
            for start in range(0, b.samples, size)
        ]


def own_case(
    model: nn.Module,
    data: Iterable[Any],
    name: str,
    *,
    dead_rows: str | None = None,
    classes: bool = False,
    sizes: tuple[int, ...] = (1, 32),
) -> Case:
    """Return a case of a model and batches of its inputs.

    Args:
        model: in eval mode.
        data: batches, each a tensor, tuple or dict with the samples on the first axis.
        name: for tables and files.
        dead_rows: as `transform` takes it.
        classes: whether its outputs are class scores, so that it means something how many answers stay the same.
        sizes: samples per call.

    Raises:
        InputError: too few samples, or batches that hold none.

    Example:
        >>> own_case(model, [torch.randn(100, 64) for _ in range(4)], "mine").batch_sizes
        (1, 32)
    """
    batches = [Inputs.of(b) for b in data]
    total = sum(b.samples for b in batches)
    calibration: list[Inputs] = []
    while batches and sum(b.samples for b in calibration) < CALIBRATION * total:
        calibration.append(batches.pop(0))
    if not batches and len(calibration) == 1:  # a single batch is cut
        whole, cut = calibration[0], int(CALIBRATION * total)
        calibration, batches = [whole.take(torch.arange(cut))], [whole.take(torch.arange(cut, total))]
    test = Batches(tuple(batches))
    if len(test) < LEAST:
        raise InputError(
            f"{total} samples in {len(batches) + len(calibration)} batches leave {len(test)} to test on: give {LEAST} or more,"
            f" which is {100 * (1 - CALIBRATION):.0f} % of all, in batches of a few"
        )
    title = f"{type(model).__name__}, {sum(p.numel() for p in model.parameters()) / 1e6:.3g} M weights"
    given = [b.args[0] if len(b.args) == 1 and not b.kwargs else b.args or dict(b.kwargs) for b in calibration]
    return Case(name, title, model, given, test, classes, dead_rows=dead_rows, batch_sizes=sizes)
