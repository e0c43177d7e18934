"""Dead rows: padding that a mask marks as such needs no arithmetic.

    transform(model, dead_rows="attention_mask", ...)     rows are live where the mask is not zero
    transform(model, dead_rows="~src_key_padding_mask")   ... where it is zero

The captured graph is analysed (`rows/analysis.py`), its row-wise regions are rewritten to run on live rows (passes FuseAttention,
MarkRows, DropDeadRows, MergeLinears), and the *mask contract* is verified before the result is trusted:

    What a dead row holds must reach no output that the caller reads.

Dead positions of row-shaped outputs become zero. A sample without any live row is computed as the original computes it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from dendrofx.capture.check import variants
from dendrofx.errors import InputError
from dendrofx.inputs import Inputs
from dendrofx.outputs import flatten
from dendrofx.passes import DropDeadRows, FuseAttention, MarkRows, MergeLinears, run_passes
from dendrofx.rows.analysis import RowAnalysis
from dendrofx.rows.layout import SAMPLES, TOKENS
from dendrofx.rows.live import attend_rows, put_rows, take_rows
from dendrofx.show import LIVE

# Live rows are summed in other orders and other row counts: what may move, relative to the largest value of an output.
ROUNDING = 1e-5


@dataclass(frozen=True)
class DeadRows:
    """What was rewritten for live rows.

    Attributes:
        mask: as the caller named it.
        linears: calls of Linears that run on live rows, and all of them.
        attentions: calls of attention that attend on live rows, and all of them.
        crossings: values that are gathered, and values that are scattered.
        difference: largest difference of an output from the captured graph's on live rows, relative to its largest value.
        live: share of rows that are live in the calibration batches, None without data.
    """

    mask: str
    linears: tuple[int, int]
    attentions: tuple[int, int]
    crossings: tuple[int, int]
    difference: float
    live: float | None = None

    def __str__(self) -> str:
        share = "" if self.live is None else f"; {100 * self.live:.0f} % of the calibration rows are live"
        return (
            f"live rows of {self.mask}: {self.linears[0]} of {self.linears[1]} Linears, {self.attentions[0]} of"
            f" {self.attentions[1]} attentions, {self.crossings[0]} values gathered, {self.crossings[1]} scattered; outputs"
            f" equal to {self.difference:.1e}{share}"
        )


def drop_dead_rows(captured: fx.GraphModule, dead_rows: str, example: Inputs) -> tuple[fx.GraphModule, DeadRows]:
    """A new graph module that runs row-wise regions on live rows.

    Args:
        captured: with symbolic shapes; left unchanged.
        dead_rows: the mask's name, after `~` where it marks the dead rows.
        example: inputs that the mask contract is verified on.

    Raises:
        InputError: no such input, or the contract does not hold: names the output that moved.
        PassError: the row analysis was wrong, which it must not be.
    """
    name, inverted = dead_rows.removeprefix("~"), dead_rows.startswith("~")
    _check_mask(captured, name, example)
    gm = fx.GraphModule(captured, copy.deepcopy(captured.graph))
    gm.meta.update(captured.meta)
    run_passes(gm, [FuseAttention(), MarkRows()])
    analysis = RowAnalysis(gm)
    analysis.check(example)
    check_contract(gm, analysis, dead_rows, example)
    run_passes(gm, [DropDeadRows(name, inverted), MergeLinears()])
    gm = fx.GraphModule(gm, gm.graph)
    gm.meta.update(captured.meta)
    gm.eval()
    difference = _compare(captured, gm, dead_rows, example)
    return gm, _report(gm, dead_rows, difference)


def live_mask(mask: Tensor, inverted: bool) -> Tensor:
    """bool[batch, tokens], as `live_rows` reads a mask; samples without a live row count as all live."""
    alive = mask.eq(0) if inverted else mask.ne(0)
    return alive | ~alive.any(1, keepdim=True)


def _check_mask(captured: fx.GraphModule, name: str, example: Inputs) -> None:
    given = dict(example.kwargs)
    if name not in given:
        raise InputError(f"dead_rows={name!r} is no tensor input of the model: it has {', '.join(given)}")
    mask = given[name]
    if mask.dim() != 2:
        raise InputError(f"dead_rows: '{name}' is shaped {tuple(mask.shape)}; a mask of rows is [batch, tokens]")


def check_contract(gm: fx.GraphModule, analysis: RowAnalysis, dead_rows: str, example: Inputs) -> None:
    """Change what dead rows hold, in every input with rows, and compare the outputs.

    Raises:
        InputError: an output moved; names it.
    """
    moved = _moved(gm, analysis, dead_rows, example)
    if not moved:
        return
    other = dead_rows.removeprefix("~") if dead_rows.startswith("~") else f"~{dead_rows}"
    hint = (
        f". It holds for the inverted mask: pass dead_rows={other!r}"
        if not _moved(gm, analysis, other, example)
        else ". The model lets padding reach its outputs (a pooling over all tokens, say): transform the part before that"
    )
    raise InputError(
        f"dead_rows={dead_rows!r}: the mask contract does not hold. When dead rows of the inputs change, {' and '.join(moved)}{hint}"
    )


def _moved(gm: fx.GraphModule, analysis: RowAnalysis, dead_rows: str, example: Inputs) -> list[str]:
    name, inverted = dead_rows.removeprefix("~"), dead_rows.startswith("~")
    generator = torch.Generator().manual_seed(0)
    layouts = {str(n.target): analysis.layout(n) for n in gm.graph.nodes if n.op == "placeholder"}
    worst: dict[str, float] = {}
    for inputs in masked_variants(example, name, inverted):
        mask = dict(inputs.kwargs)[name]
        alive = live_mask(mask, inverted)
        changed = {}
        for key, value in inputs.kwargs:
            rows = layouts[key].startswith(SAMPLES + TOKENS) and key != name
            changed[key] = _with_other_dead_rows(value, alive, generator) if rows else value
        before, after = inputs.call(gm), Inputs((), tuple(changed.items())).call(gm)
        for output, far in _differences(gm, before, after, alive).items():
            worst[output] = max(worst.get(output, 0.0), far)
    return [f"output '{k}' moves by {v:.2g} of its largest value" for k, v in worst.items() if not v <= ROUNDING]


def masked_variants(example: Inputs, name: str, inverted: bool) -> Iterator[Inputs]:
    """The example and its variants, and the example with padding on the right of every sample but the first."""
    for _, inputs in variants(example):
        yield inputs
    mask = dict(example.kwargs)[name]
    length = mask.size(1)
    ends = length - torch.arange(mask.size(0)) % max(length - 1, 1)
    alive = torch.arange(length) < ends[:, None]
    padded = (~alive if inverted else alive).to(mask.dtype)
    yield Inputs((), tuple((k, padded if k == name else v) for k, v in example.kwargs))


def _with_other_dead_rows(x: Tensor, alive: Tensor, generator: torch.Generator) -> Tensor:
    """Dead rows replaced: integers by those of random rows, which are valid, floats by noise."""
    flat, dead = x.flatten(0, 1).clone(), ~alive.reshape(-1)
    if x.is_floating_point():
        noise = torch.randn(flat.shape, generator=generator, dtype=x.dtype) * (3 * float(x.std(correction=0)) + 1)
        flat[dead] = noise[dead]
    else:
        flat[dead] = flat[torch.randint(len(flat), (int(dead.sum()),), generator=generator)]
    return flat.view_as(x)


def _differences(gm: fx.GraphModule, before: object, after: object, alive: Tensor) -> dict[str, float]:
    """By output, how far what the caller reads of it is apart: live positions of row-shaped outputs, and all of the others."""
    found = {}
    first, form = flatten(before)
    for name, a, b in zip(form.names, first, flatten(after)[0], strict=True):
        if not a.is_floating_point():
            continue
        if a.dim() >= 2 and a.shape[:2] == alive.shape:
            a, b = a[alive], b[alive]
        scale = max(float(a.double().nan_to_num().abs().max()) if a.numel() else 0.0, 1e-30)
        far = (a.double() - b.double()).abs()
        far = torch.where(a.isnan() & b.isnan(), 0.0, far).nan_to_num(nan=torch.inf)
        found[name] = float(far.max()) / scale if far.numel() else 0.0
    return found


def _compare(captured: fx.GraphModule, gm: fx.GraphModule, dead_rows: str, example: Inputs) -> float:
    name, inverted = dead_rows.removeprefix("~"), dead_rows.startswith("~")
    worst = 0.0
    for inputs in masked_variants(example, name, inverted):
        alive = live_mask(dict(inputs.kwargs)[name], inverted)
        far = _differences(gm, inputs.call(captured), inputs.call(gm), alive)
        for output, value in far.items():
            if not value <= ROUNDING:
                raise InputError(
                    f"dead_rows={dead_rows!r}: on live rows, output '{output}' is {value:.2g} of its largest value away from the"
                    f" model's on {inputs}: what padding holds reaches it. Transform the part of the model before that"
                )
        worst = max([worst, *far.values()])
    return worst


def _report(gm: fx.GraphModule, dead_rows: str, difference: float) -> DeadRows:
    nodes = list(gm.graph.nodes)
    calls = [n for n in nodes if n.op == "call_module" or n.target is torch.ops.aten.linear]
    padded = sum(n.target is torch.ops.aten.scaled_dot_product_attention for n in nodes)
    live = sum(n.target is attend_rows for n in nodes)
    crossings = (sum(n.target is take_rows for n in nodes), sum(n.target is put_rows for n in nodes))
    return DeadRows(
        dead_rows, (sum(LIVE in n.meta for n in calls), len(calls)), (live, live + padded), crossings, difference
    )


__all__ = ["DeadRows", "drop_dead_rows", "live_mask"]
