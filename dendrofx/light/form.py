"""What a light form is.

A *form* is a frozen configuration, such as `LowRank(rank=32)`. Its `fit` returns the light branch: an `nn.Module` that
scripts, maps f32[N, in] to f32[N, out], and treats each row on its own. A branch may offer `observe(x)`, which returns
the same output together with f32[N, 2 * linears] of row norms, the evidence that `ResidualGate` reads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from dendrofx.block import BlockData, as_block
from dendrofx.errors import InputError


class LightForm(ABC):
    """Base of the light forms. Subclasses are frozen dataclasses: their fields are the whole configuration."""

    needs_rows: bool = False

    def fit(self, block: nn.Module, calibration: Tensor | None = None) -> nn.Module:
        """Build the light branch of a block.

        Args:
            block: an `nn.Linear`, or a chain Linear (activation Linear)* as `nn.Sequential`. It is not modified.
            calibration: f32[N, in] rows that the block sees in use; some forms need none.

        Returns:
            The branch, f32[N, in] -> f32[N, out], in eval mode and without gradients.

        Raises:
            InputError: rows are needed and missing, or do not fit the block.
        """
        return self.fit_data(BlockData(as_block(block), None if calibration is None else calibration.detach()))

    @torch.no_grad()
    def fit_data(self, data: BlockData) -> nn.Module:
        """`fit`, for a block whose statistics are shared by several forms."""
        width = data.linears[0].in_features
        if self.needs_rows and data.rows is None:
            raise InputError(f"{self} is fitted on calibration rows: pass calibration=rows, shaped (N, {width})")
        rows = data.rows
        if rows is not None and (rows.dim() != 2 or rows.size(1) != width or len(rows) == 0):
            raise InputError(f"calibration rows are shaped {tuple(rows.shape)}; {self} takes (N >= 1, {width})")
        return self.build(data).eval()

    @abstractmethod
    def build(self, data: BlockData) -> nn.Module:
        """The branch, from checked data."""
