"""Capture by trace: models that neither FX nor export can follow are routed end to end, or refused with the line."""

import io
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from dendrofx.errors import CaptureError
from dendrofx.graph import capture as page
from dendrofx.graph.capture import Captured, capture
from dendrofx.graph.find_sites import find_sites
from dendrofx.light import LowRank
from dendrofx.lowering.script import script
from dendrofx.rewriting.module import RoutedModule
from dendrofx.values.inputs import Inputs
from dendrofx.values.meta import CAPTURE
from tests.graph.capture.check import graph_inputs, same
from tests.graph.capture.deciding import (
    Checks,
    Item,
    Numpy,
    Sizes,
)
from tests.graph.capture.models import WIDTH, Regions, SharedLayer, Tied, WritesInPlace

X = torch.randn(8, WIDTH)
SIZES = (1, 3, 8, 13)
# The model, and what its lines that a trace fixes begin with.
TRACED: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "a check of values": (Checks, ("if not bool(torch.isfinite(x).all()):",)),
    "item": (Item, ("return self.mlp(x) * int((x.abs().sum() >= 0).item())",)),
    "NumPy": (Numpy, ("return self.mlp(x) * torch.from_numpy(",)),
    "arithmetic of sizes": (Sizes, ("if bool((x != x).any()):",)),
}


@pytest.mark.parametrize("kind", TRACED)
@torch.no_grad()
def test_what_only_a_trace_can_follow_is_captured(kind: str) -> None:
    build, lines = TRACED[kind]
    model = build().eval()
    gm = capture(model, Inputs.of(X))
    captured: Captured = gm.meta[CAPTURE]
    assert (captured.way, captured.difference) == ("trace", 0.0)
    assert [f.split(": ")[0] for f in captured.failed] == ["symbolic", "export"]
    assert " failed on (x=float32[8, 16]) at " in captured.failed[1]
    for fixed, line in zip(captured.fixed, lines, strict=True):
        assert fixed.startswith("deciding.py:")
        assert f"  `{line}" in fixed
    assert str(captured).endswith(
        f"equal to the model bit for bit; fixed as on the example: {', '.join(captured.fixed)}"
    )
    assert [s.name for s in find_sites(gm)] == ["fc1..fc2"]
    scripted = script(gm)
    for size in SIZES:
        inputs = Inputs.of(torch.randn(size, WIDTH))
        plain = graph_inputs(gm, inputs)
        assert same(plain.call(gm), inputs.call(model))
        assert same(plain.call(scripted), inputs.call(model))


@pytest.mark.parametrize("build", [Checks, Item, Numpy])
@torch.no_grad()
def test_it_is_routed_end_to_end(build: Callable[[], nn.Module]) -> None:
    """The module is called as the model, at tolerance 0 it is the model, and its branches are real ones when scripted."""
    model = build().eval()
    batches = [torch.randn(16, WIDTH) for _ in range(8)]
    module = dendrofx.transform(
        model, calibration=batches, light=LowRank(rank=4), max_deviation=0.5, decide=False, tune_seconds=0
    )
    assert isinstance(module, RoutedModule)
    assert [s.name for s in module.plan.routed] == ["fc1..fc2"]
    assert module.plan.capture.startswith(
        "captured by trace, equal to the model bit for bit; fixed as on the example: deciding.py:"
    )
    _, counts = module.forward_counted(X)
    assert 0 <= counts["fc1..fc2"]["hard_rows"] < counts["fc1..fc2"]["rows"] == len(X)
    file = io.BytesIO()
    torch.jit.save(dendrofx.script(module), file)
    file.seek(0)
    loaded = torch.jit.load(file)
    assert "prim::If" in str(loaded.routed.fc1_fc2.full.graph)
    torch.testing.assert_close(loaded(X), module(X), rtol=0, atol=0)
    dendrofx.set_tolerances(module, dict.fromkeys(dendrofx.tolerances(module), 0.0))
    dendrofx.set_tolerances(loaded, dict.fromkeys(dendrofx.tolerances(loaded), 0.0))
    for size in SIZES:
        x = torch.randn(size, WIDTH)
        assert torch.equal(module(x), model(x))
        assert torch.equal(loaded(x), model(x))


# What the other ways can capture, a trace captures to the same bits, with the same sites.
OTHERS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "regions": (Regions, X),
    "writes": (WritesInPlace, X),
    "shared": (SharedLayer, X),
    "tied": (Tied, torch.arange(12).reshape(3, 4)),
    "convolution": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
        torch.randn(2, 3, 8, 8),
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
@torch.no_grad()
def test_it_reads_what_the_others_do(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    build, example = OTHERS[kind]
    model = build().eval()
    inputs = Inputs.of(example)
    wanted = capture(model, inputs)
    monkeypatch.setattr(page, "_ways", lambda *_: ("trace",))
    got = capture(model, inputs)
    assert got.meta[CAPTURE].difference == 0
    assert [s.linears for s in find_sites(got)] == [s.linears for s in find_sites(wanted)]
    assert same(graph_inputs(got, inputs).call(script(got)), inputs.call(model))


class Rarely(Checks):
    """Another branch for what no variant of the example holds."""

    def forward(self, x: Tensor) -> Tensor:
        return -super().forward(x) if bool((x == 7).any()) else super().forward(x)


def test_a_trace_is_verified_on_the_other_inputs_too() -> None:
    model, example = Rarely().eval(), Inputs.of(torch.rand(8, WIDTH))
    seven = torch.rand(2, WIDTH)
    seven[1, 3] = 7
    others = [Inputs.of(torch.rand(2, WIDTH)), Inputs.of(seven)]
    assert capture(model, example, others=others[:1]).meta[CAPTURE].way == "trace"
    why = r"trace: the captured graph of Rarely differs from the model on \(x=float32\[2, 16\]\), one of the other inputs \(largest"
    with pytest.raises(CaptureError, match=why):
        capture(model, example, others=others)
