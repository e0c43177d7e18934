"""Eager, scripted, frozen, saved and copied: one function, one set of counts."""

import copy
import io
import math
import subprocess
import sys
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
from dendrofx.light import BFloat16, Int8, LightForm, LowRank, Prepacked, Pruned
from dendrofx.lowering.fitted import MARK
from dendrofx.lowering.operators import PLAIN
from dendrofx.lowering.script import artifact_bytes, script_bytes
from dendrofx.rewriting.module import RoutedModule, graph_names
from dendrofx.rewriting.rewrite import Branches, rewrite
from dendrofx.search.choose import relative_error
from dendrofx.values.inputs import Inputs
from tests.models import Mlp, Residual, compressible

Pair = tuple[LightForm, GateForm]
PAIRS: list[Pair] = [
    (LowRank(6), ResidualGate()),
    (LowRank(6, "whitened"), LearnedGate()),
    (LowRank(6), EnergyGate()),
    (LowRank(6), OracleGate()),
    (LowRank(6), RandomGate(0.4)),
    (Pruned(0.6), LearnedGate()),
]
SAME_KERNELS: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-6}  # the script may fuse pointwise operations
TOLERANCES = (0.0, 0.03, 0.3, math.inf)


def routed(model: nn.Module, pair: Pair) -> tuple[RoutedModule, Tensor]:
    """The model with every site routed, and rows to run it on."""
    gm = capture(model.eval())
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


def set_all(module: nn.Module, value: float) -> None:
    dendrofx.set_tolerances(module, dict.fromkeys(dendrofx.tolerances(module), value))


def assert_same(got: nn.Module, wanted: nn.Module, x: Tensor) -> None:
    """Same outputs and counts, on the second and third call too (TorchScript optimises on the second)."""
    output, counts = wanted.forward_counted(x)  # type: ignore[operator]
    for _ in range(3):
        torch.testing.assert_close(got(x), output, **SAME_KERNELS)
        again, recounted = got.forward_counted(x)  # type: ignore[operator]
        torch.testing.assert_close(again, output, **SAME_KERNELS)
        assert recounted == counts
        assert not again.requires_grad


@pytest.mark.parametrize("pair", PAIRS, ids=lambda p: f"{p[0]}-{p[1]}")
def test_scripted_and_frozen_do_what_eager_does(pair: Pair) -> None:
    module, x = routed(compressible(), pair)
    scripted = dendrofx.script(module)
    for tolerance in TOLERANCES:
        set_all(module, tolerance)
        set_all(scripted, tolerance)
        frozen = dendrofx.script(module, freeze=True)
        for rows in (x, x[:1], x[:0], x[0], x.reshape(4, 16, 64)):
            assert_same(scripted, module, rows)
            assert_same(frozen, module, rows)


def test_a_model_of_several_sites() -> None:
    module, x = routed(Residual(), PAIRS[2])
    scripted = dendrofx.script(module)
    for tolerance in TOLERANCES:
        set_all(module, tolerance)
        set_all(scripted, tolerance)
        assert_same(scripted, module, x)
        assert_same(dendrofx.script(module, freeze=True), module, x)
    assert set(module.forward_counted(x)[1]) == {"stem", "fc1..fc2", "head"}  # type: ignore[operator]


def holds_linear(block: Any) -> bool:
    """Whether a TorchScript block, or one inside it, holds a Linear's product."""
    return any(n.kind() == "aten::linear" or any(map(holds_linear, n.blocks())) for n in block.nodes())


@pytest.mark.parametrize("pair", PAIRS, ids=lambda p: f"{p[0]}-{p[1]}")
def test_the_branches_stay_conditional(pair: Pair) -> None:
    module, _ = routed(compressible(), pair)
    assert not dendrofx.script(compressible()).inlined_graph.findAllNodes("prim::If")
    for scripted in (dendrofx.script(module), dendrofx.script(module, freeze=True)):
        graph = scripted.inlined_graph  # its nodes live as long as it is held
        guarded = [n for n in graph.findAllNodes("prim::If") if any(map(holds_linear, n.blocks()))]
        # full: all hard, and inside it mixed; a light branch behind its gate: no row easy
        reads_light = isinstance(pair[1], ResidualGate | OracleGate)
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
    module, x = routed(compressible(), PAIRS[0])
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


def test_a_frozen_module_saves_and_loads_with_its_counts() -> None:
    module, x = routed(compressible(), PAIRS[1])
    set_all(module, 0.03)
    buffer = io.BytesIO()
    frozen = dendrofx.script(module, freeze=True)
    torch.jit.save(frozen, buffer)
    assert artifact_bytes(frozen) == buffer.tell()
    buffer.seek(0)
    assert_same(torch.jit.load(buffer), module, x)
    assert dendrofx.tolerances(frozen) == {}


def test_scripting_again_after_a_change_of_the_graph_gives_the_new_code() -> None:
    module, x = routed(Mlp(), PAIRS[2])
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


def test_outputs_carry_no_gradients() -> None:
    module, x = routed(compressible(), PAIRS[0])
    assert not any(p.requires_grad for p in module.parameters())
    for tolerance in TOLERANCES:
        set_all(module, tolerance)
        for form in (module, dendrofx.script(module), dendrofx.script(module, freeze=True)):
            assert not form(x).requires_grad


def test_tolerances_of_the_script_are_its_own() -> None:
    module, x = routed(Residual(), PAIRS[2])
    set_all(module, 0.1)
    copied = copy.deepcopy(module)
    scripted = dendrofx.script(copied)
    assert set(dendrofx.tolerances(scripted)) == set(graph_names(module)) == {"stem", "fc1..fc2", "head"}
    dendrofx.set_tolerances(scripted, {"fc1_fc2": math.inf})
    values = {name: round(float(t), 6) for name, t in dendrofx.tolerances(scripted).items()}
    assert values == {"stem": 0.1, "fc1..fc2": math.inf, "head": 0.1}
    dendrofx.set_tolerances(module, {"fc1_fc2": math.inf})
    assert_same(scripted, module, x)


def test_a_copy_is_a_routed_module_of_its_own() -> None:
    module, x = routed(compressible(), PAIRS[0])
    set_all(module, 0.03)
    copied = copy.deepcopy(module)
    assert isinstance(copied, RoutedModule)
    assert_same(copied, module, x)
    with pytest.raises(AttributeError) as error:
        _ = copied.plan
    assert str(error.value) == "this module has no plan: it was rewritten by passes, not by dendrofx.transform"
    set_all(copied, math.inf)
    assert [float(t) for t in dendrofx.tolerances(module).values()] == [pytest.approx(0.03)]
    assert_same(dendrofx.script(copied), copied, x)


def test_torch_save_keeps_a_routed_module() -> None:
    module, x = routed(compressible(), PAIRS[0])
    set_all(module, 0.03)
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=False)
    assert torch.equal(loaded(x), module(x))
    assert isinstance(loaded, RoutedModule)
    assert_same(loaded, module, x)
    assert_same(dendrofx.script(loaded), module, x)


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


# ------------------------------------------------------------------------------------------------------- other weights

FITTED: dict[str, dict[str, Any]] = {
    "low rank": {"light": LowRank(4)},
    "pruned": {"light": Pruned(0.6)},
    "int8": {"light": Int8()},
    "int8 of 7 bits": {"light": Int8(7)},
    "prepacked": {"light": Prepacked()},
    "pruned, prepacked": {"light": Pruned(0.6, precision=Prepacked())},
    "bfloat16": {"light": BFloat16()},
    "bfloat16, packed": {"light": BFloat16(packed=True)},
    "full prepacked": {"light": LowRank(4), "full": Prepacked()},
}


def fitted(options: dict[str, Any], seed: int) -> RoutedModule:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(16, 48), nn.ReLU(), nn.Linear(48, 8)).eval()
    data = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    return dendrofx.transform(
        model, calibration=data.split(8), gate=LearnedGate(), decide=False, tune_seconds=0, **options
    )


def loaded(scripted: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    return torch.jit.load(io.BytesIO(script_bytes(scripted)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", FITTED)
def test_another_models_weights_are_refused(kind: str) -> None:
    """Some tensors would take them; laid-out weights and plain numbers would stay those of the old ones."""
    one, two = (fitted(FITTED[kind], seed) for seed in (1, 2))
    if not one.plan.routed:
        pytest.skip(one.plan.sites[0].reason)  # this CPU lacks what the form needs
    x, scripted, other = torch.randn(20, 16), dendrofx.script(one), dendrofx.script(two)
    again = loaded(scripted)
    before = one(x)
    for strict in (True, False):
        for module in (one, scripted):
            with pytest.raises(dendrofx.InputError, match="the state dict is another module's: "):
                module.load_state_dict(other.state_dict(), strict=strict)
        with pytest.raises(RuntimeError, match="size mismatch for fitted_to_these_weights"):
            again.load_state_dict(other.state_dict(), strict=strict)
    assert torch.equal(one(x), before)
    with pytest.raises(dendrofx.InputError, match="'fitted_to_these_weights' differs"):
        one.load_state_dict({MARK: other.state_dict()[MARK]}, strict=False)


@pytest.mark.parametrize("kind", ["low rank", "int8 of 7 bits", "pruned, prepacked"])
def test_its_own_state_is_taken_tolerances_among_it(kind: str) -> None:
    module = fitted(FITTED[kind], 1)
    scripted, x = dendrofx.script(module), torch.randn(20, 16)
    again, changed = loaded(scripted), copy.deepcopy(module)
    set_all(changed, math.inf)
    for taker, state in (
        (module, changed.state_dict()),
        (scripted, dendrofx.script(changed).state_dict()),
        (again, dendrofx.script(changed).state_dict()),
    ):
        set_all(taker, 0.0)
        assert str(taker.load_state_dict(state)) == "<All keys matched successfully>"
        torch.testing.assert_close(taker(x), changed(x), **SAME_KERNELS)


def test_a_module_that_nothing_was_fitted_to_takes_any_weights() -> None:
    one, two = (dendrofx.transform(Mlp().eval(), sites=[], tune_seconds=0) for _ in range(2))
    x = torch.randn(4, 16)
    assert not torch.equal(one(x), two(x))
    dendrofx.script(one).load_state_dict(dendrofx.script(two).state_dict())
    one.load_state_dict(two.state_dict())
    assert torch.equal(one(x), two(x))


# ----------------------------------------------------------------------------------------- operators of other libraries


@torch.library.custom_op("dendrofx_tests::twice", mutates_args=())
def twice(x: Tensor) -> Tensor:
    """An operator that is there only where this file is imported."""
    return 2 * x


@twice.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Foreign(nn.Module):
    """Calls it between two Linears, as a packet or as one overload."""

    def __init__(self, overload: bool) -> None:
        super().__init__()
        self.first, self.last, self.overload = nn.Linear(16, 16), nn.Linear(16, 16), overload

    def forward(self, x: Tensor) -> Tensor:
        operator = torch.ops.dendrofx_tests.twice
        return self.last((operator.default if self.overload else operator)(self.first(x)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("freeze", [False, True])
@pytest.mark.parametrize("overload", [False, True])
def test_operators_that_plain_torch_does_not_have_are_refused(overload: bool, freeze: bool, tmp_path: Path) -> None:
    model = Foreign(overload).eval()
    made = dendrofx.transform(model, torch.randn(4, 16), light=LowRank(2), decide=False)
    message = r"operators that plain torch does not have, dendrofx_tests::twice at %twice: "
    with pytest.raises(dendrofx.InputError, match=message):
        dendrofx.script(made, freeze=freeze)
    with pytest.raises(dendrofx.InputError, match=message):
        dendrofx.save(made, tmp_path / "m.pt", freeze=freeze)
    assert list(tmp_path.iterdir()) == []
    if not overload:  # a baseline, whose graph only TorchScript sees
        with pytest.raises(dendrofx.InputError, match="dendrofx_tests::twice at %"):
            dendrofx.script(nn.Sequential(made, nn.ReLU()), freeze=freeze)


def test_plain_namespaces_are_those_of_torch_alone() -> None:
    code = "import torch; print(*{s.name.partition('::')[0] for s in torch._C._jit_get_all_schemas()})"
    run = subprocess.run([sys.executable, "-I", "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert {"aten", "prim", "quantized", "mkldnn"} <= set(run.stdout.split())
    assert set(run.stdout.split()) <= PLAIN


NAN, INF = math.nan, math.inf
NOT_FINITE: dict[str, Any] = {
    "filled": lambda x, m: x.masked_fill(m, NAN).nan_to_num(0.0),
    "by keyword": lambda x, m: torch.masked_fill(x, m, value=-INF).clamp(min=-3.0),
    "full_like": lambda x, m: torch.where(m, torch.full_like(x, NAN), x).nan_to_num(),
    "nan_to_num": lambda x, m: x.nan_to_num(nan=NAN, posinf=INF, neginf=-INF),
    "full": lambda x, m: torch.full((20,), -INF).exp() + x,
    "a bound": lambda x, m: x.clamp(-INF, 1.0),
    "a norm": lambda x, m: x / torch.linalg.vector_norm(x, INF, -1, True),
    "padding": lambda x, m: nn.functional.pad(x, (0, 1), value=-INF)[:, :20],
}


class Fills(nn.Module):
    """A constant that is not finite, then a chain."""

    def __init__(self, form: str, by_size: bool) -> None:
        super().__init__()
        self.mlp, self.form, self.by_size = compressible(20, 64, 10), NOT_FINITE[form], by_size

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        if self.by_size and x.size(1) != 20:  # which FX's own tracer cannot follow
            return self.mlp(x[:, :20])  # type: ignore[no-any-return]
        return self.mlp(self.form(x, mask))  # type: ignore[no-any-return]


@pytest.mark.parametrize("by_size", [False, True], ids=["symbolic", "export"])
@pytest.mark.parametrize("form", NOT_FINITE)
def test_constants_that_are_not_finite(form: str, by_size: bool) -> None:
    model, x = Fills(form, by_size).eval().requires_grad_(False), torch.randn(6, 20)
    made = dendrofx.transform(model, (x, x > 1), max_deviation=0, decide=False, tune_seconds=0)
    assert str(made.plan.capture).startswith("captured by export" if by_size else "captured by symbolic")
    buffer = io.BytesIO()
    torch.jit.save(dendrofx.script(made), buffer)
    buffer.seek(0)
    for scripted in (torch.jit.load(buffer), dendrofx.script(made, freeze=True)):
        torch.testing.assert_close(scripted(x, x > 1), model(x, x > 1), **SAME_KERNELS)
    torch.testing.assert_close(made(x, x > 1), model(x, x > 1), **SAME_KERNELS)


def test_constants_in_a_model_inside_a_graph_are_spelled_out_too() -> None:
    inner = torch.fx.symbolic_trace(Fills("filled", False).eval())
    outer = torch.fx.Graph()
    outer.output(outer.call_module("inner", (outer.placeholder("x"), outer.placeholder("mask"))))
    x = torch.randn(3, 20)
    scripted = dendrofx.script(torch.fx.GraphModule({"inner": inner}, outer).eval())
    torch.testing.assert_close(scripted(x, x > 0), inner(x, x > 0), **SAME_KERNELS)
