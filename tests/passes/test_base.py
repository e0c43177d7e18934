"""The contract of a pass, and how passes are run, with toy passes."""

import copy
from dataclasses import dataclass, field

import pytest
import torch
from torch import fx, nn

from dendrofx.errors import PassError
from dendrofx.graph.capture import capture
from dendrofx.graph.show import graph_text
from dendrofx.graph.sites import Refusal
from dendrofx.passes import Change, Pass, PassResult, run_passes
from dendrofx.passes.places import graph_name, noted
from dendrofx.values.meta import Note
from tests.check import assert_same_graph, assert_same_output, five_passes
from tests.models import Mlp, NoBlock, Residual


@dataclass(frozen=True)
class Look(Pass):
    """Changes nothing and keeps what each step was given."""

    seen: list[tuple[str, fx.GraphModule]] = field(default_factory=list)

    def requires(self, gm: fx.GraphModule) -> None:
        self.seen.append(("requires", gm))

    def run(self, gm: fx.GraphModule) -> PassResult:
        self.seen.append(("run", gm))
        return PassResult(fx.GraphModule(gm, copy.deepcopy(gm.graph)))

    def ensures(self, gm: fx.GraphModule) -> None:
        self.seen.append(("ensures", gm))


@dataclass(frozen=True)
class Negate(Pass):
    """Negate the output. Claim: at most `limit` negations."""

    limit: int = 1

    def run(self, gm: fx.GraphModule) -> PassResult:
        (output,) = (n for n in gm.graph.nodes if n.op == "output")
        with gm.graph.inserting_before(output):
            new = gm.graph.call_function(torch.neg, (output.args[0],))
        output.args = (new,)
        return PassResult(gm, (Change("all", "negated", (new.name,)),), (Refusal("none", "no reason"),))

    def ensures(self, gm: fx.GraphModule) -> None:
        count = sum(n.target is torch.neg for n in gm.graph.nodes)
        if count > self.limit:
            raise PassError(f"{count} negations, at most {self.limit} claimed")


@dataclass(frozen=True)
class Demand(Pass):
    """Requires what is never there."""

    def requires(self, gm: fx.GraphModule) -> None:
        raise PassError("the graph has no unicorn")

    def run(self, gm: fx.GraphModule) -> PassResult:
        raise AssertionError("ran in spite of its requirement")


@dataclass(frozen=True)
class Tangle(Pass):
    """Leaves a graph that uses a value before it is made."""

    def run(self, gm: fx.GraphModule) -> PassResult:
        first, second = [n for n in gm.graph.nodes if n.op.startswith("call")][:2]
        second.append(first)
        return PassResult(gm)


@dataclass(frozen=True)
class Crash(Pass):
    """Fails with an error that is not its own."""

    def run(self, gm: fx.GraphModule) -> PassResult:
        raise KeyError("fc9")


def test_steps_in_order_and_ensures_on_the_result() -> None:
    gm, step = capture(NoBlock().eval()), Look()
    result = step(gm)
    assert result.graph_module is not gm
    assert step.seen == [("requires", gm), ("run", gm), ("ensures", result.graph_module)]


def test_modified_is_computed_from_what_was_changed() -> None:
    gm = capture(NoBlock().eval())
    assert not Look()(gm).modified
    assert Negate()(gm).modified
    assert not PassResult(gm, refused=(Refusal("fc", "no"),)).modified


def test_result_is_recompiled() -> None:
    model = NoBlock().eval()
    gm = Negate()(capture(model)).graph_module
    x = torch.randn(3, 4)
    assert torch.equal(gm(x), -model(x))


def test_broken_claim_is_found_on_the_result() -> None:
    gm = capture(NoBlock().eval())
    with pytest.raises(PassError, match=r"^1 negations, at most 0 claimed$") as caught:
        Negate(limit=0)(gm)
    assert caught.value.graph == ""


def test_unmet_requirement_leaves_the_graph_alone() -> None:
    gm = capture(Mlp().eval())
    before, code = graph_text(gm), gm.code
    with pytest.raises(PassError, match=r"^the graph has no unicorn$"):
        Demand()(gm)
    assert (graph_text(gm), gm.code) == (before, code)


def test_invalid_graph_is_found_before_it_is_compiled() -> None:
    with pytest.raises(RuntimeError, match="was used before it has been defined"):
        Tangle()(capture(NoBlock().eval()))


def test_run_passes_collects_changes_and_refusals_in_order() -> None:
    gm = capture(NoBlock().eval())
    result = run_passes(gm, [Negate(), Look(), Negate(limit=2)])
    assert [c.nodes for c in result.changed] == [("neg",), ("neg_1",)]
    assert result.refused == (Refusal("none", "no reason"),) * 2
    assert result.modified
    assert result.graph_module is not gm  # what `Look` returned is what the next pass was given


def test_run_passes_without_passes() -> None:
    gm = capture(NoBlock().eval())
    assert run_passes(gm, []) == PassResult(gm)


@pytest.mark.parametrize(
    ("last", "reason", "cause"),
    [
        (Demand(), "Demand() failed after Negate, Look: the graph has no unicorn", PassError),
        (Negate(), "Negate(limit=1) failed after Negate, Look: 2 negations, at most 1 claimed", PassError),
        (Crash(), "Crash() failed after Negate, Look: 'fc9'", KeyError),
    ],
)
def test_run_passes_names_the_pass_and_those_before(last: Pass, reason: str, cause: type[Exception]) -> None:
    gm = capture(NoBlock().eval())
    with pytest.raises(PassError) as caught:
        run_passes(gm, [Negate(), Look(), last])
    assert str(caught.value) == reason
    assert type(caught.value.__cause__) is cause
    assert caught.value.graph.splitlines() == [
        "graph(x)",
        "  tanh = tanh(x)",
        "  mul  = mul(tanh, 2)",
        "  neg  = neg(mul)",
        "  return neg",
    ]


def test_run_passes_first_pass_fails() -> None:
    with pytest.raises(PassError, match=r"^Demand\(\) failed: the graph has no unicorn$"):
        run_passes(capture(NoBlock().eval()), [Demand()])


def test_failure_of_a_real_pass_is_one_line() -> None:
    gm = capture(Mlp().eval())
    steps = five_passes(gm)
    with pytest.raises(PassError) as caught:
        run_passes(gm, [*steps[:3], steps[2]])
    assert "\n" not in str(caught.value)


def test_notes() -> None:
    gm = capture(Residual().eval())
    for node in gm.graph.nodes:
        if node.name in ("stem", "head", "fc1"):
            node.meta["dendrofx"] = Note("a" if node.name != "head" else "b", "block")
    assert {site: [n.name for n in nodes] for site, nodes in noted(gm, "block").items()} == {
        "a": ["stem", "fc1"],
        "b": ["head"],
    }
    assert noted(gm, "light") == {}
    assert str(Note("fc1..fc2", "gate")) == "gate of fc1..fc2"


@pytest.mark.parametrize(
    ("site", "name"),
    [
        ("head", "head"),
        ("blocks.0.fc1..fc2", "blocks_0_fc1_fc2"),
        ("head#2", "head_2"),
        ("0..4", "site_0_4"),
        ("_fc", "fc"),
    ],
)
def test_graph_name(site: str, name: str) -> None:
    assert graph_name(site) == name
    assert name.isidentifier()


def test_assert_same_graph_sees_differences() -> None:
    mlp = capture(Mlp().eval())
    assert_same_graph(mlp, capture(Mlp().eval()))
    for other in (Residual(), nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 8))):
        with pytest.raises(AssertionError, match=r"^graphs differ:"):
            assert_same_graph(mlp, capture(other.eval()))
    with pytest.raises(AssertionError):
        assert_same_output(mlp, capture(Mlp().eval()), torch.randn(2, 16))
