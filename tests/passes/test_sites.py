"""The five passes of sites, MarkSites to RouteRows: what each makes of a graph, says of it, leaves alone and refuses."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from dendrofx.errors import PassError
from dendrofx.gates import AlwaysLight, GateForm, OracleGate, ResidualGate
from dendrofx.graph.capture import capture
from dendrofx.graph.find_sites import find_sites
from dendrofx.graph.show import graph_text
from dendrofx.graph.sites import Refusal, Site
from dendrofx.passes import AddGate, AddLight, Change, MarkSites, OutlineBlock, Pass, PassResult, RouteRows
from dendrofx.runtime.control_scores import ConstantScore, OracleScore
from dendrofx.runtime.evidence_scores import ResidualScore
from dendrofx.runtime.leaves import LightAfterGate, LightBeforeGate, LightWithEvidence
from dendrofx.values.meta import Note
from tests.check import after, assert_same_graph, assert_same_output
from tests.models import Mlp, NoBlock, Residual, Shared
from tests.passes import expected
from tests.passes.expected import LIGHT, Expected

Kind = type[nn.Module]
MLP = Site("fc1..fc2", ("fc1", "act", "drop", "fc2"), ("fc1", "fc2"), (16, 32, 8))
INSIDE, HEAD, ELSEWHERE = (Site(n, (n,), (n,), (16, 16)) for n in ("fc1", "head", "fc9"))
INPUT, ORACLE, EVIDENCE = ConstantScore(0.0), OracleScore(nn.Linear(16, 8)), ResidualScore(torch.zeros(2, 7), 0.0)
GATE_1, GATE_2, GATE_3 = AlwaysLight(), OracleGate(), ResidualGate()
SECOND = AddLight({"fc#2": nn.Linear(16, 16)})


class Clash(nn.Module):
    """It has an attribute of the name that OutlineBlock needs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.routed = nn.ModuleDict({"b": nn.Linear(4, 4)}), nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.routed(self.a["b"](x))


@pytest.mark.parametrize(
    ("steps", "kind", "gate", "wanted"),
    [
        pytest.param(2, Residual, GATE_1, Expected(expected.outlined_residual), id="OutlineBlock 1: users stay"),
        pytest.param(2, Mlp, GATE_1, Expected(expected.outlined), id="OutlineBlock 2: middle nodes go"),
        pytest.param(3, Mlp, GATE_1, Expected(expected.lit), id="AddLight 1: nothing reads it"),
        pytest.param(4, Mlp, GATE_1, Expected(expected.gated_by_input, LIGHT, INPUT), id="AddGate: input"),
        pytest.param(
            4, Mlp, GATE_2, Expected(expected.gated_by_light, LightBeforeGate(LIGHT), ORACLE), id="AddGate: light"
        ),
        pytest.param(
            4, Mlp, GATE_3, Expected(expected.gated_by_light, LightWithEvidence(LIGHT), EVIDENCE), id="AddGate: evidence"
        ),
        pytest.param(
            5, Mlp, GATE_1, Expected(expected.routed_by_input, LightAfterGate(LIGHT), INPUT), id="RouteRows 1: input"
        ),
        pytest.param(
            5, Mlp, GATE_2, Expected(expected.routed_by_light, LightBeforeGate(LIGHT), ORACLE), id="RouteRows 2: light"
        ),
        pytest.param(
            5, Mlp, GATE_3, Expected(expected.routed_by_light, LightWithEvidence(LIGHT), EVIDENCE), id="RouteRows 2: evidence"
        ),
    ],
)  # fmt: skip
def test_before_and_expected(steps: int, kind: Kind, gate: GateForm, wanted: Expected) -> None:
    """That outputs stay is tested for every pass, model and gate in `test_routed`."""
    assert_same_graph(after(steps, kind(), gate), wanted)


def test_what_is_not_selected_stays() -> None:
    """MarkSites changes nothing; OutlineBlock 3: a Linear with another call stays; AddLight 2: a site without light too."""
    model = Residual()
    assert_same_graph(after(1, model), capture(model.eval()))
    model = Shared()
    for gm, wanted in (
        (after(2, model, select=lambda site: site.name == "fc"), Expected(expected.outlined_first)),
        (SECOND(after(2, model)).graph_module, Expected(expected.lit_second, nn.Linear(16, 16))),
    ):
        assert_same_graph(gm, wanted)
        assert_same_output(model, gm, torch.randn(5, 16))


# ------------------------------------------------------------------------------------------------ what is said of it

ADD_GATES = AddGate({"fc": ("input", INPUT), "fc#2": ("light", ORACLE)})
CHANGED: list[tuple[int, Kind, Pass, str, dict[str, tuple[str, ...]]]] = [
    (0, Mlp, MarkSites((MLP,)), "marked", {"fc1..fc2": ("fc1", "act", "drop", "fc2")}),
    (1, Mlp, OutlineBlock(), "outlined as routed.fc1_fc2.block", {"fc1..fc2": ("fc2",)}),
    (2, Mlp, AddLight({"fc1..fc2": LIGHT}), "light branch added", {"fc1..fc2": ("fc1_fc2_rows", "fc1_fc2_light")}),
    (2, Shared, SECOND, "light branch added", {"fc#2": ("fc_2_rows", "fc_2_light")}),
    (3, Shared, ADD_GATES, "gate added", {
        "fc": ("fc_gate", "fc_tolerance", "fc_split"), "fc#2": ("fc_2_gate", "fc_2_tolerance", "fc_2_split"),
    }),
    (4, Shared, RouteRows(), "routed", {"fc": ("fc_light", "fc_full", "fc"), "fc#2": ("fc_2_light", "fc_2_full", "fc_1")}),
]  # fmt: skip
UNCHANGED: list[tuple[int, Kind, Pass]] = [
    (0, NoBlock, MarkSites(())),
    (0, NoBlock, OutlineBlock()),
    (0, Residual, OutlineBlock()),
    (0, Clash, OutlineBlock()),  # the name may be taken where no site is marked
    (2, NoBlock, AddLight({"fc1": nn.Linear(16, 16)})),
    (2, Residual, AddLight({})),
    (2, Residual, AddGate({"stem": ("input", INPUT)})),
    (3, NoBlock, AddGate({})),
    *((steps, Residual, RouteRows()) for steps in (0, 1, 2)),
]


@pytest.mark.parametrize(("steps", "kind", "step", "what", "nodes"), CHANGED)
def test_what_was_done_is_said(
    steps: int, kind: Kind, step: Pass, what: str, nodes: dict[str, tuple[str, ...]]
) -> None:
    result = step(after(steps, kind()))
    assert result.changed == tuple(Change(site, what, names) for site, names in nodes.items())
    assert result.modified
    assert result.refused == ((Refusal("fc", "no light branch given", "fc"),) if step is SECOND else ())


@pytest.mark.parametrize(("steps", "kind", "step"), UNCHANGED)
def test_what_was_left_alone_is_as_it_was(steps: int, kind: Kind, step: Pass) -> None:
    gm = after(steps, kind())
    before, code = graph_text(gm), gm.code
    result = step(gm)
    assert not result.modified
    assert (graph_text(gm), gm.code) == (before, code)
    last = {"stem": "stem", "fc1..fc2": "fc2", "head": "head"} if step == AddLight({}) else {}
    assert result.refused == tuple(Refusal(site, "no light branch given", node) for site, node in last.items())


LIT = {"fc1_fc2_rows": "rows", "fc1_fc2_light": "light", "fc2": "outlined"}
GATED = {**LIT, "fc1_fc2_gate": "gate", "fc1_fc2_tolerance": "tolerance", "fc1_fc2_split": "split"}
ROUTED = {**GATED, "fc1_fc2_full": "full", "fc2": "routed"}


@pytest.mark.parametrize(
    ("steps", "parts"),
    [(1, dict.fromkeys(MLP.nodes, "block")), (2, {"fc2": "outlined"}), (3, LIT), (4, GATED), (5, ROUTED)],
)
def test_every_node_of_a_site_is_noted_and_no_other(steps: int, parts: dict[str, str]) -> None:
    nodes = after(steps, Mlp()).graph.nodes
    notes = {n.name: n.meta["dendrofx"] for n in nodes if "dendrofx" in n.meta}
    assert notes == {name: Note("fc1..fc2", part) for name, part in parts.items()}
    marked = after(1, Residual(), select="fc1..fc2").graph.nodes
    assert [n.name for n in marked if "dendrofx" in n.meta] == ["fc1", "relu_1", "fc2"]


# ---------------------------------------------------------------------------------------------- refusals and claims


def clash() -> fx.GraphModule:
    """A graph module that was not captured here, which would give the attribute another name."""
    gm = fx.symbolic_trace(Clash().eval())
    marked = fx.GraphModule(gm, gm.graph)
    return MarkSites(tuple(find_sites(marked)))(marked).graph_module


def noted(gm: fx.GraphModule, *names: str) -> fx.GraphModule:
    """With notes of an outlined site "odd"."""
    for node in gm.graph.nodes:
        if node.name in names:
            node.meta["dendrofx"] = Note("odd", "outlined")
    return gm


def rewired(gm: fx.GraphModule, name: str, *args: Any) -> fx.GraphModule:
    """With other arguments of a node, each of them a name or a tuple of names."""
    at = {n.name: n for n in gm.graph.nodes}
    at[name].args = tuple(tuple(at[b] for b in a) if isinstance(a, tuple) else at[a] for a in args)
    return gm


def tolerant() -> fx.GraphModule:
    gm = after(4, Mlp())
    gm.get_buffer("routed.fc1_fc2.tolerance").fill_(0.5)
    return gm


REFUSED: list[tuple[Pass, Callable[[], fx.GraphModule], str]] = [
    (MarkSites((ELSEWHERE,)), lambda: after(0, Mlp()), "site 'fc9' names node %fc9, which the graph does not have"),
    (OutlineBlock(), clash, "the model has an attribute 'routed', which dendrofx needs for its own modules"),
    (AddLight({}), lambda: after(3, Mlp()), "sites ['fc1..fc2'] already have a light branch"),
    (
        AddGate({"head": ("input", INPUT)}),
        lambda: after(3, Residual()),
        "sites ['fc1..fc2', 'stem'] have a light branch and no gate",
    ),
    (RouteRows(), lambda: after(3, Residual()), "sites ['fc1..fc2', 'head', 'stem'] have no gate: run AddGate first"),
]
# Whose claims are broken: marks of others, and sites that share a node; nodes that are loose, that are no chain, or several; ...
ODD = "site 'odd' is not one call of a chain: "
CLAIMS: list[tuple[Pass, Callable[[], fx.GraphModule], str]] = [
    (
        MarkSites((HEAD,)),
        lambda: after(1, Residual(), select=["stem", "head"]),
        "marked {'stem': ('stem',), 'head': ('head',)}, wanted {'head': ('head',)}",
    ),
    (
        MarkSites((MLP, INSIDE)),
        lambda: after(1, Mlp()),
        f"marked {{'fc1..fc2': {MLP.nodes}}}, wanted {{'fc1..fc2': {MLP.nodes}, 'fc1': ('fc1',)}}",
    ),
    (OutlineBlock(), lambda: after(1, Mlp()), "sites ['fc1..fc2'] still have loose nodes"),
    (OutlineBlock(), lambda: noted(after(2, Residual()), "stem", "head"), f"{ODD}[stem, head]"),
    (OutlineBlock(), lambda: noted(after(0, Mlp()), "act"), f"{ODD}[act]"),
    (OutlineBlock(), lambda: noted(after(0, Mlp()), "fc1", "fc2"), f"{ODD}[fc1, fc2]"),
    (
        AddLight({}),
        lambda: rewired(after(3, Mlp()), "fc2", "fc1_fc2_light"),
        "the light branch of 'fc1..fc2' has users before it has a gate: [fc2]",
    ),
    (AddGate({}), tolerant, "the tolerance of 'fc1..fc2' is not 0 before calibration"),
    (
        AddGate({}),
        lambda: after(5, Mlp()),
        "rows of 'fc1..fc2' are routed before RouteRows: [fc1_fc2_light, fc1_fc2_full]",
    ),
    (
        RouteRows(),
        lambda: rewired(after(5, Mlp()), "output", ("fc2", "fc1_fc2_full")),
        "the output of 'fc1..fc2' does not come from its full leaf: [fc2, output]",
    ),
    (
        RouteRows(),
        lambda: rewired(after(5, Mlp()), "fc1_fc2_full", "fc1_fc2_rows", "fc1_fc2_rows", "fc1_fc2_split"),
        "the output of 'fc1..fc2' does not come from its full leaf: [fc2]",
    ),
]


@pytest.mark.parametrize(("step", "enters", "message"), REFUSED)
def test_refused_before_anything_is_changed(step: Pass, enters: Callable[[], fx.GraphModule], message: str) -> None:
    gm = enters()
    before = graph_text(gm)
    with pytest.raises(PassError) as caught:
        step(gm)
    assert str(caught.value) == message
    assert graph_text(gm) == before


@pytest.mark.parametrize(("step", "broken", "message"), CLAIMS)
def test_claims(step: Pass, broken: Callable[[], fx.GraphModule], message: str) -> None:
    with pytest.raises(PassError) as caught:
        step.ensures(broken())
    assert str(caught.value) == message


def test_claims_are_checked_on_the_result() -> None:
    class Impatient(AddLight):
        def run(self, gm: fx.GraphModule) -> PassResult:
            result = super().run(gm)
            rewired(gm, "output", "fc1_fc2_light")
            return result

    with pytest.raises(PassError, match="has users before it has a gate"):
        Impatient({"fc1..fc2": nn.Linear(16, 8)})(after(2, Mlp()))
