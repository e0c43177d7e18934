"""A routed site without branches; the functions and leaves of `runtime/routing.py` and `runtime/leaves.py`."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dendrofx.branchless.checked import checked
from dendrofx.runtime import leaves
from dendrofx.runtime.route_counts import near_rows
from dendrofx.runtime.routing import Split, check_dtype
from dendrofx.runtime.scores import LightRows

# Share of hard rows from which light runs on the easy rows alone: below this one it always does, above it never.
MOSTLY = 0.5


def split_rows(score: Tensor, tolerance: Tensor, easy_only_from: float) -> Split:
    """Split rows by `~(score < tolerance)`; see `runtime.routing.split_rows`, whose `easy_only` is decided here once for all calls.

    Where the light branch is cheap beside moving its rows, it runs on all of them.
    """
    easy = score < tolerance
    hard = easy.logical_not().nonzero().squeeze(1)
    easy_only = easy_only_from < MOSTLY
    found = easy.nonzero().squeeze(1) if easy_only else hard
    return Split(hard, found, score.size(0), hard.size(0), easy_only)


def require(holds: Any, message: str) -> None:  # noqa: ANN401  (a bool, or a symbol of one)
    """Raise unless a guard over sizes holds."""
    torch._check(holds, lambda: message)


class LightAfterGate(leaves.LightAfterGate):
    """Runs the light branch on the easy rows, or on all."""

    def forward(self, x: Tensor, split: Split) -> LightRows:
        """Map f32[N, in] to f32[N or easy rows, out]; no evidence."""
        out = self.light(x.index_select(0, split.easy) if split.easy_only else x)
        return LightRows(out, out)


class FullOnHardRows(leaves.FullOnHardRows):
    """Runs the full branch on the hard rows, of which there may be none."""

    def forward(self, x: Tensor, light: LightRows, split: Split) -> Tensor:
        """Map f32[N, in] to f32[N, out]."""
        hard = self.full(x.index_select(0, split.hard))
        check_dtype(hard, x)
        out = light.out
        if split.easy_only:
            out = x.new_zeros([split.rows, hard.size(1)]).index_copy(0, split.easy, out)
        return out.index_copy(0, split.hard, hard)


class LightOnly(leaves.LightOnly):
    """Runs the light branch on every row of a site without gate and full branch, and asserts that none asks for them."""

    def forward(self, x: Tensor, tolerance: Tensor) -> Tensor:
        """Map f32[N, in] to f32[N, out]."""
        out: Tensor = self.light(x)
        if not self.watched:
            return out
        finite = x.isfinite().all().logical_and(tolerance > 0)
        message = f"a row is not finite, and site '{self.site}' has no full branch to run it on: transform without gate='optional'"
        return checked(out, finite, message)


def count_split(split: Split, score: Tensor, tolerance: Tensor, margin: float) -> Tensor:
    """Count what a site did in one call, f64[4]: rows, hard rows, those whose route may differ elsewhere, and the largest score.

    That in millionths, see `runtime.route_counts.millionths`.
    """
    finite = score.nan_to_num(0.0, 0.0, 0.0).to(torch.float64).clamp_min(0.0)
    most = finite.new_full([1], 1e6) * 1e6 - 0.5  # as one number ONNX would round it to a float32
    finite = finite.minimum(most) * 1e6
    near = near_rows(score, tolerance, margin)
    counts = [torch.ones_like(finite).sum(), (score < tolerance).logical_not().sum(), near.sum()]
    largest = torch.cat([finite.new_zeros(1), finite]).amax(0)
    return torch.stack([*(c.to(torch.float64) for c in counts), largest])


def count_ungated(x: Tensor) -> Tensor:
    """Count the rows of a site without gate, f64[4]; see `count_split`."""
    return F.pad(torch.ones(x.size(0), dtype=torch.float64).sum().reshape(1), [0, 3])
