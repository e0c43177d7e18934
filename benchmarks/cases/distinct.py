"""How much of a ranker's arithmetic its repeated rows need: counted on the model as it runs, not known beforehand.

A candidate's features are made NaN, and what becomes NaN depends on the candidate. A multiply-add of which neither operand is NaN
depends on the user alone: once per user is enough. So a Linear behind a `cat` is counted column by column, and the dot product of
two of the user's features is counted as the user's. Products that nothing reads, half of those of all pairs, are counted as if they
were needed: a graph that leaves some of them out, too, is above the limit by as much.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dendrofx.errors import InputError
from dendrofx.values.inputs import Inputs
from dendrofx.values.measure import model_macs

aten = torch.ops.aten
# By product, which of its arguments are the factors.
_FACTORS = {aten.mm.default: (0, 1), aten.bmm.default: (0, 1), aten.addmm.default: (1, 2), aten.baddbmm.default: (1, 2)}


@dataclass(frozen=True)
class Share:
    """The multiply-adds of one row.

    Attributes:
        macs: all of them.
        repeated: of these, those that depend on the repeated inputs alone.
    """

    macs: int
    repeated: int

    def limit(self, rows: int, distinct: int) -> float:
        """Return the multiply-adds of all rows over those that are left where each distinct repeated row is computed once."""
        return self.macs * rows / ((self.macs - self.repeated) * rows + self.repeated * distinct)


class _Products(TorchDispatchMode):
    """Counts the multiply-adds of products that no NaN takes part in."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.plain = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        if func in _FACTORS:
            a, b = (args[i] for i in _FACTORS[func])
            self.plain += int((a.isnan().logical_not().sum(-2) * b.isnan().logical_not().sum(-1)).sum())
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def share(model: nn.Module, sample: Mapping[str, Tensor], repeated: Collection[str]) -> Share:
    """Return the multiply-adds of one row, and how many of them depend on repeated inputs alone.

    Args:
        model: in eval mode, called with the inputs by name; products are those of two matrices.
        sample: a batch, of which types and shapes alone are used.
        repeated: names of the inputs that repeat.

    Raises:
        InputError: the model has products that are not known here.
    """
    marked = copy.deepcopy(model)
    for table in (m for m in marked.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)):
        table.weight[0] = torch.nan  # what a candidate looks up
    row = {n: _marked(v[:1], n in repeated) for n, v in sample.items()}
    with _Products() as plain:
        marked(**row)
    with _Products() as all_of_them:
        model(**{n: torch.ones_like(v) for n, v in row.items()})
    if all_of_them.plain != (macs := model_macs(model, [Inputs.of(row)])):
        raise InputError(
            f"{macs} multiply-adds a row, of which {all_of_them.plain} are of products that are known here"
        )
    return Share(all_of_them.plain, plain.plain)


def _marked(values: Tensor, repeated: bool) -> Tensor:
    """Return NaN, or row 0 of each table, for what belongs to a candidate; ones for what repeats."""
    if repeated:
        return torch.ones_like(values)
    return torch.full_like(values, torch.nan) if values.is_floating_point() else torch.zeros_like(values)


def count_rows(batches: Sequence[Inputs], repeated: Collection[str]) -> tuple[int, int]:
    """Return the rows of batches, and of these the ones of which a repeated input differs from the row before."""
    rows = distinct = 0
    for batch in batches:
        new = torch.zeros(max(batch.samples - 1, 0), dtype=torch.bool)
        for values in (v for n, v in batch.kwargs if n in repeated):
            new |= (values[1:] != values[:-1]).flatten(1).any(1)
        rows, distinct = rows + batch.samples, distinct + 1 + int(new.sum())
    return rows, distinct
