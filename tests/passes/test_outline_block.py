"""OutlineBlock: each marked site becomes one call of a chain."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from dendrofx.errors import PassError
from dendrofx.graph.capture import capture
from dendrofx.graph.find_sites import find_sites
from dendrofx.graph.show import graph_text
from dendrofx.passes import Change, MarkSites, OutlineBlock
from dendrofx.values.meta import Note
from tests.check import after, assert_same_graph, assert_same_output
from tests.models import Mlp, NoBlock, Residual, Shared


class ExpectedMlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class ExpectedResidual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc, self.head = (nn.Sequential(nn.Linear(16, 16)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.head(x + self.fc(x))


class ExpectedShared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.fc = nn.Sequential(nn.Linear(16, 16)), nn.LayerNorm(16), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(self.first(x)))


@pytest.mark.parametrize(
    ("kind", "expected", "select"),
    [
        (Mlp, ExpectedMlp, None),
        (Residual, ExpectedResidual, None),
        (Shared, ExpectedShared, lambda site: site.name == "fc"),
    ],
    ids=["case 2: middle nodes go", "case 1: names and users stay", "case 3: the other call keeps its Linear"],
)
def test_before_and_expected(kind: type[nn.Module], expected: type[nn.Module], select: Any) -> None:
    before = kind()
    gm = after(2, before, select=select)
    assert_same_graph(gm, expected())
    assert_same_output(before, gm, torch.randn(5, 16))


def test_block_holds_the_layers_of_the_chain() -> None:
    block = after(2, Mlp()).get_submodule("routed.fc1_fc2.block")
    assert repr(block) == repr(ExpectedMlp().block)


def test_case_1_the_last_node_keeps_its_name() -> None:
    gm = after(2, Residual())
    assert [n.name for n in gm.graph.nodes] == ["x", "stem", "relu", "fc2", "add", "head", "output"]


def test_case_2_modules_of_a_site_are_gone_from_their_old_place() -> None:
    gm = after(2, Mlp())
    assert sorted(name for name, _ in gm.named_parameters()) == [
        f"routed.fc1_fc2.block.{i}.{kind}" for i in (0, 2) for kind in ("bias", "weight")
    ]


def test_case_3_a_linear_with_another_call_stays() -> None:
    gm = after(2, Shared(), select=lambda site: site.name == "fc")
    assert gm.get_submodule("fc") is gm.get_submodule("routed.fc.block.0")


def test_weights_are_shared_between_sites_of_one_module() -> None:
    gm = after(2, Shared())
    assert gm.get_submodule("routed.fc.block.0") is gm.get_submodule("routed.fc_2.block.0")


def test_result_says_what_was_done() -> None:
    marked = after(1, Residual(), select="fc*")
    result = OutlineBlock()(marked)
    assert result.changed == (Change("fc1..fc2", "outlined as routed.fc1_fc2.block", ("fc2",)),)
    assert result.refused == ()


@pytest.mark.parametrize("kind", [NoBlock, Residual])
def test_unmarked_graph_is_left_alone(kind: type[nn.Module]) -> None:
    model = kind()
    gm = capture(model.eval())
    before = graph_text(gm)
    assert not OutlineBlock()(gm).modified
    assert graph_text(gm) == before
    assert_same_output(model, gm, torch.randn(5, 16))


class Clash(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.routed = nn.ModuleDict({"b": nn.Linear(4, 4)}), nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.routed(self.a["b"](x))


def test_the_name_routed_must_be_free() -> None:
    """In a graph module that was not captured here, which would give it another name."""
    gm = fx.symbolic_trace(Clash().eval())
    marked = fx.GraphModule(gm, gm.graph)
    MarkSites(tuple(find_sites(marked)))(marked)
    before = graph_text(marked)
    with pytest.raises(
        PassError, match=r"^the model has an attribute 'routed', which dendrofx needs for its own modules$"
    ):
        OutlineBlock()(marked)
    assert graph_text(marked) == before


def test_the_name_routed_may_be_taken_where_no_site_is_marked() -> None:
    assert not OutlineBlock()(capture(Clash().eval())).modified


class AlikeNames(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a_b, self.a = nn.Linear(4, 4), nn.ModuleDict({"b": nn.Linear(4, 4)})

    def forward(self, x: Tensor) -> Tensor:
        return self.a["b"](self.a_b(x) + x)


def test_names_that_become_alike_are_numbered() -> None:
    model = AlikeNames()
    gm = after(2, model)
    assert [n.target for n in gm.graph.nodes if n.op == "call_module"] == ["routed.a_b.block", "routed.a_b_2.block"]
    assert_same_output(model, gm, torch.randn(3, 4))


class ByKeyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(16, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(input=torch.sigmoid(self.fc1(input=x)))


class WritesToItsInput(nn.Module):
    """The chain's input is overwritten between its first and its last Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(16, 8), nn.Linear(8, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = x * 2
        h = self.fc1(x)
        x.add_(1)
        return self.fc2(torch.relu(h)) + x


class InPlace(nn.Module):
    """In-place activations in the chain, and one on its output."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 8), nn.ReLU(inplace=True), nn.Linear(8, 16), nn.SiLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).relu_()


@pytest.mark.parametrize("kind", [ByKeyword, WritesToItsInput, InPlace])
def test_output_stays(kind: type[nn.Module]) -> None:
    model, rows = kind(), torch.randn(5, 16)
    assert_same_output(capture(model.eval()), after(2, model), rows)
    assert_same_output(model, after(5, model), rows)


def test_claim_no_loose_nodes() -> None:
    with pytest.raises(PassError, match=r"^sites \['fc1\.\.fc2'\] still have loose nodes$"):
        OutlineBlock().ensures(after(1, Mlp()))


def test_claim_one_call_for_each_site() -> None:
    gm = after(2, Residual())
    for node in gm.graph.nodes:
        if node.name in ("stem", "head"):
            node.meta["dendrofx"] = Note("odd", "outlined")
    with pytest.raises(PassError, match=r"^site 'odd' is not one call of a chain: \[stem, head\]$"):
        OutlineBlock().ensures(gm)


@pytest.mark.parametrize(("names", "shown"), [(["act"], "[act]"), (["fc1", "fc2"], "[fc1, fc2]")])
def test_claim_one_call_of_a_chain(names: list[str], shown: str) -> None:
    gm: fx.GraphModule = capture(Mlp().eval())
    for node in gm.graph.nodes:
        if node.name in names:
            node.meta["dendrofx"] = Note("odd", "outlined")
    with pytest.raises(PassError) as caught:
        OutlineBlock().ensures(gm)
    assert str(caught.value) == f"site 'odd' is not one call of a chain: {shown}"
