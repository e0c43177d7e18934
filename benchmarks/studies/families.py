"""The case `hf`: what becomes of whole families of transformers, built from their configurations.

Their weights are random: the table is about structure (how a model was captured, what runs on live rows, and whether the scripted
result equals the original), and has no figure of speed or deviation to quote.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import torch
from tabulate import tabulate
from torch import nn

import dendrofx
from benchmarks.models import hf
from benchmarks.models.packages import require
from dendrofx.errors import DendrofxError
from dendrofx.plan.text import wrapped
from dendrofx.values.inputs import Inputs
from dendrofx.values.outputs import flatten

TITLE = "transformers from configurations, random weights: structure only"
SHAPES = ((5, 19), (1, 7))  # samples, tokens: neither is what the model was captured on
QUICK = ("bert-sdpa", "transformer-encoder")


@dataclass(frozen=True)
class FamilyRecord:
    """One model, transformed for padding on one side.

    Attributes:
        name: family and attention.
        side: of the padding, "right" or "left"; "none" for a model without a mask.
        captured: how.
        live: what runs on live rows; why not, where nothing does.
        sites: sites that could be routed.
        difference: the largest of the scripted result from the original on live positions, over the original's largest value.
    """

    name: str
    side: str
    captured: str
    live: str
    sites: int
    difference: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"case": "hf", **asdict(self)}


def run_families(quick: bool) -> list[FamilyRecord]:
    """Every family, with both of its attentions and padding on both sides."""
    require("hf")
    records = []
    for name, build in hf.families().items():
        if not quick or name in QUICK:
            model = build()
            records += [_run(name, model, side) for side in (hf.SIDES if _mask(name) else hf.SIDES[:1])]
    return records


def _mask(name: str) -> str | None:
    return next((k for k in hf.example_inputs(name, 2, 4) if "mask" in k), None)


@torch.no_grad()
def _run(name: str, model: nn.Module, side: hf.Side) -> FamilyRecord:
    example, mask = hf.example_inputs(name, 3, 11, side), _mask(name)
    dead_rows = None if mask is None else f"~{mask}" if mask.startswith("src") else mask
    options: dict[str, Any] = {"budget": 0, "options": dendrofx.Options(decide=False)}
    live = "takes no mask"
    try:
        module = dendrofx.transform(model, example, dead_rows=dead_rows, **options)
    except DendrofxError as error:
        live = str(error)
        module = dendrofx.transform(model, example, **options)
    if module.plan.dead_rows is not None:
        live = module.plan.dead_rows.reason
    scripted = dendrofx.script(module)
    batches = [hf.example_inputs(name, *shape, side) for shape in SHAPES]
    worst = max(_difference(model, scripted, batch, mask) for batch in batches)
    sites = sum(s.shape != "" for s in module.plan.sites)
    return FamilyRecord(name, "none" if mask is None else side, module.plan.capture, live, sites, worst)


def _difference(model: nn.Module, scripted: nn.Module, batch: dict[str, torch.Tensor], mask: str | None) -> float:
    inputs = Inputs.of(batch)
    worst = 0.0
    for wanted, got in zip(flatten(inputs.call(model))[0], flatten(inputs.call(scripted))[0], strict=True):
        if mask is not None and wanted.shape[:2] == batch[mask].shape:
            alive = batch[mask] == 0 if mask.startswith("src") else batch[mask] != 0
            wanted, got = wanted[alive], got[alive]
        worst = max(worst, float((wanted - got).abs().max() / wanted.abs().max()))
    return worst


def family_table(records: Sequence[FamilyRecord]) -> str:
    """A line per model and side, and below it how they were captured and what runs on live rows."""
    rows = [[r.name, r.side, r.sites, f"{r.difference:.1e}" if r.difference else "0"] for r in records]
    headers = ["model", "padding", "sites", "scripted differs by"]
    table = tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=True)
    words: dict[str, list[str]] = {}
    for r in records:
        words.setdefault(f"{r.captured}; {r.live}", []).append(f"{r.name} ({r.side})")
    notes = [wrapped(f"{', '.join(names)}: {text}") for text, names in words.items()]
    return "\n".join([table, "", *chain.from_iterable(notes)])
