"""AddLight: a light branch that nothing reads yet, beside the block."""

import pytest
import torch
from torch import Tensor, fx, nn

from dendrofx.errors import PassError
from dendrofx.graph.show import graph_text
from dendrofx.graph.sites import Refusal
from dendrofx.light import LowRank
from dendrofx.passes import AddLight, Change, PassResult
from dendrofx.runtime.routing import as_rows
from dendrofx.values.meta import Note
from tests.check import after, assert_same_graph, assert_same_output
from tests.models import Mlp, NoBlock, Residual, Shared


def block() -> nn.Sequential:
    return nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 8))


class ExpectedMlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.light, self.block = LowRank(rank=2).fit(block()), block()

    def forward(self, x: Tensor) -> Tensor:
        rows = as_rows(x, 16, "fc1..fc2")
        self.light(rows)
        return self.block(x)


class ExpectedShared(nn.Module):
    """The light branch is given to the second call only."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Sequential(nn.Linear(16, 16)), nn.LayerNorm(16), nn.Sequential()
        self.light = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x))
        rows = as_rows(x, 16, "fc#2")
        self.light(rows)
        return self.second(x)


def test_case_1_two_nodes_that_nothing_reads() -> None:
    model = Mlp()
    gm = after(3, model)
    assert_same_graph(gm, ExpectedMlp())
    assert_same_output(model, gm, torch.randn(5, 16))


def test_case_1_result_and_notes() -> None:
    gm = after(2, Mlp())
    light = LowRank(rank=2).fit(block())
    result = AddLight({"fc1..fc2": light})(gm)
    assert result.changed == (Change("fc1..fc2", "light branch added", ("fc1_fc2_rows", "fc1_fc2_light")),)
    assert result.modified
    assert result.refused == ()
    assert {n.name: str(n.meta["dendrofx"]) for n in gm.graph.nodes if "dendrofx" in n.meta} == {
        "fc1_fc2_rows": "rows of fc1..fc2",
        "fc1_fc2_light": "light of fc1..fc2",
        "fc2": "outlined of fc1..fc2",
    }
    assert gm.get_submodule("routed.fc1_fc2.light") is light


def test_case_2_a_site_without_a_light_branch_is_refused() -> None:
    gm = after(2, Residual())
    before, code = graph_text(gm), gm.code
    result = AddLight({})(gm)
    assert not result.modified
    assert result.refused == (
        Refusal("stem", "no light branch given", "stem"),
        Refusal("fc1..fc2", "no light branch given", "fc2"),
        Refusal("head", "no light branch given", "head"),
    )
    assert (graph_text(gm), gm.code) == (before, code)


def test_case_2_one_site_of_two_is_refused() -> None:
    model = Shared()
    gm = after(2, model)
    result = AddLight({"fc#2": nn.Linear(16, 16)})(gm)
    assert result.refused == (Refusal("fc", "no light branch given", "fc"),)
    assert [c.site for c in result.changed] == ["fc#2"]
    assert_same_graph(gm, ExpectedShared())
    assert_same_output(model, gm, torch.randn(5, 16))


def test_light_branches_for_unknown_sites_are_not_added() -> None:
    gm = after(2, NoBlock())
    before = graph_text(gm)
    result = AddLight({"fc1": nn.Linear(16, 16)})(gm)
    assert (result.changed, result.refused) == ((), ())
    assert graph_text(gm) == before


def test_the_last_node_keeps_its_name() -> None:
    gm = after(3, Residual())
    names = [n.name for n in gm.graph.nodes]
    assert [n for n in names if not n.endswith(("_rows", "_light"))] == [
        "x",
        "stem",
        "relu",
        "fc2",
        "add",
        "head",
        "output",
    ]


def test_claim_no_users_of_a_light_branch() -> None:
    gm = after(3, Mlp())
    light, last = (next(n for n in gm.graph.nodes if n.name == name) for name in ("fc1_fc2_light", "fc2"))
    last.args = (light,)
    wanted = r"^the light branch of 'fc1\.\.fc2' has users before it has a gate: \[fc2\]$"
    with pytest.raises(PassError, match=wanted):
        AddLight({}).ensures(gm)


def test_claim_is_checked_on_the_result() -> None:
    class Impatient(AddLight):
        def run(self, gm: fx.GraphModule) -> PassResult:
            result = super().run(gm)
            light = next(n for n in gm.graph.nodes if n.meta.get("dendrofx") == Note("fc1..fc2", "light"))
            gm.graph.output_node().args = (light,)
            return result

    with pytest.raises(PassError, match="has users before it has a gate"):
        Impatient({"fc1..fc2": nn.Linear(16, 8)})(after(2, Mlp()))
