"""AddGate: a gate, a tolerance of 0 and a split that nothing reads yet."""

import pytest
import torch
from torch import Tensor, nn

from dendrofx.errors import PassError
from dendrofx.gates import AlwaysLight, GateForm, OracleGate, ResidualGate
from dendrofx.graph.show import graph_text
from dendrofx.light import LowRank
from dendrofx.passes import AddGate, Change
from dendrofx.runtime.control_scores import ConstantScore, OracleScore
from dendrofx.runtime.evidence_scores import ResidualScore
from dendrofx.runtime.leaves import LightBeforeGate, LightWithEvidence
from dendrofx.runtime.routing import as_rows, split_rows
from tests.check import after, assert_same_graph, assert_same_output
from tests.models import Mlp, NoBlock, Residual, Shared

# 24 * (16 + 8) moved values over themselves and the light branch's 2 * (16 + 32) + 2 * (32 + 8) multiply-adds
SHARE = 0.8972
NEVER = 2.0


def block() -> nn.Sequential:
    return nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 8))


class Expected(nn.Module):
    """What all three kinds of gate have in common."""

    def __init__(self, gate: nn.Module, light: nn.Module) -> None:
        super().__init__()
        self.gate, self.light, self.block = gate, light, block()
        self.register_buffer("tolerance", torch.zeros(()))


class ReadsInput(Expected):
    def forward(self, x: Tensor) -> Tensor:
        rows = as_rows(x, 16, "fc1..fc2")
        self.light(rows)
        split_rows(self.gate(rows), self.tolerance, SHARE)
        return self.block(x)


class ReadsLight(Expected):
    def forward(self, x: Tensor) -> Tensor:
        rows = as_rows(x, 16, "fc1..fc2")
        light = self.light(rows)
        split_rows(self.gate(rows, light), self.tolerance, NEVER)
        return self.block(x)


LIGHT = LowRank(rank=2).fit(block())
CASES = [
    (AlwaysLight(), ReadsInput(ConstantScore(0.0), LIGHT)),
    (OracleGate(), ReadsLight(OracleScore(block()), LightBeforeGate(LIGHT))),
    (ResidualGate(), ReadsLight(ResidualScore(torch.zeros(2, 7), 0.0), LightWithEvidence(LIGHT))),
]


@pytest.mark.parametrize(("gate", "expected"), CASES, ids=["reads input", "reads light", "reads evidence"])
def test_before_and_expected(gate: GateForm, expected: nn.Module) -> None:
    model = Mlp()
    gm = after(4, model, gate)
    assert_same_graph(gm, expected)
    assert_same_output(model, gm, torch.randn(5, 16))


@pytest.mark.parametrize("gate", [g for g, _ in CASES], ids=repr)
def test_the_last_nodes_keep_their_names(gate: GateForm) -> None:
    names = [n.name for n in after(4, Residual(), gate).graph.nodes]
    assert [n for n in names if n.count("_") == 0] == ["x", "stem", "relu", "fc2", "add", "head", "output"]


def test_result_says_what_was_done() -> None:
    gm = after(3, Shared())
    gate = ConstantScore(0.0)
    result = AddGate({"fc": ("input", gate), "fc#2": ("light", OracleScore(block()))})(gm)
    assert result.changed == (
        Change("fc", "gate added", ("fc_gate", "fc_tolerance", "fc_split")),
        Change("fc#2", "gate added", ("fc_2_gate", "fc_2_tolerance", "fc_2_split")),
    )
    assert result.modified
    assert result.refused == ()
    assert gm.get_submodule("routed.fc.gate") is gate


def test_tolerances_are_buffers_of_their_site_and_0() -> None:
    gm = after(4, Residual())
    tolerances = {name: float(b) for name, b in gm.named_buffers() if name.endswith("tolerance")}
    assert tolerances == {f"routed.{site}.tolerance": 0.0 for site in ("stem", "fc1_fc2", "head")}


def test_sites_without_a_light_branch_are_left_alone() -> None:
    gm = after(2, Residual())
    before = graph_text(gm)
    result = AddGate({"stem": ("input", ConstantScore(0.0))})(gm)
    assert not result.modified
    assert graph_text(gm) == before


def test_nothing_to_do() -> None:
    assert not AddGate({})(after(3, NoBlock())).modified


def test_a_gate_is_required_for_every_light_branch() -> None:
    gm = after(3, Residual())
    before = graph_text(gm)
    wanted = r"^sites \['fc1\.\.fc2', 'stem'\] have a light branch and no gate$"
    with pytest.raises(PassError, match=wanted):
        AddGate({"head": ("input", ConstantScore(0.0))})(gm)
    assert graph_text(gm) == before


def test_claim_every_tolerance_is_0() -> None:
    gm = after(4, Mlp())
    gm.get_buffer("routed.fc1_fc2.tolerance").fill_(0.5)
    with pytest.raises(PassError, match=r"^the tolerance of 'fc1\.\.fc2' is not 0 before calibration$"):
        AddGate({}).ensures(gm)


def test_claim_nothing_is_routed_yet() -> None:
    with pytest.raises(PassError) as caught:
        AddGate({}).ensures(after(5, Mlp()))
    wanted = "rows of 'fc1..fc2' are routed before RouteRows: [fc1_fc2_light, fc1_fc2_full]"
    assert str(caught.value) == wanted
