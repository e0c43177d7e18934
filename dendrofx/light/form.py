"""What a light form is.

A *form* is a frozen configuration, such as `LowRank(rank=32)`. Its `fit` returns the light branch: an `nn.Module` that
scripts, maps f32[N, in] to f32[N, out], and treats each row on its own. A branch may offer `observe(x)`, which returns
the same output together with f32[N, 2 * linears] of row norms, the evidence that `ResidualGate` reads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from dendrofx.errors import InputError


class LightForm(ABC):
    """Base of the light forms. Subclasses are frozen dataclasses: their fields are the whole configuration."""

    needs_rows: bool = False

    @abstractmethod
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

    def required_rows(self, calibration: Tensor | None, width: int) -> Tensor:
        """The calibration rows, checked against the block's input width."""
        if calibration is None:
            raise InputError(f"{self} is fitted on calibration rows: pass calibration=rows, shaped (N, {width})")
        if calibration.dim() != 2 or calibration.size(1) != width or len(calibration) == 0:
            raise InputError(f"calibration rows are shaped {tuple(calibration.shape)}; {self} takes (N >= 1, {width})")
        return calibration.detach()
