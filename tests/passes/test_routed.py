"""Routed sites: where their modules are, and that rows take the branch that the tolerance says; at 0 nothing has changed."""

import pytest
import torch
from torch import Tensor, fx, nn

from dendrofx.gates import AlwaysFull, AlwaysLight, GateForm, OracleGate, RandomGate, ResidualGate
from dendrofx.graph.block import row_macs
from dendrofx.graph.capture import capture
from dendrofx.graph.show import graph_text
from dendrofx.passes import AddGate, AddLight, RouteRows
from dendrofx.runtime.control_scores import ConstantScore
from dendrofx.runtime.leaves import FullOnHardRows
from dendrofx.runtime.routing import restore_rows
from tests.check import OTHER_GEMM, SAME_GEMM, after, assert_same_output
from tests.models import Mlp, NoBlock, Residual, Shared
from tests.passes.expected import LIGHT, block

GATES = [AlwaysLight(), AlwaysFull(), RandomGate(0.5), OracleGate(), ResidualGate()]
PARTS = ("_rows", "_light", "_gate", "_tolerance", "_split", "_full")

# ------------------------------------------------------------------------------------------------ modules and names


def test_modules_of_a_site() -> None:
    gm, gate = after(2, Mlp()), ConstantScore(0.0)
    chain = gm.get_submodule("routed.fc1_fc2.block")
    assert repr(chain) == repr(block())
    assert sorted(name for name, _ in gm.named_parameters()) == [
        f"routed.fc1_fc2.block.{i}.{kind}" for i in (0, 2) for kind in ("bias", "weight")
    ]
    AddLight({"fc1..fc2": LIGHT})(gm)
    assert gm.get_submodule("routed.fc1_fc2.light") is LIGHT
    AddGate({"fc1..fc2": ("input", gate)})(gm)
    assert gm.get_submodule("routed.fc1_fc2.gate") is gate
    RouteRows()(gm)
    full = gm.get_submodule("routed.fc1_fc2.full")
    assert isinstance(full, FullOnHardRows)
    assert full.full is chain
    assert full.original_macs == row_macs(chain) == 16 * 32 + 32 * 8
    assert "routed.fc1_fc2.block" not in dict(gm.named_modules())


def test_tolerances_are_buffers_of_their_site_and_0() -> None:
    tolerances = {n: float(b) for n, b in after(4, Residual()).named_buffers() if n.endswith("tolerance")}
    assert tolerances == {f"routed.{site}.tolerance": 0.0 for site in ("stem", "fc1_fc2", "head")}


def test_sites_of_one_module_share_its_weights() -> None:
    gm = after(2, Shared())
    assert gm.get_submodule("routed.fc.block.0") is gm.get_submodule("routed.fc_2.block.0")
    gm = after(2, Shared(), select=lambda site: site.name == "fc")
    assert gm.get_submodule("fc") is gm.get_submodule("routed.fc.block.0")


@pytest.mark.parametrize("steps", [2, 3, 4, 5])
@pytest.mark.parametrize("gate", GATES, ids=repr)
def test_the_last_node_keeps_its_name_and_users(gate: GateForm, steps: int) -> None:
    nodes = {n.name: n for n in after(steps, Residual(), gate).graph.nodes}
    assert [n for n in nodes if not n.endswith(PARTS)] == ["x", "stem", "relu", "fc2", "add", "head", "output"]
    for name, user in (("stem", "relu"), ("fc2", "add"), ("head", "output")):
        assert (nodes[name].target is restore_rows) is (steps == 5)
        assert nodes[user] in nodes[name].users


class AlikeNames(nn.Module):
    """Two Linears whose names are the same identifier."""

    def __init__(self) -> None:
        super().__init__()
        self.a_b, self.a = nn.Linear(16, 16), nn.ModuleDict({"b": nn.Linear(16, 16)})

    def forward(self, x: Tensor) -> Tensor:
        return self.a["b"](self.a_b(x) + x)


def test_names_that_become_alike_are_numbered() -> None:
    calls = [n.target for n in after(2, AlikeNames()).graph.nodes if n.op == "call_module"]
    assert calls == ["routed.a_b.block", "routed.a_b_2.block"]


# ---------------------------------------------------------------------------------------------------------- outputs


class ByKeyword(nn.Module):
    """Its Linears are called by keyword."""

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


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("gate", GATES, ids=repr)
@pytest.mark.parametrize("kind", [Mlp, Residual, Shared, NoBlock, AlikeNames, ByKeyword, WritesToItsInput, InPlace])
def test_every_pass_keeps_every_bit_at_tolerance_0(kind: type[nn.Module], gate: GateForm, steps: int) -> None:
    model = kind()
    gm = after(steps, model, gate)
    for shape in ((7, 16), (2, 3, 16), (16,), (1, 16), (0, 16)):
        assert_same_output(model, gm, torch.randn(shape), SAME_GEMM)
    assert_same_output(model, gm, torch.full((3, 16), float("nan")), SAME_GEMM)


def routed_at(tolerance: float, gm: fx.GraphModule, x: Tensor) -> tuple[Tensor, Tensor]:
    """A routed `Mlp`'s output at a tolerance, and that of its light branch."""
    gm.get_buffer("routed.fc1_fc2.tolerance").fill_(tolerance)
    with torch.no_grad():
        return gm(x), gm.get_submodule("routed.fc1_fc2.light").light(x)


@pytest.mark.parametrize("gate", [AlwaysLight(), OracleGate(), ResidualGate()], ids=repr)
def test_above_every_score_rows_take_the_light_branch(gate: GateForm) -> None:
    got, light = routed_at(float("inf"), after(5, Mlp(), gate), torch.randn(7, 16))
    torch.testing.assert_close(got, light, **SAME_GEMM)


@pytest.mark.parametrize("gate", [RandomGate(0.5), RandomGate(0.9), OracleGate()], ids=repr)
def test_mixed_rows_come_from_their_branch(gate: GateForm) -> None:
    model, x = Mlp().eval().requires_grad_(False), torch.randn(64, 16)
    gm, full = after(5, model, gate), model(x)
    error = (routed_at(0.0, gm, x)[1] - full).norm(dim=1) / full.norm(dim=1)
    tolerance = float(error.sort().values[31:33].mean())  # between two rows' errors
    got, light = routed_at(tolerance, gm, x)
    easy = (got - light).abs().amax(1) < 1e-5
    assert 0 < int(easy.sum()) < len(x)
    torch.testing.assert_close(got, torch.where(easy[:, None], light, full), **OTHER_GEMM)
    if isinstance(gate, OracleGate):
        assert torch.equal(easy, error < tolerance)


def test_one_site_of_two_is_routed() -> None:
    model = Shared()
    gm = after(2, model)
    for step in (AddLight({"fc": nn.Linear(16, 16)}), AddGate({"fc": ("input", ConstantScore(1.0))}), RouteRows()):
        step(gm)
    assert "  fc_1 = routed.fc_2.block(norm)" in graph_text(gm).splitlines()
    assert_same_output(capture(model), gm, torch.randn(7, 16))
