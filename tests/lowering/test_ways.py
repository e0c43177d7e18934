"""Eager, copied, pickled, scripted, frozen and saved: one function, one set of counts."""

import copy
import io
import math
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from dendrofx.gates import EnergyGate, GateForm, LearnedGate, OracleGate, RandomGate, ResidualGate, SiteRows
from dendrofx.graph.block import BlockData, block_of
from dendrofx.graph.capture import capture
from dendrofx.graph.find_sites import find_sites
from dendrofx.graph.record import record_rows
from dendrofx.light import LightForm, LowRank, Pruned
from dendrofx.lowering.script import artifact_bytes
from dendrofx.rewriting.counted import graph_names
from dendrofx.rewriting.module import RoutedModule
from dendrofx.rewriting.rewrite import Branches, rewrite
from dendrofx.search.choose import relative_error
from dendrofx.values.inputs import Inputs
from tests.made import ROUND_TRIPS, SAME_KERNELS, SETTABLE, set_all
from tests.models import Mlp, Residual, compressible

Pair = tuple[LightForm, GateForm]
MODULES: dict[str, tuple[Callable[[], nn.Module], Pair]] = {
    "residual gate": (compressible, (LowRank(6), ResidualGate())),
    "learned gate": (compressible, (LowRank(6, "whitened"), LearnedGate())),
    "energy gate": (compressible, (LowRank(6), EnergyGate())),
    "oracle": (compressible, (LowRank(6), OracleGate())),
    "random": (compressible, (LowRank(6), RandomGate(0.4))),
    "pruned": (compressible, (Pruned(0.6), LearnedGate())),
    "several sites": (Residual, (LowRank(6), EnergyGate())),
    "gelu": (Mlp, (LowRank(6), EnergyGate())),
}
COMMON = ("residual gate", "learned gate", "several sites")  # each on every way by default
EXACT: dict[str, Any] = {"rtol": 0.0, "atol": 0.0}
TOLERANCES = (0.0, 0.03, 0.3, math.inf)


@cache
def kept(kind: str) -> tuple[RoutedModule, Tensor]:
    """A model with every site routed, and rows to run it on."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        build, pair = MODULES[kind]
        return rewritten(build().eval(), pair)


def routed(kind: str = "residual gate") -> tuple[RoutedModule, Tensor]:
    """The same for a test that changes it."""
    module, x = kept(kind)
    return copy.deepcopy(module), x


def rewritten(model: nn.Module, pair: Pair) -> tuple[RoutedModule, Tensor]:
    gm = capture(model)
    sites, width = find_sites(gm), next(m for m in model.modules() if isinstance(m, nn.Linear)).in_features
    rows = torch.randn(300, width) * torch.logspace(-1, 1, 300)[torch.randperm(300)][:, None]
    recorded = record_rows(gm, sites, [Inputs.of(rows)], 0).rows
    branches = {}
    for site in sites:
        data = BlockData(block_of(gm, site.nodes), recorded[site.name])
        light = pair[0].fit_data(data)
        branches[site.name] = Branches(
            pair[0], light, pair[1], pair[1].fit(SiteRows(data, light, relative_error(data, light)))
        )
    return rewrite(gm, list(sites), branches), rows[:64]


def assert_same(got: nn.Module, wanted: nn.Module, x: Tensor, tolerance: dict[str, Any] = SAME_KERNELS) -> None:
    """Same outputs and counts, on the second and third call too (TorchScript optimises on the second)."""
    output, counts = wanted.forward_counted(x)
    for _ in range(3):
        plain, (again, recounted) = got(x), got.forward_counted(x)
        for found in (plain, again):
            torch.testing.assert_close(found, output, **tolerance)
            assert not found.requires_grad
        assert recounted == counts


@pytest.mark.parametrize("way", ROUND_TRIPS)
@pytest.mark.parametrize(
    "kind", [*COMMON, *(pytest.param(k, marks=pytest.mark.slow) for k in MODULES if k not in COMMON)]
)
def test_every_way_does_what_eager_does(kind: str, way: str) -> None:
    module, x = routed(kind)
    assert not any(p.requires_grad for p in module.parameters())
    got = ROUND_TRIPS[way](module)
    given = (x, x[:1], x[:0], x[0], x.reshape(4, 16, -1))
    for tolerance in TOLERANCES:
        set_all(module, tolerance)
        if way in SETTABLE:
            set_all(got, tolerance)
        else:
            got = ROUND_TRIPS[way](module)
            assert dendrofx.tolerances(got) == {}
        for rows in given:
            assert_same(got, module, rows, EXACT if way in ("eager", "pickled") else SAME_KERNELS)
    assert len(module.forward_counted(x)[1]) == (3 if kind == "several sites" else 1)


@pytest.mark.parametrize("way", ["eager", "pickled"])
def test_what_python_copies_is_a_routed_module_of_its_own(way: str) -> None:
    module, x = routed()
    set_all(module, 0.03)
    copied = ROUND_TRIPS[way](module)
    assert isinstance(copied, RoutedModule)
    with pytest.raises(AttributeError) as error:
        _ = copied.plan
    assert str(error.value) == "this module has no plan: it was rewritten by passes, not by dendrofx.transform"
    assert_same(dendrofx.script(copied), module, x)
    set_all(copied, math.inf)
    assert [float(t) for t in dendrofx.tolerances(module).values()] == [pytest.approx(0.03)]
    assert_same(dendrofx.script(copied), copied, x)


def test_the_size_of_an_artifact_is_that_of_its_file() -> None:
    for freeze in (False, True):
        scripted, buffer = dendrofx.script(kept("learned gate")[0], freeze=freeze), io.BytesIO()
        torch.jit.save(scripted, buffer)
        assert artifact_bytes(scripted) == buffer.tell()


def holds_linear(block: Any) -> bool:
    """Whether a TorchScript block, or one inside it, holds a Linear's product."""
    return any(n.kind() == "aten::linear" or any(map(holds_linear, n.blocks())) for n in block.nodes())


@pytest.mark.parametrize("kind", [k for k, (build, _) in MODULES.items() if build is compressible])
def test_the_branches_stay_conditional(kind: str) -> None:
    module, _ = kept(kind)
    assert not dendrofx.script(compressible()).inlined_graph.findAllNodes("prim::If")
    for scripted in (dendrofx.script(module), dendrofx.script(module, freeze=True)):
        graph = scripted.inlined_graph  # its nodes live as long as it is held
        guarded = [n for n in graph.findAllNodes("prim::If") if any(map(holds_linear, n.blocks()))]
        # full: all hard, and inside it mixed; a light branch behind its gate: no row easy
        reads_light = isinstance(MODULES[kind][1][1], ResidualGate | OracleGate)
        assert len(guarded) == (2 if reads_light else 3)
        assert any("aten::index_copy_" in str(n) for n in guarded)


LOADER = """
import sys, math
sys.modules["dendrofx"] = None  # importing it would fail
assert not any(p.startswith(sys.argv[1]) for p in sys.path)
import torch
torch.set_num_threads(1)
module, x = torch.jit.load("module.pt"), torch.load("x.pt")
assert "dendrofx.light" not in sys.modules
for tolerance in (0.0, 0.03, math.inf):
    for name, buffer in module.named_buffers():
        if name.endswith(".tolerance"):
            buffer.fill_(tolerance)
    output, counts = module.forward_counted(x)
    assert torch.equal(module(x), output)
    torch.save((output, counts), f"{tolerance}.pt")
"""


def test_a_saved_module_runs_without_dendrofx(tmp_path: Path) -> None:
    module, x = routed()
    torch.jit.save(dendrofx.script(module), str(tmp_path / "module.pt"))
    torch.save(x, tmp_path / "x.pt")
    root = str(Path(dendrofx.__file__).parents[1])
    command = [sys.executable, "-I", "-W", "ignore", "-c", LOADER, root]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    for tolerance in (0.0, 0.03, math.inf):
        set_all(module, tolerance)
        output, counts = torch.load(tmp_path / f"{tolerance}.pt")
        wanted, expected = module.forward_counted(x)  # type: ignore[operator]
        torch.testing.assert_close(output, wanted, **SAME_KERNELS)
        assert counts == expected


def test_scripting_again_after_a_change_of_the_graph_gives_the_new_code() -> None:
    module, x = routed("gelu")
    first = dendrofx.script(module)
    output = next(n for n in module.graph.nodes if n.op == "output")
    with module.graph.inserting_before(output):
        negative = module.graph.call_function(torch.neg, (output.args[0],))
    output.args = (negative,)
    module.recompile()
    assert_same(dendrofx.script(module), module, x)
    torch.testing.assert_close(dendrofx.script(module)(x), -first(x), **SAME_KERNELS)
    torch.testing.assert_close(dendrofx.script(module).forward_counted(x)[0], -first(x), **SAME_KERNELS)


def test_any_module_can_be_scripted() -> None:
    model, x = compressible(), torch.randn(5, 64)
    for scripted in (dendrofx.script(model), dendrofx.script(capture(model), freeze=True)):
        torch.testing.assert_close(scripted(x), model(x), **SAME_KERNELS)


def test_tolerances_of_the_script_are_its_own() -> None:
    module, x = routed("several sites")
    set_all(module, 0.1)
    copied = copy.deepcopy(module)
    scripted = dendrofx.script(copied)
    assert set(dendrofx.tolerances(scripted)) == set(graph_names(module)) == {"stem", "fc1..fc2", "head"}
    dendrofx.set_tolerances(scripted, {"fc1_fc2": math.inf})
    values = {name: round(float(t), 6) for name, t in dendrofx.tolerances(scripted).items()}
    assert values == {"stem": 0.1, "fc1..fc2": math.inf, "head": 0.1}
    dendrofx.set_tolerances(module, {"fc1_fc2": math.inf})
    assert_same(scripted, module, x)


def test_frozen_shares_parameters_and_leaves_the_module_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)).eval()
    model[2].weight = model[0].weight  # tied
    rows = torch.randn(3, 8)
    before = model(rows)
    frozen = dendrofx.script(model, freeze=True)
    constants = [
        n for n in frozen.graph.findAllNodes("prim::Constant") if n.hasAttribute("value") and n.kindOf("value") == "t"
    ]
    held = {n.t("value").data_ptr() for n in constants}
    assert held == {p.data_ptr() for p in model.parameters()}
    assert torch.equal(model(rows), before)
    assert torch.equal(frozen(rows), before)


class Writer(nn.Module):
    """Writes itself to a file by its own method, and is whole again only if that saw its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(4) * 2)
        self.total = 8.0

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.total

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, bool]:
        return self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, bool]) -> None:
        self.weight = state[0]
        self.total = float(state[0][0, 0] * 4)  # as laying out does, it needs the weight as it is
        self.training = state[1]


@pytest.mark.parametrize("copies", [0, 1, 2])
def test_a_module_that_writes_itself_is_frozen_whole(copies: int) -> None:
    one = Writer().eval()
    model = one if copies == 0 else nn.Sequential(*[one] * copies).eval()
    rows = torch.randn(3, 4)
    assert torch.equal(dendrofx.script(model, freeze=True)(rows), model(rows))
