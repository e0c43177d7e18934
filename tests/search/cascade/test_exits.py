"""Exits: the beginning of a model with a head, for samples that are easy; the others go on from there."""

from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from dendrofx import Budget, Exit, InputError, LowRank
from dendrofx.search.cascade.exits import ridge
from tests.asked import asked
from tests.recorded import Recorded

WIDTH, CLASSES = 24, 5
FLIP = Budget("flip", 0.05, 0.9)
STEM = Exit("stem")
TOTAL = WIDTH * 64 + 3 * 2 * 64 * 128 + 64 * CLASSES  # multiply-adds of a sample


class Deep(nn.Module):
    """Mostly linear classes, and a little that takes depth; `extra` is a second output."""

    def __init__(self, extra: str = "") -> None:
        super().__init__()
        self.stem = nn.Linear(WIDTH, 64)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64)) for _ in range(3))
        self.head = nn.Linear(64, CLASSES)
        self.extra = extra

    def forward(self, x: Tensor) -> Any:
        """f32[N, WIDTH] -> f32[N, CLASSES]."""
        h = self.stem(x)
        for block in self.blocks:
            h = h + 0.1 * block(h)
        logits = self.head(h)
        if self.extra == "vector":
            return {"logits": logits, "vector": h}
        return {"logits": logits, "choice": logits.argmax(1)} if self.extra else logits


def deep(extra: str = "") -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Deep(extra).eval()


def rows(n: int, seed: int = 1) -> Tensor:
    return torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(seed))


def left(model: nn.Module, light: Any = STEM, **options: Any) -> Any:
    """A module that leaves early, certified, or the test fails."""
    given = {
        "budget": FLIP,
        "calibration": [rows(1200)],
        "scope": "model",
        "light": light,
        "tune_seconds": 0,
        **options,
    }
    made = dendrofx.transform(model, **asked(**given))
    assert made.plan.certificate is not None, str(made.plan)
    return made


def test_easy_samples_leave_and_the_others_go_on_from_the_cut() -> None:
    model, x = deep(), rows(400, 7)
    made = left(model)
    assert made.plan.cascade.exit == Exit("stem")
    y, counts = made.forward_counted(x)
    hard = counts["model"]["hard_rows"]
    assert 0 < hard < 200
    same = torch.isclose(y, model(x), atol=1e-5).all(1)
    assert int(same.sum()) == hard
    assert float((y.argmax(1) != model(x).argmax(1)).double().mean()) <= FLIP.limit
    # the shared beginning runs once: 400 stems and heads, and of the rest what the hard samples take
    stem = WIDTH * 64
    executed = dendrofx.values.counts.executed_macs(counts, 400 * TOTAL)
    assert executed == 400 * (stem + 64 * CLASSES) + hard * (TOTAL - stem)


def test_two_exits_in_a_row_share_a_tolerance_and_all_that_was_computed() -> None:
    x = rows(4000, 7)
    made = left(deep(), Exit(("stem", "blocks.0.2")))
    counts = made.forward_counted(x)[1]
    first, second = counts["model"]["hard_rows"], counts["full/model"]["hard_rows"]
    assert 0 < second < first < 2000
    stem, block, head = WIDTH * 64, 2 * 64 * 128, 64 * CLASSES
    executed = dendrofx.values.counts.executed_macs(counts, 4000 * TOTAL)
    assert executed == 4000 * (stem + head) + first * (block + head) + second * (TOTAL - stem - block)
    # an audit looks at all samples, as those that go on may leave by the second head
    assert bool(dendrofx.Shadow(made, FLIP, every=1)(x).easy.all())


@pytest.mark.parametrize("light", [STEM, Exit(("stem", "blocks.0.2"))], ids=str)
def test_tolerance_0_is_the_original_scripted_it_is_the_same_and_a_plan_makes_it_again(light: Any) -> None:
    model, x = deep(), rows(64, 7)
    made = left(model, light)
    scripted = dendrofx.script(made)
    for module in (scripted, dendrofx.script(made, freeze=True)):
        assert torch.equal(module(x), made(x))
        assert module.forward_counted(x)[1] == made.forward_counted(x)[1]
    again = dendrofx.transform(model, calibration=[rows(1200)], plan=made.plan)
    assert torch.equal(again(x), made(x))
    for module in (made, scripted):
        dendrofx.set_tolerances(module, {"model": 0.0})
        assert torch.equal(module(x), model(x))
    assert "light[-1]" in dendrofx.graph_text(made)
    assert max(map(len, dendrofx.graph_text(made).splitlines())) <= 100


def test_samples_that_are_not_finite_go_on_and_change_no_other() -> None:
    made, x = left(deep()), rows(64, 7)
    broken = x.clone()
    broken[3, 0], broken[9, 5] = torch.nan, torch.inf
    y, other = made(x), made(broken)
    assert bool(other[3].isnan().all())
    kept = [i for i in range(64) if i not in (3, 9)]
    assert torch.allclose(y[kept], other[kept], atol=1e-5)


def test_a_head_gives_all_outputs_and_those_that_it_cannot_give_are_refused() -> None:
    model, x = deep("vector"), rows(64, 7)
    made = left(model, output="logits")
    with torch.no_grad():
        y, vector = made(x), model(x)["vector"]
    assert y.keys() == {"logits", "vector"}
    assert float((y["vector"] - vector).norm() / vector.norm()) < 0.2
    refused = dendrofx.transform(
        deep("choice"),
        calibration=[rows(1200)],
        **asked(budget=FLIP, output="logits", scope="model", light=Exit(), tune_seconds=0),
    )
    assert "output 'choice'" in refused.plan.refusal


@pytest.mark.parametrize(
    "interrupt", [*(pytest.param(t, marks=pytest.mark.slow) for t in ("site 1", "calls", "models 1")), "models 2"]
)
def test_ctrl_c_keeps_what_was_searched(interrupt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the timing of sites, of models' calls, in the race of blocks, and in that of what was certified."""
    model, x = deep(), rows(64, 7)
    timer = Recorded(interrupt=[interrupt])
    given = {"calibration": [rows(1200)], "budget": FLIP, "light": [LowRank(8), Exit("stem")]}
    monkeypatch.setattr(import_module("dendrofx.transform"), "Profiler", lambda *_: timer)
    made = dendrofx.transform(model, **asked(**given, tune_seconds=1))
    assert timer.interrupted
    assert "interrupted" in str(made.plan)
    assert made.plan.certificate is not None or torch.allclose(made(x), model(x), atol=1e-5)


def test_places_are_quoted_and_no_place_is_refused() -> None:
    with pytest.raises(InputError, match=r"cuts are after 'x', 'stem', 'blocks.0.2'"):
        left(deep(), Exit("blocks.7"))
    with pytest.raises(InputError, match="after must be the name of a layer"):
        Exit(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at scope='block' rows are routed"):
        left(deep(), scope="block")


@pytest.mark.parametrize(("n", "features"), [(60, 8), (20, 40)])
def test_what_a_head_gives_a_sample_without_it_is_known_in_closed_form(n: int, features: int) -> None:
    """A fit without each sample, at the penalty that was chosen, with the same standardisation."""
    draw = torch.Generator().manual_seed(n)
    z = torch.randn(n, features, generator=draw, dtype=torch.float64)
    y = z[:, :3] @ torch.randn(3, 2, generator=draw, dtype=torch.float64) + 0.3 * torch.randn(n, 2, generator=draw)
    found = ridge(z.float(), y.float())
    standard = (z - z.mean(0)) / z.std(0, correction=0)

    def without(i: int, penalty: float) -> Tensor:
        kept = [j for j in range(n) if j != i]
        a, b = standard[kept], y[kept]
        a = torch.cat([a, torch.ones(n - 1, 1, dtype=torch.float64)], 1)
        weigh = penalty * n * torch.eye(features + 1, dtype=torch.float64)
        weigh[-1, -1] = 0  # the mean is not shrunk
        w = torch.linalg.solve(a.t() @ a + weigh, a.t() @ b)
        return torch.cat([standard[i], torch.ones(1, dtype=torch.float64)]) @ w

    errors = []
    for penalty in (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0):
        left_out = torch.stack([without(i, penalty) for i in range(n)])
        errors.append(float((left_out - found.left_out).abs().max()))
    assert min(errors) < 1e-4


@pytest.mark.slow
def test_with_a_budget_alone_blocks_and_models_compete() -> None:
    model, x = deep(), rows(400, 7)
    given = {"budget": FLIP, "light": [LowRank(8), LowRank(24)], "tune_seconds": 0}
    executed = []
    for scope in ("auto", "block", "model"):
        light = given["light"] if scope == "block" else [*given["light"], Exit()]
        made = dendrofx.transform(model, calibration=[rows(1200)], **asked(**{**given, "light": light, "scope": scope}))
        assert made.plan.certificate is not None
        counts = made.forward_counted(x)[1]
        executed.append(dendrofx.values.counts.executed_work(counts, 400 * TOTAL))
        if scope == "auto":
            assert {s.make().plan.certificate.steps for s in (made.settings[0], made.settings[-1])} == {
                made.plan.certificate.steps
            }
    assert executed[0] <= 1.05 * min(executed[1:])


@pytest.mark.slow
def test_of_the_cheapest_accepted_settings_the_fastest_as_it_runs_is_raced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Predictions add what parts take alone; here the setting that is predicted to be second runs fastest."""

    class Given(Recorded):
        fastest = "0"

        def calls(self, calls: Any) -> Any:
            if self.fastest == "Ctrl-C" and ("cascade", "0") in calls:
                raise KeyboardInterrupt
            return {part: 10.0 if part[0] == "original" else 0.5 if part[-1] == self.fastest else 1.0 for part in calls}

    given = {"calibration": [rows(1200)], "budget": FLIP, "light": [LowRank(8), LowRank(24), Exit()], "scope": "model"}
    taken = []
    for Given.fastest in ("0", "1", "Ctrl-C"):
        monkeypatch.setattr(import_module("dendrofx.transform"), "Profiler", lambda *_: Given())
        found = dendrofx.transform(deep(), **asked(**given, tune_seconds=1)).plan.cascade
        taken.append(found)
    assert taken[0].cost <= taken[1].cost
    assert taken[0] != taken[1]
    assert taken[0] == taken[2], "what is predicted to be fastest, where they could not be timed"
