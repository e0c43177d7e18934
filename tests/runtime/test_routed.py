"""Routed sites at run time: what must not change when rows, batches, routes and tolerances do."""

import copy
import math
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dendrofx.gates import EnergyGate, GateForm, LearnedGate, OracleGate, RandomGate, ResidualGate, SiteRows
from dendrofx.graph.block import BlockData, block_of, row_macs
from dendrofx.graph.capture import capture
from dendrofx.graph.find_sites import find_sites
from dendrofx.graph.record import record_rows
from dendrofx.light import LightForm, LowRank, Pruned
from dendrofx.lowering.script import script
from dendrofx.rewriting.module import RoutedModule, graph_names, set_tolerances
from dendrofx.rewriting.rewrite import Branches, rewrite
from dendrofx.runtime.leaves import LightAfterGate
from dendrofx.runtime.routing import MACS_PER_MOVED_VALUE, count_rows, easy_only_from, split_rows
from dendrofx.runtime.scores import UNJUDGED
from dendrofx.search.choose import relative_error
from dendrofx.values.counts import executed_macs
from dendrofx.values.inputs import Inputs
from dendrofx.values.measure import model_macs
from tests.check import OTHER_GEMM
from tests.models import Mlp, Residual, Shared
from tests.rungs import seeded

Pair = tuple[LightForm, GateForm]
PAIRS: list[Pair] = [
    (LowRank(3), ResidualGate()),
    (LowRank(6, "input"), ResidualGate()),
    (LowRank(3, "whitened"), LearnedGate()),
    (LowRank(3), EnergyGate()),
    (LowRank(3), OracleGate()),
    (LowRank(3), RandomGate(0.4)),
    (Pruned(0.6), LearnedGate()),
]
JUDGED = [p for p in PAIRS if not isinstance(p[1], RandomGate)]
ROWS = 300


def sample(n: int) -> Tensor:
    """Rows of few directions that matter."""
    return torch.randn(n, 16) * torch.logspace(0, -8, 16)


def calibration() -> Tensor:
    """Rows of many sizes, so that every gate has something to tell apart."""
    return sample(ROWS) * torch.logspace(-1, 1, ROWS)[torch.randperm(ROWS)][:, None]


def small(noise: float = 0.01) -> Mlp:
    """An MLP of nearly rank 3, so that even the bound tells rows apart."""
    model = Mlp()
    with torch.no_grad():
        for layer in (model.fc1, model.fc2):
            out, fan_in = layer.weight.shape
            low = torch.randn(out, 3) @ torch.randn(3, fan_in)
            layer.weight.copy_((low + noise * torch.randn(out, fan_in)) / fan_in**0.5)
    return model


def routed(model: nn.Module, pair: Pair, rows: Tensor) -> RoutedModule:
    """Every site of the model routed by one light form and gate, every tolerance 0."""
    gm = capture(model.eval())
    sites = find_sites(gm)
    recorded = record_rows(gm, sites, [Inputs.of(rows)], 0).rows
    branches = {}
    for site in sites:
        data = BlockData(block_of(gm, site.nodes), recorded[site.name])
        light = pair[0].fit(data.block, data.rows)
        gate = pair[1].fit(SiteRows(data, light, relative_error(data, light)))
        branches[site.name] = Branches(pair[0], light, pair[1], gate)
    return rewrite(gm, list(sites), branches)


@cache
def known(pair: Pair, seed: int = 0) -> tuple[Mlp, RoutedModule]:
    """An MLP and its routed form, the same in every test."""

    def make() -> tuple[Mlp, RoutedModule]:
        original = small().requires_grad_(False)
        return original, routed(original, pair, calibration())

    return seeded(make, seed=seed)


def made(pair: Pair, seed: int = 0) -> Any:
    """Return a copy of that routed form, whose tolerances and graph a test may change."""
    return copy.deepcopy(known(pair, seed)[1])


def set_all(module: nn.Module, value: float) -> None:
    assert isinstance(module, RoutedModule)
    set_tolerances(module, dict.fromkeys(graph_names(module).values(), value))


def scores(module: RoutedModule, x: Tensor) -> Tensor:
    """What the one site's gate gives the rows of x."""
    part = module.routed.fc1_fc2
    reads_light = any(n.name == "fc1_fc2_gate" and len(n.args) == 2 for n in module.graph.nodes)
    score: Tensor = part.gate(x, part.light(x)) if reads_light else part.gate(x)
    return score


def median(module: RoutedModule, x: Tensor) -> float:
    """A tolerance that makes about half the rows hard, in the middle of two scores: the last bits of neither decide."""
    score = scores(module, x)
    judged = score[score < UNJUDGED].sort().values
    if len(judged) == 0 or bool((score == 0).any()):
        return 1.0
    half = len(judged) // 2
    return float(judged[max(half - 1, 0) : half + 1].mean())


def force_easy_only(module: RoutedModule, share: float) -> None:
    """The share of hard rows from which the light branch, where it follows the gate, skips them: 0 always, 2 never."""
    if not isinstance(module.routed.fc1_fc2.light, LightAfterGate):
        return
    for node in module.graph.nodes:
        if node.target is split_rows:
            node.args = (*node.args[:2], share)
    module.recompile()


every_pair = pytest.mark.parametrize("pair", PAIRS, ids=lambda p: f"{p[0]}-{p[1]}")
judged_pairs = pytest.mark.parametrize("pair", JUDGED, ids=lambda p: f"{p[0]}-{p[1]}")
MODELS = [(m, p) for m in (Mlp, Residual, Shared) for p in PAIRS if m is Mlp or isinstance(p[0], LowRank)]


@pytest.mark.parametrize(("model", "pair"), MODELS, ids=str)
def test_tolerance_0_is_the_original(pair: Pair, model: type[nn.Module]) -> None:
    original = model()
    module = routed(original, pair, calibration())
    for x in (torch.randn(33, 16), torch.randn(1, 16), torch.randn(16), torch.randn(0, 16), torch.randn(2, 3, 5, 16)):
        assert torch.equal(module(x), original(x))


@judged_pairs
def test_tolerance_infinity_is_the_light_alone(pair: Pair) -> None:
    module = made(pair)
    set_all(module, math.inf)
    x = torch.randn(40, 16)
    light = module.routed.fc1_fc2.light.light
    torch.testing.assert_close(module(x), light(x), **OTHER_GEMM)


def test_every_site_of_a_larger_model_takes_its_light() -> None:
    module, x = routed(Residual(), (LowRank(3), EnergyGate()), calibration()), torch.randn(40, 16)
    set_all(module, math.inf)
    parts = module.routed
    stem, block, head = (getattr(parts, n).light.light for n in ("stem", "fc1_fc2", "head"))
    h = torch.relu(stem(x))
    torch.testing.assert_close(module(x), head(h + block(h)), **OTHER_GEMM)


@given(n=st.integers(1, 40), cut=st.integers(0, 40), seed=st.integers(0, 2))
@settings(max_examples=8, deadline=None, derandomize=True)
@every_pair
def test_rows_take_the_same_route_in_any_batch(pair: Pair, n: int, cut: int, seed: int) -> None:
    torch.manual_seed(seed)
    module = made(pair, seed)
    x, order = sample(n), torch.randperm(n)
    score, tolerance = scores(module, x), median(module, x)
    gate = module.routed.fc1_fc2.gate
    sure = (score - tolerance).abs() > 2 * gate.margin * tolerance
    sure |= score == 0  # the random gate's other score is infinity
    set_all(module, tolerance)
    whole = module(x)
    parts = torch.cat([module(x[:cut]), module(x[cut:])])
    permuted = torch.empty_like(whole)
    permuted[order] = module(x[order])
    torch.testing.assert_close(parts[sure], whole[sure], **OTHER_GEMM)
    torch.testing.assert_close(permuted[sure], whole[sure], **OTHER_GEMM)


@every_pair
def test_each_row_takes_the_branch_that_its_score_says(pair: Pair) -> None:
    original, module, x = known(pair)[0], made(pair), sample(60)
    tolerance = median(module, x)
    hard = ~(scores(module, x) < tolerance)
    assert 0 < int(hard.sum()) < 60
    set_all(module, tolerance)
    light = module.routed.fc1_fc2.light.light(x)
    expected = torch.where(hard[:, None], original(x).detach(), light)
    for share in (0.0, 2.0):
        force_easy_only(module, share)
        torch.testing.assert_close(module(x), expected, **OTHER_GEMM)


@every_pair
@pytest.mark.parametrize("shape", [(16,), (1, 16), (0, 16), (3, 0, 16), (4, 5, 16), (2, 3, 4, 16)])
def test_leading_dimensions_are_rows(pair: Pair, shape: tuple[int, ...]) -> None:
    module, x = made(pair), torch.randn(shape)
    for tolerance in (0.0, 0.3, math.inf):
        set_all(module, tolerance)
        assert module(x).shape == (*shape[:-1], 8)
        torch.testing.assert_close(module(x), module(x.reshape(-1, 16)).reshape(*shape[:-1], 8))
        counts = module.forward_counted(x)[1]["fc1..fc2"]
        assert counts["rows"] == math.prod(shape[:-1])


@every_pair
def test_the_layout_of_the_input_does_not_matter_and_it_is_not_written_to(pair: Pair) -> None:
    module, x = made(pair), torch.randn(16, 30).t()
    before = x.clone()
    for tolerance in (0.0, median(module, x), math.inf):
        set_all(module, tolerance)
        torch.testing.assert_close(module(x), module(x.contiguous()), rtol=1e-5, atol=4e-6)  # outputs around 10
        assert torch.equal(x, before)


@judged_pairs
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_rows_that_are_not_finite_get_what_the_original_gives(pair: Pair, bad: float) -> None:
    original, module, x = known(pair)[0], made(pair), torch.randn(20, 16)
    x[3], x[8, 2], x[19, 15] = bad, bad, bad
    rows, wanted = [3, 8, 19], original(x)
    clean = torch.tensor([i for i in range(20) if i not in rows])
    for tolerance in (0.0, 0.3, math.inf):
        set_all(module, tolerance)
        for share in (0.0, 2.0):
            force_easy_only(module, share)
            got, counts = module.forward_counted(x)
            torch.testing.assert_close(got[rows], wanted[rows], rtol=0.0, atol=0.0, equal_nan=True)
            assert counts["fc1..fc2"]["hard_rows"] >= 3
            torch.testing.assert_close(got[clean], module(x[clean]), **OTHER_GEMM)
    assert counts["fc1..fc2"]["hard_rows"] == 3


@pytest.mark.parametrize(("bad", "eager", "scripted"), [
    (torch.zeros(4, 7), "rows are shaped torch.Size([4, 7])", "rows are shaped [4, 7]"),
    (torch.tensor(1.0), "rows are shaped torch.Size([])", "rows are shaped []"),
    (torch.zeros(4, 16).double(), "rows are torch.float64", "rows are torch.float64"),
    (torch.zeros(4, 16).long(), "rows are torch.int64", "rows are torch.int64"),
], ids=["width", "no dimension", "float64", "int64"])  # fmt: skip
def test_rows_that_do_not_fit(bad: Tensor, eager: str, scripted: str) -> None:
    module = made(PAIRS[0])
    shape = "takes 16 features: pass [..., 16]"
    tail = f", site 'fc1..fc2' {shape if bad.dtype == torch.float32 else 'takes torch.float32: cast the input with .float()'}"
    with pytest.raises(RuntimeError) as error:
        module(bad)
    assert str(error.value) == eager + tail
    with pytest.raises(torch.jit.Error) as raised:
        script(module)(bad)
    assert str(raised.value).strip().endswith(f"RuntimeError: {scripted}{tail}")


def hand_counts(module: RoutedModule, rows: int, hard: int, light_rows: int, near: int = 0) -> dict[str, int]:
    part = module.routed.fc1_fc2
    block, gate, light = 16 * 32 + 32 * 8, row_macs(part.gate), row_macs(part.light.light)
    return {
        "rows": rows,
        "hard_rows": hard,
        "near_rows": near,
        "light_rows": light_rows,
        "gate_macs": rows * gate,
        "light_macs": light_rows * light,
        "full_macs": hard * block,
        "original_macs": rows * block,
        "gate_work": rows * gate,  # float32 throughout: each multiply-add counts whole
        "light_work": light_rows * light,
        "full_work": hard * block,
    }


@every_pair
def test_counts_in_every_arm(pair: Pair) -> None:
    module, x = made(pair), sample(50)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    reads_light, tolerance = not isinstance(pair[1], EnergyGate | LearnedGate | RandomGate), median(module, x)
    mixed = int((~(scores(module, x) < tolerance)).sum())
    arms = [(0.0, 2.0, 50, 0), (tolerance, 2.0, mixed, 50), (tolerance, 0.0, mixed, 50 - mixed)]
    assert 0 < mixed < 50
    arms += [] if isinstance(pair[1], RandomGate) else [(math.inf, 0.0, 0, 50)]
    for value, share, hard, light_rows in arms:
        set_all(module, value)
        force_easy_only(module, share)
        output, counts = module.forward_counted(x)
        expected = hand_counts(module, 50, hard, 50 if reads_light else light_rows)
        assert {**counts["fc1..fc2"], "near_rows": 0} == expected
        assert torch.equal(output, module(x))
        counted = model_macs(module, [Inputs.of(x)])
        if not isinstance(pair[1], OracleGate):  # which counts nothing: it is a yardstick
            assert counted == executed_macs(counts, expected["original_macs"])
    set_all(module, 0.0)
    after = module.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[k], v) for k, v in before.items())


def test_macs_of_the_branches_by_hand() -> None:
    module = made((LowRank(3), LearnedGate(directions=4)))
    part = module.routed.fc1_fc2
    assert row_macs(part.light) == 3 * (16 + 32) + 3 * (32 + 8)
    assert row_macs(part.gate) == 4 * 16 + 6


def test_near_rows_lie_within_the_margin() -> None:
    module, x = made((LowRank(3), EnergyGate())), sample(50)
    score = scores(module, x)
    margin = module.routed.fc1_fc2.gate.margin
    for tolerance in (0.0, math.inf, *score.tolist()):
        set_all(module, tolerance)
        finite = 0 < tolerance < math.inf
        near = int(((score - tolerance).abs() < margin * tolerance).sum()) if finite else 0
        assert module.forward_counted(x)[1]["fc1..fc2"]["near_rows"] == near
        assert (near > 0) == finite


FREE = [[0] * 4] * 3  # gate, light and full cost nothing


@pytest.mark.parametrize("margin", [0.0, 1e-3, 1e-2])
def test_the_margin_is_relative_to_the_tolerance(margin: float) -> None:
    offsets = torch.tensor([0.0, 0.5, -0.5, 0.9, -0.9, 1.1, -1.1, 1.9, -100.0])
    tolerance = torch.tensor(0.25)
    score = tolerance * (1 + offsets * max(margin, 1e-2))
    counts = count_rows(split_rows(score, tolerance, 2.0), score, tolerance, margin, True, FREE, 0)
    assert counts["near_rows"] == {0.0: 0, 1e-3: 1, 1e-2: 5}[margin]
    score[0], score[1] = math.nan, math.inf
    counts = count_rows(split_rows(score, tolerance, 2.0), score, tolerance, margin, True, FREE, 0)
    assert counts["near_rows"] == {0.0: 0, 1e-3: 0, 1e-2: 3}[margin]


def test_a_routed_module_without_sites_counts_nothing() -> None:
    module = rewrite(capture(Mlp().eval()), [], {})
    output, counts = module.forward_counted(torch.ones(2, 16))
    assert counts == {}
    assert torch.equal(output, module(torch.ones(2, 16)))


def test_easy_only_from_weighs_moving_against_computing() -> None:
    assert easy_only_from(0, 16, 8) == 1.0
    assert easy_only_from(MACS_PER_MOVED_VALUE * (16 + 8), 16, 8) == 0.5
    assert easy_only_from(10**10, 16, 8) < 1e-6


@given(
    values=st.lists(st.sampled_from([0.0, 0.1, 0.5, 1e30, math.inf, math.nan]), max_size=12),
    tolerance=st.sampled_from([0.0, 0.1, 0.3, math.inf]),
    share=st.sampled_from([0.0, 0.5, 2.0]),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_split_rows(values: list[float], tolerance: float, share: float) -> None:
    split = split_rows(torch.tensor(values), torch.tensor(tolerance), share)
    f32 = float(torch.tensor(tolerance))
    hard = [i for i, v in enumerate(values) if not float(torch.tensor(v)) < f32]
    assert (split.rows, split.hard_rows) == (len(values), len(hard))
    if 0 < len(hard) < len(values):
        assert split.hard.tolist() == hard
        assert split.easy_only == (len(hard) >= share * len(values))
        if split.easy_only:
            assert split.easy.tolist() == [i for i in range(len(values)) if i not in hard]
