"""An experiment on row verdicts: other rows are replaced and samples permuted, and a row's output must not move."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from dendrofx.errors import PassError
from dendrofx.rows.layout import SAMPLES, TOKENS, has_rows
from dendrofx.rows.rules import is_getitem
from dendrofx.values.numerics import rounding


class NumericalCheck(fx.Interpreter):
    """Runs a graph; every row-wise node once more with half of the rows replaced, and with its samples permuted.

    Args:
        gm: the graph.
        layouts: of every node.
        row_wise: the verdicts on trial.
        seed: of the rows that are replaced, and of the permutation.

    Raises:
        PassError: a row's output moved when others changed, or did not follow its sample; names the node.
    """

    def __init__(
        self, gm: fx.GraphModule, layouts: Mapping[fx.Node, str], row_wise: Callable[[fx.Node], bool], seed: int
    ) -> None:
        super().__init__(gm)
        self.extra_traceback = False  # the node is named in the message
        self.layouts, self.row_wise = layouts, row_wise
        self.generator = torch.Generator().manual_seed(seed)

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401
        """Run a node, and its experiments."""
        value = super().run_node(n)
        if self.row_wise(n) and not is_getitem(n):
            rowed = [i for i in n.all_input_nodes if has_rows(self.layouts[i])]
            if rowed:
                samples, tokens = (self.env[rowed[0]].size(axis) for axis in row_axes(self.layouts[rowed[0]]))
                self._replace_rows(n, _several(value), samples * tokens)
                self._permute_samples(n, _several(value), samples, tokens)
        return value

    def _replace_rows(self, n: fx.Node, values: list[Tensor], count: int) -> None:
        kept = torch.rand(count, generator=self.generator) < 0.5
        others = torch.randint(count, (count,), generator=self.generator)
        moved = self._run_from(n, torch.where(kept, torch.arange(count), others))
        self._compare(n, [(a[kept], b[kept]) for a, b in self._rows(n, values, moved)], "reads other rows")

    def _permute_samples(self, n: fx.Node, values: list[Tensor], samples: int, tokens: int) -> None:
        order = torch.randperm(samples, generator=self.generator)
        source = (order[:, None] * tokens + torch.arange(tokens)).reshape(-1)
        moved = self._run_from(n, source)
        pairs = [(a[source], b) for a, b in self._rows(n, values, moved)]
        self._compare(n, pairs, "depends on a sample's place in the batch")

    def _run_from(self, n: fx.Node, source: Tensor) -> list[Tensor]:
        """Return a node's tensors when row i of its inputs is their row `source[i]`."""
        env = dict(self.env)
        for i in n.all_input_nodes:
            if has_rows(self.layouts[i]) and isinstance(env[i], Tensor):
                self.env[i] = from_rows(as_rows(env[i], self.layouts[i])[source], env[i], self.layouts[i])
        moved = super().run_node(n)
        self.env = env
        return _several(moved)

    def _rows(self, n: fx.Node, a: list[Tensor], b: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        layout = self.layouts[n]
        return [(as_rows(x, layout), as_rows(y, layout)) for x, y in zip(a, b, strict=True)]

    def _compare(self, n: fx.Node, pairs: list[tuple[Tensor, Tensor]], claim: str) -> None:
        if not all(_close(a, b) for a, b in pairs):
            raise PassError(f"%{n.name} was taken for row-wise, but {claim}: {self.layouts[n]}")


def _several(value: Any) -> list[Tensor]:  # noqa: ANN401
    return [value] if isinstance(value, Tensor) else list(value)


def _close(a: Tensor, b: Tensor) -> bool:
    """Tell whether two values are equal up to rounding (sums of a row may take another order), the same where not finite."""
    allowed = rounding(a.dtype)
    a, b = a.double(), b.double()
    scale = float(a.nan_to_num(0, 0, 0).abs().max()) if a.numel() else 0.0
    return torch.allclose(a, b, rtol=0, atol=allowed * scale, equal_nan=True)


def row_axes(layout: str) -> tuple[int, int]:
    """Return the axes that count samples and tokens."""
    return layout.index(SAMPLES), layout.index(TOKENS)


def as_rows(x: Tensor, layout: str) -> Tensor:
    """Return a value as [rows, features ...]."""
    rows: Tensor = x.movedim(row_axes(layout), (0, 1)).flatten(0, 1)
    return rows


def from_rows(rows: Tensor, like: Tensor, layout: str) -> Tensor:
    """Undo `as_rows`."""
    axes = row_axes(layout)
    x: Tensor = rows.unflatten(0, [like.size(axis) for axis in axes]).movedim((0, 1), axes)
    return x.contiguous()
