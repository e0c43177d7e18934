"""Forms of whole models: what the light or the full model of a cascade is, where it is more than one form at every site."""

from __future__ import annotations

from dataclasses import dataclass

from dendrofx.errors import InputError
from dendrofx.values.forms import Form
from dendrofx.values.numbers import is_number


@dataclass(frozen=True)
class RoutedBlocks(Form):
    """The model with routed blocks, for `light=` or `full=` at `scope="model"`.

    It is what `transform(model, max_deviation=...)` makes at block scope, fitted and calibrated on the samples that the
    cascade's own parts are fitted and searched on; those that test the budget stay unseen. Samples that keep the light output
    took each block's light branch where the block's gate let them; the others run the model again, routed or not.

    Attributes:
        max_deviation: mean relative L2 deviation of the model's output that routing its blocks may cost.

    Raises:
        InputError: `max_deviation` is no number above 0.

    Example:
        >>> dendrofx.transform(model, calibration=batches, budget=budget, scope="model", light=dendrofx.RoutedBlocks(0.05))
    """

    max_deviation: float

    def __post_init__(self) -> None:
        value = self.max_deviation
        if not is_number(value) or value <= 0:
            raise InputError(f"max_deviation must be a number above 0, got {value!r}; 0.05 is five percent")
