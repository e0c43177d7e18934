"""The ways of capture on the table of models: what each graph has, and that it computes the same; and what a trace fixes."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from dendrofx.errors import CaptureError
from dendrofx.graph import capture as page
from dendrofx.graph.capture import capture
from dendrofx.graph.find_sites import find_sites
from dendrofx.light import LowRank
from dendrofx.rewriting.module import RoutedModule
from dendrofx.values.inputs import Inputs
from dendrofx.values.meta import CAPTURE
from tests.graph.capture.cases import CASES, IDS, OF_ROWS, ROWS, taken
from tests.graph.capture.check import captured, exact, graph_inputs, loaded, same, sites
from tests.graph.capture.deciding import Checks, Item, Numpy
from tests.graph.capture.models import WIDTH

aten = torch.ops.aten
EXACT = [kind for kind, case in CASES.items() if case.way != "trace" and not case.far]
TRACED = [kind for kind, case in CASES.items() if case.fixed]


@pytest.mark.parametrize("kind", CASES)
@torch.no_grad()
def test_each_model_goes_its_way_and_computes_the_same_at_other_sizes(kind: str) -> None:
    case, (model, gm, scripted) = CASES[kind], (taken(kind).model, taken(kind).gm, taken(kind).scripted)
    found = taken(kind).captured
    assert found.way == case.way
    assert found.difference is not None
    assert found.difference <= case.far
    assert sites(gm) == (case.sites, case.refused)
    assert type(gm).__name__ == type(model).__name__
    assert not any(p.requires_grad for p in gm.parameters())
    for size in case.sizes:
        inputs = Inputs.of(torch.randint(20, size) if case.example is IDS else torch.randn(size))
        plain, wanted = graph_inputs(gm, inputs), inputs.call(model)
        for module in (gm, scripted):
            if case.far:
                torch.testing.assert_close(plain.call(module), wanted, rtol=0, atol=1e-5)
            else:
                assert same(plain.call(module), wanted)


@pytest.mark.parametrize("kind", EXACT)
@torch.no_grad()
def test_a_trace_reads_what_the_others_do(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bits, and the same sites."""
    model, inputs, wanted = taken(kind).model, Inputs.of(CASES[kind].example), taken(kind).gm
    monkeypatch.setattr(page, "_ways", lambda *_: ("trace",))
    got = capture(model, inputs)
    assert got.meta[CAPTURE].difference == 0
    assert [s.linears for s in find_sites(got)] == [s.linears for s in find_sites(wanted)]
    assert same(graph_inputs(got, inputs).call(dendrofx.script(got)), inputs.call(model))


@pytest.mark.parametrize("kind", TRACED)
def test_a_trace_names_the_lines_that_it_fixes(kind: str) -> None:
    found = taken(kind).captured
    assert [f.split(": ")[0] for f in found.failed] == ["symbolic", "export"]
    assert " failed on (x=float32[8, 16]) at " in found.failed[1]
    for fixed, line in zip(found.fixed, CASES[kind].fixed, strict=True):
        assert fixed.startswith("deciding.py:")
        assert f"  `{line}" in fixed
    assert str(found).endswith(f"equal to the model bit for bit; fixed as on the example: {', '.join(found.fixed)}")


@pytest.mark.parametrize("build", [Checks, Item, Numpy])
@torch.no_grad()
def test_a_trace_is_routed_end_to_end(build: Callable[[], nn.Module]) -> None:
    """The module is called as the model, at tolerance 0 it is the model, and its branches are real ones when scripted."""
    model = build().eval()
    batches = [torch.randn(16, WIDTH) for _ in range(8)]
    module = dendrofx.transform(
        model,
        calibration=batches,
        light=LowRank(rank=4),
        budget=0.5,
        options=dendrofx.Options(decide=False, tune_seconds=0),
    )
    assert isinstance(module, RoutedModule)
    assert [s.name for s in module.plan.routed] == ["fc1..fc2"]
    assert module.plan.capture.startswith(
        "captured by trace, equal to the model bit for bit; fixed as on the example: deciding.py:"
    )
    _, counts = module.forward_counted(ROWS)
    assert 0 <= counts["fc1..fc2"]["hard_rows"] < counts["fc1..fc2"]["rows"] == len(ROWS)
    artifact = loaded(module)
    assert "prim::If" in str(artifact.routed.fc1_fc2.full.graph)
    torch.testing.assert_close(artifact(ROWS), module(ROWS), rtol=0, atol=0)
    for size in OF_ROWS:
        x = torch.randn(size)
        assert torch.equal(exact(module)(x), model(x))
        assert torch.equal(exact(artifact)(x), model(x))


class Rarely(Checks):
    """Another branch for what no variant of the example holds."""

    def forward(self, x: Tensor) -> Tensor:
        return -super().forward(x) if bool((x == 7).any()) else super().forward(x)


def test_a_trace_is_verified_on_the_other_inputs_too() -> None:
    model, seven = Rarely(), torch.rand(2, WIDTH)
    seven[1, 3] = 7
    others = [Inputs.of(torch.rand(2, WIDTH)), Inputs.of(seven)]
    assert captured(model, torch.rand(8, WIDTH), others=others[:1]).meta[CAPTURE].way == "trace"
    why = r"trace: the captured graph of Rarely differs from the model on \(x=float32\[2, 16\]\), one of the other inputs \(largest"
    with pytest.raises(CaptureError, match=why):
        captured(model, torch.rand(8, WIDTH), others=others)
