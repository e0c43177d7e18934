"""Sites on which tests fit gates: each is made once, and the same wherever it is made."""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from dendrofx.gates import GateForm, SiteRows
from dendrofx.graph.block import BlockData
from dendrofx.light import LightForm, LowRank
from dendrofx.search.choose import relative_error, scores
from tests.rungs import seeded

WIDTH = 16
RANK_3 = LowRank(3)


def site(rows: Tensor | None = None, bias: bool = True, light: LightForm = RANK_3) -> SiteRows:
    """A block of which half the directions matter, its light branch, and rows that differ in size."""
    block = nn.Sequential(nn.Linear(WIDTH, 32, bias), nn.ReLU(), nn.Linear(32, 12, bias)).eval().requires_grad_(False)
    rows = torch.randn(300, WIDTH) * torch.logspace(-1, 1, 300)[:, None] if rows is None else rows
    data = BlockData(block, rows)
    branch = light.fit_data(data)
    return SiteRows(data, branch, relative_error(data, branch))


@cache
def known_site(light: LightForm = RANK_3, seed: int = 0) -> SiteRows:
    """Return a site for tests that only read it."""
    made: SiteRows = seeded(lambda: site(light=light), seed=seed)
    return made


@cache
def known_gate(form: GateForm, light: LightForm = RANK_3, seed: int = 0) -> Any:
    """Return a gate of that site."""
    return form.fit(known_site(light, seed))


def score(form: GateForm, rows: Tensor, light: LightForm = RANK_3, seed: int = 0) -> Tensor:
    """Return what that gate gives rows, with what it reads of the light branch."""
    return scores(form, known_gate(form, light, seed), known_site(light, seed).light, rows)
