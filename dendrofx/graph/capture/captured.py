"""What is known of a captured graph: how it was captured, and what its model was."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import fx, nn

from dendrofx.errors import InputError
from dendrofx.values.drop_in import Original
from dendrofx.values.guards import SizeError
from dendrofx.values.inputs import Inputs
from dendrofx.values.meta import CALL, CAPTURE, ORIGINAL


@dataclass(frozen=True)
class Captured:
    """How a module was captured.

    Attributes:
        way: "symbolic", "export" or "trace".
        difference: largest difference from the model in the runs that verified it, relative to the largest output; None where
            nothing was run.
        reason: why it is not zero.
        failed: why the ways before it were not taken.
        fixed: lines of the model that turn a tensor into a Python value, which a trace fixes. The graph agreed with the model
            in every run that verified it, other values of the inputs included.
        guards: sizes that it holds for alone and its model does not; calls of others are refused.
        notes: what else was done to the model: hooks left out, a wrapper taken off.
    """

    way: str
    difference: float | None = 0.0
    reason: str = ""
    failed: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    guards: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.difference is None:
            equal = "not compared with the model: no inputs were given"
        elif self.difference == 0:
            equal = "equal to the model bit for bit"
        else:
            equal = f"equal to the model to {self.difference:.1e} ({self.reason})"
        parts = [f"captured by {self.way}, {equal}"]
        parts += [f"only for {', '.join(self.guards)}"] if self.guards else []
        parts += [f"fixed as on the example: {', '.join(self.fixed)}"] if self.fixed else []
        return "; ".join([*parts, *self.notes])


def check_sizes(captured: fx.GraphModule, batch: Inputs, number: int) -> None:
    """Raise `InputError` for a calibration batch of sizes that the graph does not hold for."""
    try:
        captured.meta[CALL].check(dict(batch.kwargs))
    except SizeError as error:
        raise InputError(f"calibration batch {number} {batch}: {error}") from error


def remember(captured: fx.GraphModule, model: nn.Module, wrapper: str) -> None:
    """Leave on a graph what is to be known of the original: its attributes, and what it was wrapped in."""
    captured.meta[ORIGINAL] = Original(model)
    if wrapper:
        found: Captured = captured.meta[CAPTURE]
        captured.meta[CAPTURE] = replace(found, notes=(*found.notes, f"{wrapper} taken off"))
