"""RouteRows: easy rows take the light branch, hard rows the full one; at tolerance 0 nothing has changed."""

import pytest
import torch
from torch import Tensor, fx, nn

from dendrofx.errors import PassError
from dendrofx.gates import AlwaysFull, AlwaysLight, GateForm, OracleGate, RandomGate, ResidualGate
from dendrofx.graph.block import row_macs
from dendrofx.graph.show import graph_text
from dendrofx.passes import AddGate, AddLight, Change, RouteRows
from dendrofx.runtime.control_scores import ConstantScore, OracleScore
from dendrofx.runtime.evidence_scores import ResidualScore
from dendrofx.runtime.leaves import FullOnHardRows, LightAfterGate, LightBeforeGate, LightWithEvidence
from dendrofx.runtime.routing import as_rows, restore_rows, split_rows
from tests.check import OTHER_GEMM, SAME_GEMM, after, assert_same_graph, assert_same_output
from tests.models import Mlp, NoBlock, Residual, Shared

GATES = [AlwaysLight(), AlwaysFull(), RandomGate(0.5), OracleGate(), ResidualGate()]


class Expected(nn.Module):
    def __init__(self, gate: nn.Module, light: nn.Module) -> None:
        super().__init__()
        self.gate, self.light, self.full = gate, light, FullOnHardRows(nn.Linear(16, 8), 128)
        self.register_buffer("tolerance", torch.zeros(()))


class ReadsInput(Expected):
    def forward(self, x: Tensor) -> Tensor:
        rows = as_rows(x, 16, "fc1..fc2")
        split = split_rows(self.gate(rows), self.tolerance, 0.8972)
        light = self.light(rows, split)
        return restore_rows(self.full(rows, light, split), x)


class ReadsLight(Expected):
    def forward(self, x: Tensor) -> Tensor:
        rows = as_rows(x, 16, "fc1..fc2")
        light = self.light(rows)
        split = split_rows(self.gate(rows, light), self.tolerance, 2.0)
        return restore_rows(self.full(rows, light, split), x)


CASES = [
    (AlwaysLight(), ReadsInput(ConstantScore(0.0), LightAfterGate(nn.Linear(16, 8)))),
    (OracleGate(), ReadsLight(OracleScore(nn.Linear(16, 8)), LightBeforeGate(nn.Linear(16, 8)))),
    (ResidualGate(), ReadsLight(ResidualScore(torch.zeros(2, 7), 0.0), LightWithEvidence(nn.Linear(16, 8)))),
]


@pytest.mark.parametrize(
    ("gate", "expected"), CASES, ids=["case 1: light behind the split", "case 2: reads light", "case 2: evidence"]
)
def test_before_and_expected(gate: GateForm, expected: nn.Module) -> None:
    assert_same_graph(after(5, Mlp(), gate), expected)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("gate", GATES, ids=repr)
@pytest.mark.parametrize("kind", [Mlp, Residual, Shared, NoBlock])
def test_every_pass_keeps_every_bit_at_tolerance_0(kind: type[nn.Module], gate: GateForm, steps: int) -> None:
    model = kind()
    gm = after(steps, model, gate)
    for shape in ((7, 16), (2, 3, 16), (16,), (1, 16), (0, 16)):
        assert_same_output(model, gm, torch.randn(shape), SAME_GEMM)
    assert_same_output(model, gm, torch.full((3, 16), float("nan")), SAME_GEMM)


@pytest.mark.parametrize("gate", GATES, ids=repr)
def test_case_3_the_last_node_keeps_its_name_and_users(gate: GateForm) -> None:
    nodes = {n.name: n for n in after(5, Residual(), gate).graph.nodes}
    for name, user in (("stem", "relu"), ("fc2", "add"), ("head", "output")):
        assert nodes[name].target is restore_rows
        assert nodes[user] in nodes[name].users
    assert next(iter(nodes)) == "x"


def tolerance_of_everything(gm: fx.GraphModule, value: float) -> None:
    for name, buffer in gm.named_buffers():
        if name.endswith("tolerance"):
            buffer.fill_(value)


def light_only(gm: fx.GraphModule, x: Tensor) -> Tensor:
    light: Tensor = gm.get_submodule("routed.fc1_fc2.light").light(x)
    return light


@pytest.mark.parametrize("gate", [AlwaysLight(), OracleGate(), ResidualGate()], ids=repr)
def test_above_every_score_rows_take_the_light_branch(gate: GateForm) -> None:
    gm, x = after(5, Mlp(), gate), torch.randn(7, 16)
    tolerance_of_everything(gm, float("inf"))
    with torch.no_grad():
        torch.testing.assert_close(gm(x), light_only(gm, x), **SAME_GEMM)


@pytest.mark.parametrize("gate", [RandomGate(0.5), RandomGate(0.9), OracleGate()], ids=repr)
def test_mixed_rows_come_from_their_branch(gate: GateForm) -> None:
    model = Mlp()
    gm, x = after(5, model, gate), torch.randn(64, 16)
    with torch.no_grad():
        light, full = light_only(gm, x), model(x)
        error = (light - full).norm(dim=1) / full.norm(dim=1)
        tolerance = float(error.sort().values[31:33].mean())  # between two rows' errors
        tolerance_of_everything(gm, tolerance)
        got = gm(x)
    from_light = ((got - light).abs().amax(1) < 1e-5).tolist()
    assert 0 < sum(from_light) < len(x)
    wanted = torch.stack([light[i] if easy else full[i] for i, easy in enumerate(from_light)])
    torch.testing.assert_close(got, wanted, **OTHER_GEMM)
    if isinstance(gate, OracleGate):
        assert from_light == (error < tolerance).tolist()


def test_result_says_what_was_done() -> None:
    gm = after(4, Shared())
    result = RouteRows()(gm)
    assert result.changed == (
        Change("fc", "routed", ("fc_light", "fc_full", "fc")),
        Change("fc#2", "routed", ("fc_2_light", "fc_2_full", "fc_1")),
    )
    assert result.refused == ()
    assert [str(n.meta["dendrofx"]) for n in gm.graph.nodes if n.name in ("fc_full", "fc")] == [
        "full of fc",
        "routed of fc",
    ]


def test_the_block_moves_into_the_full_leaf() -> None:
    gm = after(4, Mlp())
    block = gm.get_submodule("routed.fc1_fc2.block")
    RouteRows()(gm)
    full = gm.get_submodule("routed.fc1_fc2.full")
    assert isinstance(full, FullOnHardRows)
    assert full.full is block
    assert full.original_macs == row_macs(block) == 16 * 32 + 32 * 8
    assert "routed.fc1_fc2.block" not in dict(gm.named_modules())


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_sites_without_a_light_branch_are_left_alone(steps: int) -> None:
    gm = after(steps, Residual())
    before = graph_text(gm)
    assert not RouteRows()(gm).modified
    assert graph_text(gm) == before


def test_one_site_of_two_is_routed() -> None:
    model = Shared()
    gm = after(2, model)
    for step in (AddLight({"fc": nn.Linear(16, 16)}), AddGate({"fc": ("input", ConstantScore(1.0))}), RouteRows()):
        step(gm)
    assert "  fc_1         = routed.fc_2.block(norm)" in graph_text(gm).splitlines()
    assert_same_output(model, gm, torch.randn(7, 16))


def test_a_gate_is_required() -> None:
    gm = after(3, Residual())
    before = graph_text(gm)
    wanted = r"^sites \['fc1\.\.fc2', 'head', 'stem'\] have no gate: run AddGate first$"
    with pytest.raises(PassError, match=wanted):
        RouteRows()(gm)
    assert graph_text(gm) == before


def test_claim_the_output_comes_from_the_full_leaf() -> None:
    gm = after(5, Mlp())
    nodes = {n.name: n for n in gm.graph.nodes}
    nodes["output"].args = ((nodes["fc2"], nodes["fc1_fc2_full"]),)
    wanted = r"^the output of 'fc1\.\.fc2' does not come from its full leaf: \[fc2, output\]$"
    with pytest.raises(PassError, match=wanted):
        RouteRows().ensures(gm)


def test_claim_the_light_branch_is_read() -> None:
    gm = after(5, Mlp())
    nodes = {n.name: n for n in gm.graph.nodes}
    full = nodes["fc1_fc2_full"]
    full.args = (full.args[0], full.args[0], full.args[2])
    with pytest.raises(PassError, match=r"^the output of 'fc1\.\.fc2' does not come from its full leaf: \[fc2\]$"):
        RouteRows().ensures(gm)
