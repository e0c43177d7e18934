"""What a light form is.

A *form* is a frozen configuration, such as `LowRank(rank=32)` or `Int8()`. Its `fit` returns the light branch: an `nn.Module`
that scripts, maps f32[N, in] to f32[N, out], and treats each row on its own. A branch may be an `ObservedChain`: its
`observe(x)` returns the same output together with row norms, the evidence that some gates read.

A `Precision` is a form that changes how each Linear is computed and nothing else; the structural forms (`LowRank`, `Pruned`)
take one as their `precision`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from dendrofx.errors import InputError
from dendrofx.graph.block import BlockData, as_block
from dendrofx.runtime.branches import observed_chain
from dendrofx.values.forms import Form


class LightForm(Form, ABC):
    """Base of the light forms. Subclasses are frozen dataclasses: their fields are the whole configuration.

    Example:
        >>> light: dendrofx.LightForm = dendrofx.LowRank(rank=4)
        >>> routed = dendrofx.transform(model, calibration=batches, light=light)
    """

    needs_rows: bool = False
    exact: bool = False  # it computes the block itself, to the order of summation
    json_words = "a light form"

    def fit(self, block: nn.Module, calibration: Tensor | None = None) -> nn.Module:
        """Build the light branch of a block.

        Args:
            block: an `nn.Linear`, or a chain Linear (activation Linear)* as `nn.Sequential`. It is not modified.
            calibration: f32[N, in] rows that the block sees in use; some forms need none.

        Returns:
            The branch, f32[N, in] -> f32[N, out], in eval mode and without gradients.

        Raises:
            InputError: rows are needed and missing, or do not fit the block; or this CPU lacks what the form needs.
        """
        return self.fit_data(BlockData(as_block(block), None if calibration is None else calibration.detach()))

    @torch.no_grad()
    def fit_data(self, data: BlockData) -> nn.Module:
        """Build the light branch of a block whose statistics are shared by several forms; see `fit`."""
        self.check_machine()
        width = data.linears[0].in_features
        if self.needs_rows and data.rows is None:
            raise InputError(f"{self} is fitted on calibration rows: pass calibration=rows, shaped (N, {width})")
        rows = data.rows
        if rows is not None and (rows.dim() != 2 or rows.size(1) != width or len(rows) == 0):
            raise InputError(f"calibration rows are shaped {tuple(rows.shape)}; {self} takes (N >= 1, {width})")
        if rows is not None and not bool(rows.isfinite().all()):
            raise InputError(f"calibration rows hold values that are NaN or infinite: drop those rows to fit {self}")
        return self.build(data).eval()

    def check_machine(self) -> None:
        """Refuse a CPU on which the form, or the precision it takes, is wrong or emulated, by `InputError`."""
        precision = getattr(self, "precision", None)
        if precision is not None:
            precision.check_machine()

    @abstractmethod
    def build(self, data: BlockData) -> nn.Module:
        """Build the branch from checked data."""


class Precision(LightForm):
    """A form that computes every Linear of the block, whole, in another way.

    Example:
        >>> dendrofx.Pruned(energy=0.99, precision=dendrofx.Int8(weight_bits=7))
    """

    json_words = "a precision"
    bits = 32  # of an operand

    @abstractmethod
    def linear(self, weight: Tensor, bias: Tensor | None, rows: Tensor | None) -> nn.Module:
        """Build one Linear.

        Args:
            weight: f32[out, in].
            bias: f32[out] or None.
            rows: f32[N, in], what it takes in on the fitting rows; None without data.
        """

    def noise(self, weight: Tensor, rows: Tensor, share: Tensor) -> Tensor:
        """Return f32[out], the mean square of each output's rounding error, from a model of rounding; nothing is fitted.

        Args:
            weight: f32[out, in].
            rows: f32[N, in], what the Linear takes in.
            share: f32[N], the rows' weights in the mean; they are summed, not averaged.
        """
        return weight.new_zeros(len(weight))

    def build(self, data: BlockData) -> nn.Module:
        """Build every Linear of the block; see `LightForm.fit`."""
        inputs = data.inputs if data.rows is not None else [None] * len(data.linears)
        layers = [self.linear(*_parameters(linear), rows) for linear, rows in zip(data.linears, inputs, strict=True)]
        return observed_chain(layers, data.activations)


def check_precision(precision: object) -> None:
    """Refuse what is no precision, by `InputError`."""
    if not (precision is None or isinstance(precision, Precision)):
        raise InputError(f"precision must be Int8() or BFloat16(), got {precision!r}")


def cast_linear(precision: Precision | None, dense: nn.Module, rows: Tensor | None) -> nn.Module:
    """Return a `DenseLinear` in another precision; unchanged without one."""
    if precision is None:
        return dense
    bias = getattr(dense, "bias", None)
    return precision.linear(dense.get_buffer("weight"), bias, rows)


def _parameters(linear: nn.Linear) -> tuple[Tensor, Tensor | None]:
    return linear.weight.detach(), None if linear.bias is None else linear.bias.detach()
