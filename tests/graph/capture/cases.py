"""The table of models that capture is tried on: which way takes each, which sites its graph has, and which sizes it is run at."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx, nn

from dendrofx.graph.capture import Captured, capture
from dendrofx.lowering.script import script
from dendrofx.values.inputs import Inputs
from dendrofx.values.meta import CAPTURE
from tests.graph.capture.deciding import Checks, Item, Numpy, Sizes, Table
from tests.graph.capture.models import (
    WIDTH,
    Attends,
    AttendsInTurn,
    Autocast,
    ByWeight,
    OddLinears,
    Regions,
    SharedLayer,
    Tied,
    WritesInPlace,
)

ROWS, TOKENS, IDS = torch.randn(8, WIDTH), torch.randn(4, 6, WIDTH), torch.arange(12).reshape(3, 4)
OF_TOKENS = ((1, 1, WIDTH), (1, 9, WIDTH), (7, 2, WIDTH))
OF_ROWS = tuple((size, WIDTH) for size in (1, 3, 8, 13))
NEVER = (
    "never swapped: nn.MultiheadAttention reads the weight of this NonDynamicallyQuantizableLinear without calling it"
)


@dataclass(frozen=True)
class Case:
    """One model.

    Attributes:
        build: makes it.
        way: that captures it.
        sites: of its graph.
        refused: by site, the reasons of the others.
        fixed: what each of its lines that a trace fixes begins with.
        example: the input that it is captured with.
        sizes: other sizes that the graph has to be right at.
        far: how far it may be from the model.
    """

    build: Callable[[], nn.Module]
    way: str
    sites: tuple[str, ...]
    refused: Mapping[str, str] = field(default_factory=dict)
    fixed: tuple[str, ...] = ()
    example: Tensor = field(default_factory=lambda: TOKENS)
    sizes: tuple[tuple[int, ...], ...] = OF_TOKENS
    far: float = 0.0


def _traced(build: Callable[[], nn.Module], line: str) -> Case:
    return Case(build, "trace", ("fc1..fc2",), fixed=(line,), example=ROWS, sizes=OF_ROWS)


def _layer() -> nn.Module:
    return nn.Sequential(nn.TransformerEncoderLayer(WIDTH, 2, 32, batch_first=True))


def _convolution() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))


CASES: dict[str, Case] = {
    "regions": Case(Regions, "export", ("fc1..fc2",)),
    "writes": Case(
        WritesInPlace,
        "export",
        ("fc1", "fc2"),
        {"fc1..fc2": "%add_ writes in place between its nodes: the chain ends there"},
    ),
    "shared": Case(SharedLayer, "export", ("fc1..fc2", "fc1..fc2#2")),
    "by weight": Case(
        ByWeight,
        "export",
        ("fc1",),
        {"fc2": "its parameters are used functionally (%fc2_weight), not by calling the module"},
    ),
    "odd Linears": Case(
        OddLinears, "export", ("fc1..fc2",), {"doubled": "Subclass is a subclass of nn.Linear, its forward may differ"}
    ),
    "table": Case(Table, "export", ("fc1..fc2",)),
    "convolution": Case(
        _convolution, "symbolic", (), example=torch.randn(2, 3, 8, 8), sizes=((1, 3, 8, 8), (3, 3, 9, 12))
    ),
    "tied": Case(Tied, "export", ("decoder", "other"), example=IDS, sizes=((1, 4), (2, 7))),
    "attention": Case(Attends, "symbolic", ("mlp.fc1..fc2",), {"attention.out_proj": NEVER}, far=1e-6),
    "attention, exported": Case(AttendsInTurn, "export", ("mlp.fc1..fc2",), {"attention.out_proj": NEVER}, far=1e-6),
    "fused layer": Case(_layer, "export", ("0.linear1..linear2",), {"0.self_attn.out_proj": NEVER}, far=1e-6),
    "autocast": Case(
        Autocast,
        "trace",
        ("fc2",),
        {"fc1": "its weight is converted before each use (%to_1), as under autocast; routing takes float32"},
    ),
    "a check of values": _traced(Checks, "if not bool(torch.isfinite(x).all()):"),
    "item": _traced(Item, "return self.mlp(x) * int((x.abs().sum() >= 0).item())"),
    "NumPy": _traced(Numpy, "return self.mlp(x) * torch.from_numpy("),
    "arithmetic of sizes": _traced(Sizes, "if bool((x != x).any()):"),
}


@dataclass(frozen=True)
class Taken:
    """A case's model, its graph, and the graph scripted: made once for all tests, which only read them."""

    model: nn.Module
    gm: fx.GraphModule
    scripted: nn.Module

    @property
    def captured(self) -> Captured:
        captured: Captured = self.gm.meta[CAPTURE]
        return captured


@functools.cache
def taken(kind: str) -> Taken:
    """Capture a case's model."""
    model = CASES[kind].build().eval()
    gm = capture(model, Inputs.of(CASES[kind].example))
    return Taken(model, gm, script(gm))
