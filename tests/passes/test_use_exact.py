"""UseExact: sites that are not routed, computed by exact forms."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from dendrofx.errors import PassError
from dendrofx.graph.block import block_of
from dendrofx.graph.capture import capture
from dendrofx.graph.find_sites import find_sites
from dendrofx.graph.show import graph_text
from dendrofx.light import Prepacked
from dendrofx.passes import Change, DropDeadRows, MarkRows, UseExact, run_passes
from dendrofx.passes.base import PassResult
from dendrofx.rewriting.rewrite import use_exact
from dendrofx.runtime.packed import PackedLinear
from dendrofx.runtime.routing import as_rows, restore_rows
from dendrofx.values.inputs import Inputs
from dendrofx.values.meta import LIVE
from tests.check import OTHER_GEMM, assert_same_graph, assert_same_output
from tests.models import Mlp, NoBlock, Residual, Shared

X = torch.linspace(-2, 2, 80).view(5, 16)


def prepared(gm: fx.GraphModule, *names: str) -> UseExact:
    """The pass for these sites of a graph, or for all; sites of the same Linears share a form."""
    sites = tuple(s for s in find_sites(gm) if not names or s.name in names)
    made = {s.linears: Prepacked().fit(block_of(gm, s.nodes)) for s in sites}
    return UseExact(sites, {s.name: made[s.linears] for s in sites})


def used(model: nn.Module, *names: str) -> PassResult:
    gm = capture(model.eval())
    return prepared(gm, *names)(gm)


def linears(gm: nn.Module) -> list[str]:
    """Names of the plain Linears that a module still has."""
    return [name for name, m in gm.named_modules() if isinstance(m, nn.Linear)]


class ExpectedMlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        block = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 8))
        self.form = Prepacked().fit(block)

    def forward(self, x: Tensor) -> Tensor:
        return restore_rows(self.form(as_rows(x, 16, "fc1..fc2")), x)


def test_a_site_becomes_three_nodes() -> None:
    model = Mlp()
    result = used(model)
    changed = ("fc1_fc2_rows", "fc1_fc2_exact", "fc2")
    assert result.changed == (Change("fc1..fc2", "computed by exact.fc1_fc2", changed),)
    assert result.refused == ()
    assert [n.name for n in result.graph_module.graph.nodes] == ["x", *changed, "output"]
    assert_same_graph(result.graph_module, ExpectedMlp())
    assert_same_output(model, result.graph_module, X, OTHER_GEMM)


def test_the_rows_are_those_of_every_leading_axis() -> None:
    model = Mlp()
    gm = used(model).graph_module
    assert gm(X.view(1, 5, 16)).shape == (1, 5, 8)
    assert_same_output(model, gm, torch.randn(2, 3, 4, 16), OTHER_GEMM)
    assert gm(torch.empty(0, 16)).shape == (0, 8)


def test_what_a_site_replaced_is_gone_and_the_model_is_whole() -> None:
    model = Mlp()
    gm = used(model).graph_module
    assert linears(gm) == []
    assert linears(model) == ["fc1", "fc2"]
    assert sum(isinstance(m, PackedLinear) for m in gm.modules()) == 2


@pytest.mark.parametrize("names", [("stem",), ("fc1..fc2",), ("head",), ("stem", "head"), ("stem", "fc1..fc2", "head")])
def test_sites_that_are_not_named_are_left(names: tuple[str, ...]) -> None:
    model = Residual()
    gm = capture(model.eval())
    before = [n.name for n in gm.graph.nodes]
    gone = [node for s in find_sites(gm) if s.name in names for node in s.nodes[:-1]]
    result = prepared(gm, *names)(gm)
    assert [c.site for c in result.changed] == list(names)
    assert [n.name for n in gm.graph.nodes if not n.name.endswith(("_rows", "_exact"))] == [
        name for name in before if name not in gone
    ]
    assert len(linears(gm)) == 4 - len(names) - ("fc1..fc2" in names)
    assert_same_output(model, gm, X, OTHER_GEMM)


def test_two_calls_of_one_linear_share_one_form() -> None:
    model = Shared()
    gm = used(model).graph_module
    assert gm.get_submodule("exact.fc") is gm.get_submodule("exact.fc_2")
    assert len({id(m) for m in gm.modules() if isinstance(m, PackedLinear)}) == 1
    assert_same_output(model, gm, X, OTHER_GEMM)


def test_a_linear_that_another_site_still_calls_stays() -> None:
    model = Shared()
    gm = used(model, "fc#2").graph_module
    assert linears(gm) == ["fc"]
    assert_same_output(model, gm, X, OTHER_GEMM)


def test_no_sites() -> None:
    gm = capture(NoBlock().eval())
    before = graph_text(gm)
    result = UseExact((), {})(gm)
    assert not result.modified
    assert graph_text(gm) == before
    assert use_exact(gm, [], {}) is gm


def test_use_exact_leaves_the_captured_module() -> None:
    gm = capture(Residual().eval())
    before, step = graph_text(gm), prepared(gm, "head")
    made = use_exact(gm, step.sites, step.forms)
    assert graph_text(gm) == before
    assert linears(gm) == ["stem", "fc1", "fc2", "head"]
    assert linears(made) == ["stem", "fc1", "fc2"]
    assert made.meta.items() >= gm.meta.items()
    assert not made.training
    assert not any(p.requires_grad for p in made.parameters())
    assert made.get_submodule("stem") is gm.get_submodule("stem")


class Masked(nn.Module):
    """A chain of live rows, and a Linear that reads a pooled value."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp, self.head = Mlp(), nn.Linear(8, 4)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        live = mask[..., None]
        return self.head((self.mlp(x * live) * live).sum(1))  # type: ignore[no-any-return]


def test_sites_on_live_rows_stay_marked_as_live() -> None:
    given = {"x": torch.randn(3, 4, 16), "mask": torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]])}
    gm = capture(Masked().eval().requires_grad_(False), Inputs.of(given), shapes=True)
    gm = run_passes(gm, [MarkRows("mask"), DropDeadRows("mask")]).graph_module
    made = fx.GraphModule(gm, copy.deepcopy(gm.graph))
    result = prepared(made)(made)
    nodes = {n.name: n for n in made.graph.nodes}
    marked = {c.site: [LIVE in nodes[name].meta for name in c.nodes] for c in result.changed}
    assert marked == {"mlp.fc1..fc2": [True] * 3, "head": [False] * 3}
    assert_same_output(gm, made, given, OTHER_GEMM)


# -------------------------------------------------------------------------------------------------------- refusals


class Taken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.exact, self.fc = nn.LayerNorm(16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.exact(x))  # type: ignore[no-any-return]


def test_the_name_of_the_container_is_taken() -> None:
    with pytest.raises(
        PassError, match=r"^the model has an attribute 'exact', which dendrofx needs for its own modules$"
    ):
        used(Taken())


@pytest.mark.parametrize("forms", [
    {}, {"fc": Prepacked().fit(nn.Linear(16, 8))}, {"fc1..fc2": Prepacked().fit(nn.Linear(16, 8))},
])  # fmt: skip
def test_a_site_without_a_form_of_its_own_size_is_refused_before_anything_is_changed(forms: dict[str, Any]) -> None:
    gm = capture(Mlp().eval())
    before = graph_text(gm)
    with pytest.raises(PassError, match=r"^site 'fc1\.\.fc2' \(16 -> 32 -> 8\) has no exact form$"):
        UseExact(tuple(find_sites(gm)), forms)(gm)
    assert graph_text(gm) == before


def test_claim_each_form_is_called_once() -> None:
    gm = capture(Mlp().eval())
    step = prepared(gm)
    with pytest.raises(PassError, match=r"^the exact form of 'fc1\.\.fc2' is not called once$"):
        step.ensures(gm)
    step(gm)
    step.ensures(gm)
