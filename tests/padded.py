"""A small model of padded rows, its inputs, and what tests of `transform(dead_rows=...)` do with it."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from dendrofx import Plan
from tests.asked import asked
from tests.check import OTHER_GEMM
from tests.models import compressible
from tests.recorded import LOW, Recorded

WIDTH = 64
EXACT: dict[str, Any] = {"budget": 0, "decide": False}
MLP, HEAD = "mlp.0..2", "head"  # the sites of `Rows`
HARD = [9, 2, 1, 0, 5]  # lengths of samples, one without live rows
OPTIONS: dict[str, Any] = {"dead_rows": "mask", "batch_sizes": [8], "light": LOW}


class Rows(nn.Module):
    """x f32[batch, tokens, 64] -> f32[batch, tokens, 4], each row by itself; the mask is taken and not read."""

    def __init__(self, noise: float = 1e-3) -> None:
        super().__init__()
        self.norm, self.mlp = nn.LayerNorm(WIDTH), compressible(WIDTH, 256, WIDTH, noise=noise)
        self.head = nn.Linear(WIDTH, 4)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.head(x + self.mlp(self.norm(x)))  # type: ignore[no-any-return]


class First(Rows):
    """What a pooler reads: its rows, and the first of them."""

    def forward(self, x: Tensor, mask: Tensor) -> Any:
        rows = super().forward(x, mask)
        return rows, rows[:, 0]


class Placed(Rows):
    """Positions count live rows: before the first there is none, and the table is read at -1."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Embedding(9, WIDTH)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return super().forward(x + self.places(mask.long().cumsum(1) - 1), mask)


class Graph(Rows):
    """Rows are joined by an adjacency, [batch, tokens, tokens]."""

    def forward(self, x: Tensor, adjacency: Tensor, mask: Tensor) -> Tensor:
        live = (mask != 0).float()
        return super().forward(torch.bmm(adjacency * live[:, None], x + self.mlp(x)), mask) * live[..., None]


class Attends(nn.Module):
    """Attention spelled out; what hides padding is added, or filled in."""

    def __init__(self, fills: bool = False) -> None:
        super().__init__()
        self.fills = fills
        self.q, self.k, self.v = (nn.Linear(32, 32) for _ in range(3))

    def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (2, 16)).transpose(1, 2) for f in (self.q, self.k, self.v))
        scores, mask = q @ k.transpose(-1, -2) * 0.25, attention_mask[:, None, None]
        hidden = (1 - mask.to(x.dtype)) * torch.finfo(x.dtype).min
        scores = scores.masked_fill(mask == 0, -torch.inf) if self.fills else scores + hidden
        return x + (scores.softmax(-1) @ v).transpose(1, 2).reshape(x.shape)


def rows_model(noise: float = 1e-3) -> Rows:
    """In eval mode, without gradients."""
    return Rows(noise).eval().requires_grad_(False)


def ends(lengths: list[int], tokens: int = 9, left: bool = False) -> Tensor:
    """bool[batch, tokens], true at each sample's live rows."""
    place, length = torch.arange(tokens), torch.tensor(lengths)[:, None]
    return place >= tokens - length if left else place < length


def inputs(lengths: list[int], tokens: int = 9, left: bool = False) -> dict[str, Tensor]:
    """For `Rows`, with samples of these lengths."""
    alive = ends(lengths, tokens, left)
    return {"x": torch.randn(*alive.shape, WIDTH), "mask": alive.long()}


def batches(count: int = 10, samples: int = 8) -> list[dict[str, Tensor]]:
    """Calibration for `Rows`: in each batch one full sample, the others of random lengths."""
    return [inputs([9, *torch.randint(1, 10, (samples - 1,)).tolist()]) for _ in range(count)]


def use_timer(monkeypatch: pytest.MonkeyPatch, timer: Recorded) -> Recorded:
    """`transform` decides on recorded times."""
    module: Any = importlib.import_module("dendrofx.transform")
    monkeypatch.setattr(module, "Profiler", lambda *asked: timer)
    return timer


def live(model: nn.Module, example: Any, mask: str = "mask", **options: Any) -> Any:
    """On live rows, or the test fails."""
    made = dendrofx.transform(model, example, dead_rows=mask, **asked(**{**EXACT, **options}))
    assert made.plan.dead_rows is not None
    assert (made.plan.dead_rows.mask, made.plan.dead_rows.status) == (mask, "live")
    return made


def assert_lossless(model: nn.Module, made: nn.Module, given: dict[str, Tensor], alive: Tensor) -> None:
    """Live positions are the original's, dead ones zero."""
    wanted, got = model(**given), made(**given)
    assert got.shape == wanted.shape
    torch.testing.assert_close(got[alive], wanted[alive], **OTHER_GEMM)
    assert not got[~alive].any()


def replayed(model: nn.Module, made: Any, folder: Path, **given: Any) -> Any:
    """From the plan's file; the same plan, graph, outputs and counts, or the test fails."""
    made.plan.save(folder / "plan.json")
    loaded = Plan.load(folder / "plan.json")
    assert loaded == made.plan
    assert str(loaded) == str(made.plan)
    again = dendrofx.transform(model, plan=loaded, **asked(**given))
    assert dendrofx.graph_text(again) == dendrofx.graph_text(made)
    assert again.plan == made.plan
    x = inputs(HARD)
    (a, counts), (b, same_counts) = made.forward_counted(**x), again.forward_counted(**x)
    assert torch.equal(a, b)
    assert counts == same_counts
    return again


def statuses(plan: Plan) -> dict[str, str]:
    return {s.name: s.status for s in plan.sites}
