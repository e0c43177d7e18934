"""Capture by export: what the graph looks like, and what is handled or refused by name."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from dendrofx.errors import CaptureError
from dendrofx.graph.capture import Captured, capture
from dendrofx.runtime.size_ops import nearest_even
from dendrofx.values.inputs import Inputs
from dendrofx.values.meta import CAPTURE, SHAPES
from tests.graph.capture.check import agrees, exported, sites
from tests.graph.capture.deciding import Table, Unrolls
from tests.graph.capture.models import WIDTH, Autocast, ByWeight, OddLinears, Regions, SharedLayer, WritesInPlace
from tests.models import Mlp

X = torch.randn(4, 6, WIDTH)
aten = torch.ops.aten


@pytest.mark.parametrize(
    ("build", "found"),
    [
        (Regions, ["fc1..fc2"]),
        (WritesInPlace, ["fc1", "fc2"]),
        (SharedLayer, ["fc1..fc2", "fc1..fc2#2"]),
        (ByWeight, ["fc1"]),
        (OddLinears, ["fc1..fc2"]),
        (Table, ["fc1..fc2"]),
    ],
)
def test_the_graph_computes_the_same_at_other_sizes(build: Callable[[], nn.Module], found: list[str]) -> None:
    model = build().eval()
    gm = exported(model, X)
    assert gm.meta[CAPTURE].difference == 0
    assert sites(gm)[0] == found
    for size in ((1, 1, WIDTH), (1, 9, WIDTH), (7, 2, WIDTH)):
        assert agrees(model, gm, Inputs.of(torch.randn(size)))


def test_regions_are_inlined() -> None:
    gm = exported(Regions(), X)
    calls = [n.target for n in gm.graph.nodes if n.op in ("call_module", "call_function")]
    assert calls == ["fc1", aten.relu, "fc2"]
    assert sorted(dict(gm.named_parameters())) == ["fc1.bias", "fc1.weight", "fc2.bias", "fc2.weight"]
    assert not any(p.requires_grad for p in gm.parameters())
    assert type(gm).__name__ == "Regions"


def test_autocast_that_is_on_is_refused_by_name_and_its_linear_with_it() -> None:
    model = Autocast().eval()
    gm = capture(model, Inputs.of(X))
    captured: Captured = gm.meta[CAPTURE]
    assert captured.way == "trace"
    assert captured.failed[0].startswith(
        "symbolic: the captured graph of Autocast differs from the model on (x=float32[4, 6, 16])"
    )
    assert captured.failed[1] == (
        "export: %linear is an autocast region that is switched on (torch.bfloat16): routing works in float32. Remove"
        " torch.autocast from forward"
    )
    found, refused = sites(gm)
    assert found == ["fc2"]
    assert refused["fc1"] == "its weight is converted before each use (%to_1), as under autocast; routing takes float32"
    assert agrees(model, gm, Inputs.of(torch.randn(1, 3, WIDTH)))


def test_writes_stay_in_the_graph_and_end_chains() -> None:
    gm = exported(WritesInPlace(), X)
    targets = [n.target for n in gm.graph.nodes]
    assert aten.fill_ in targets or aten.copy_ in targets  # without a user: the slice that is written
    assert aten.add_ in targets
    assert sites(gm)[1] == {"fc1..fc2": "%add_ writes in place between its nodes: the chain ends there"}


def test_a_single_sample_and_a_single_token_are_enough() -> None:
    model = Regions().eval()
    gm = exported(model, X[:1, :1])
    assert agrees(model, gm, Inputs.of(X))


def test_every_value_keeps_its_symbolic_shape() -> None:
    gm = exported(Regions(), X)
    (x,) = (n for n in gm.graph.nodes if n.op == "placeholder")
    batch, tokens, width = x.meta[SHAPES][0]
    assert isinstance(batch, str)
    assert isinstance(tokens, str)
    assert width == WIDTH
    assert [n.meta[SHAPES] for n in gm.graph.nodes if n.op == "call_module"] == [
        [(batch, tokens, 32)],
        [(batch, tokens, WIDTH)],
    ]


def test_symbolic_shapes_are_given_where_they_are_asked_for() -> None:
    gm = capture(Mlp().eval(), Inputs.of(X), shapes=True)
    assert gm.meta[CAPTURE] == Captured("export")
    with pytest.raises(CaptureError, match=r"^cannot capture Unrolls\.\n  export: [^\n]*$"):
        capture(Unrolls().eval(), Inputs.of(X), shapes=True)


class Checkpointed(Mlp):
    """A region that is neither no_grad nor autocast."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, super().forward, lambda x: -Mlp.forward(self, x), (x,))  # type: ignore[no-any-return]


def test_other_regions_are_refused_by_name() -> None:
    with pytest.raises(CaptureError, match=r"export: %cond is a region of its own kind, cond, which cannot be inlined"):
        capture(Checkpointed(WIDTH, 32, WIDTH).eval(), Inputs.of(X))


COMPUTED: dict[str, Callable[[Tensor], Tensor]] = {
    "min": lambda x: x[:, : min(x.size(1), x.size(0) + 2)].sum(1),
    "max": lambda x: x.new_zeros(max(x.size(0), x.size(1) - 1)).sum() + x.sum(1),
    "sym_sum": lambda x: x.sum(1) * torch.sym_sum([x.size(0), x.size(1), 3]),
    "sym_float": lambda x: x.sum(1) * torch.sym_float(x.size(1)),
    "a power": lambda x: x.sum(1) * (x.size(1) ** 0.5),
    "a ceiling": lambda x: x[:, : math.ceil(x.size(1) / 2)].sum(1),
    "trunc": lambda x: x[:, : math.trunc(x.size(1) / 3)].sum(1),
    "round": lambda x: x[:, : round(x.size(1) / 2)].sum(1),
    "abs": lambda x: x.sum(1) * abs(x.size(1) - 100),
    "sym_not": lambda x: x.sum(1) * torch.sym_not(x.size(1) > x.size(0)),
    "sym_ite": lambda x: x.sum(1) * torch.sym_ite(x.size(1) > x.size(0), x.size(0), x.size(1)),
}


@pytest.mark.parametrize("form", COMPUTED)
def test_arithmetic_of_sizes_scripts(form: str) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(WIDTH, WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            return COMPUTED[form](self.fc(x))

    model = Model().eval().requires_grad_(False)
    scripted = dendrofx.script(capture(model, Inputs.of(torch.randn(6, 9, WIDTH)), shapes=True))
    for size in ((6, 9, WIDTH), (3, 9, WIDTH), (6, 14, WIDTH), (5, 3, WIDTH), (2, 5, WIDTH), (4, 7, WIDTH)):
        x = torch.randn(size)
        torch.testing.assert_close(scripted(x), model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("x", [-2.5, -1.5, -0.4, 0.5, 0.6, 1.5, 2.5, 3.0, 3.4])
def test_halves_are_rounded_to_the_even_number(x: float) -> None:
    assert nearest_even(x) == round(x)
