"""Dead rows: padding that a mask marks as such needs no arithmetic.

    transform(model, dead_rows="attention_mask", ...)     rows are live where the mask is not zero
    transform(model, dead_rows="~src_key_padding_mask")   ... where it is zero

The captured graph is analysed (`rows/analysis.py`), its row-wise regions are rewritten to run on live rows (passes SplitAxes,
FuseAttention, MarkRows, DropDeadRows, MergeLinears), and the mask contract (`rows/mask_check.py`) is verified before the result is
trusted.

Dead positions of row-shaped outputs become zero. A sample without any live row is computed as the original computes it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import fx

from dendrofx.errors import InputError
from dendrofx.graph.shapes import shape
from dendrofx.machine.cores import on_free_cores
from dendrofx.passes import DropDeadRows, FuseAttention, MarkRows, MergeLinears, SplitAxes, run_passes
from dendrofx.rewriting.fresh import fresh
from dendrofx.rows.analysis import RowAnalysis
from dendrofx.rows.mask_check import ANY, MaskCheck, fits, live_mask, mask_of
from dendrofx.runtime.attention import attend_rows
from dendrofx.runtime.live import pad_rows, unpad_rows
from dendrofx.values.inputs import Inputs
from dendrofx.values.meta import LIVE

# Samples of the example that the contract is verified on: what holds for few holds for many, and large batches take long.
FEW_SAMPLES = 4


@dataclass(frozen=True)
class DeadRows:
    """What was rewritten for live rows.

    Attributes:
        mask: as the caller named it.
        linears: calls of Linears that run on live rows, and all of them.
        attentions: calls of attention that attend on live rows, and all of them.
        crossings: values that are gathered, and values that are scattered.
        side: of the padding for which the mask contract holds: "any", "right" or "left"; calls with another mask raise.
        difference: largest difference of an output from the captured graph's on live rows, relative to its largest value.
    """

    mask: str
    linears: tuple[int, int]
    attentions: tuple[int, int]
    crossings: tuple[int, int]
    side: str
    difference: float

    def takes(self, batches: Iterable[Inputs]) -> bool:
        """Tell whether the padding of all of them is where the contract holds."""
        name, inverted = mask_of(self.mask)
        return all(fits(live_mask(dict(b.kwargs)[name], inverted), self.side) for b in batches)

    def describe(self, live: float | None = None) -> str:
        """Say what was rewritten in words.

        Args:
            live: share of rows that are live in the caller's data, if known.
        """
        only = "" if self.side == ANY else f"; for padding on the {self.side} only: calls with another mask raise"
        share = "" if live is None else f"; {100 * live:.0f} % of the calibration rows are live"
        return (
            f"{self.linears[0]} of {self.linears[1]} Linears and {self.attentions[0]} of {self.attentions[1]} attentions run"
            f" on live rows, {self.crossings[0]} values are gathered and {self.crossings[1]} scattered; outputs equal to"
            f" {self.difference:.1e}{only}{share}"
        )


@on_free_cores()
def drop_dead_rows(captured: fx.GraphModule, dead_rows: str, example: Inputs) -> tuple[fx.GraphModule, DeadRows]:
    """Make a new graph module that runs row-wise regions on live rows.

    Args:
        captured: with symbolic shapes; left unchanged.
        dead_rows: the mask's name, after `~` where it marks the dead rows.
        example: inputs that the mask contract is verified on, as the graph takes them.

    Raises:
        InputError: no such input, or the contract does not hold: names the output that moved.
        PassError: the row analysis was wrong, which it must not be.
    """
    name, inverted = mask_of(dead_rows)
    _check_mask(captured, name, example)
    few = example.take(torch.arange(min(example.samples, FEW_SAMPLES)))
    gm = fresh(captured)
    run_passes(gm, [SplitAxes(), FuseAttention(), MarkRows(name)])
    analysis = RowAnalysis(gm, name)
    analysis.check(few)
    check = MaskCheck(dead_rows, few, captured, analysis.inputs())
    side = check.check()
    run_passes(gm, [DropDeadRows(name, inverted, side), MergeLinears()])
    gm = fresh(gm)
    return gm, _report(gm, dead_rows, side, check.compare(gm, side))


def _check_mask(captured: fx.GraphModule, name: str, example: Inputs) -> None:
    given = dict(example.kwargs)
    if name not in given:
        raise InputError(f"dead_rows={name!r} is no tensor input of the model: it has {', '.join(given)}")
    mask = given[name]
    if mask.dim() != 2:
        raise InputError(f"dead_rows: '{name}' is shaped {tuple(mask.shape)}; a mask of rows is [batch, tokens]")
    if len(set(shape(next(n for n in captured.graph.nodes if n.target == name)))) < 2:
        raise InputError(
            f"dead_rows: both axes of '{name}' count the same, {list(mask.shape)}: a mask of rows is [batch, tokens], not"
            " [tokens, tokens]"
        )
    others = [t for k, t in given.items() if k != name and t.dim() > 1]
    if others and not any(t.shape[:2] == mask.shape for t in others):
        sizes = " and ".join(str(list(t.shape)) for t in others)
        raise InputError(
            f"dead_rows: '{name}' is shaped {list(mask.shape)}, the other inputs {sizes}: a mask of rows is [batch, tokens]"
        )


def _report(gm: fx.GraphModule, dead_rows: str, side: str, difference: float) -> DeadRows:
    nodes = list(gm.graph.nodes)
    calls = [n for n in nodes if n.op == "call_module" or n.target is torch.ops.aten.linear]
    padded = sum(n.target is torch.ops.aten.scaled_dot_product_attention for n in nodes)
    live = sum(n.target is attend_rows for n in nodes)
    crossings = (sum(n.target is unpad_rows for n in nodes), sum(n.target is pad_rows for n in nodes))
    return DeadRows(
        dead_rows, (sum(LIVE in n.meta for n in calls), len(calls)), (live, live + padded), crossings, side, difference
    )


__all__ = ["DeadRows", "drop_dead_rows"]
