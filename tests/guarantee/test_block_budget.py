"""Certified budgets at block scope: settings, plans that replay, shadow audits, gates of the caller's."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from dendrofx import Budget, LowRank, Plan, PlanError, Shadow, audit
from tests.asked import asked
from tests.models import compressible
from tests.search.cascade.models import WIDTH, batches, classifier, rows

FLIP = Budget("flip", 0.05, 0.9)
OPTIONS: dict[str, Any] = {"tune_seconds": 0, "light": [LowRank(4), LowRank(12)]}


def certified(model: nn.Module | None = None, budget: Budget = FLIP, **options: Any) -> Any:
    made = dendrofx.transform(
        classifier() if model is None else model,
        calibration=batches(),
        budget=budget,
        **asked(**{**OPTIONS, "scope": "block", **options}),
    )
    assert made.plan.certificate is not None, str(made.plan)
    return made


class Doubt(nn.Module):
    """A user's gate of rows: larger rows, more doubt."""

    def forward(self, rows: Tensor) -> Tensor:
        return torch.linalg.vector_norm(rows, 2, 1)


def test_it_is_certified_and_the_front_is_ordered() -> None:
    made = certified()
    assert made.plan.certificate.n == 500
    assert [s.cost for s in made.settings] == sorted((s.cost for s in made.settings), reverse=True)
    assert [s.risk for s in made.settings] == sorted(s.risk for s in made.settings)
    assert all(s.tested.p_value <= 0.1 for s in made.settings)
    assert made.plan.certificate.step == len(made.settings)


@pytest.mark.parametrize("budget", [Budget("deviation", 0.2), Budget("exceeds(0.3)", 0.1), Budget("cosine", 0.05)])
def test_budgets_of_distances(budget: Budget) -> None:
    model = classifier(0.01)
    made = certified(model, budget)
    x = rows(2000, 11)
    assert float(budget.losses(model(x), made(x)).mean()) <= budget.limit


def test_several_sites_share_the_budget_by_weights_that_are_searched() -> None:
    model = nn.Sequential(compressible(WIDTH, 256, WIDTH), nn.LayerNorm(WIDTH), compressible(WIDTH, 256, 8, noise=0.05))
    made = certified(model.eval(), Budget("deviation", 0.3, 0.9), light=LowRank(8), gate=Doubt())
    first, second = sorted(dendrofx.tolerances(made))
    ratios = {s.tolerances[first] / max(s.tolerances[second], 1e-30) for s in made.settings}
    assert len({f"{r:.4g}" for r in ratios}) > 1


def test_a_plan_with_a_user_s_gate_asks_for_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = classifier(0.01)
    made = certified(model, gate=Doubt())
    assert "Doubt()" in str(made.plan)
    made.plan.save(tmp_path / "p.json")
    plan = Plan.load(tmp_path / "p.json")
    with pytest.raises(PlanError, match="is a module of yours"):
        dendrofx.transform(model, calibration=batches(), plan=plan)
    again = dendrofx.transform(model, calibration=batches(), plan=plan, gate=Doubt())
    assert torch.equal(again(rows(9)), made(rows(9)))


@pytest.mark.parametrize("scope", ["block", "model"])
def test_a_shadow_audit_recomputes_a_seeded_share_and_does_not_alarm(scope: str) -> None:
    model = classifier(0.01)
    made = certified(model, scope=scope)
    shadow, same = (Shadow(made, FLIP, every=4, seed=3) for _ in range(2))
    losses, picked = [], 0
    for part in rows(4000, 12).split(100):
        seen = shadow(part)
        assert torch.equal(seen.losses, same(part).losses)
        losses.append(seen.losses)
        picked += seen.picked
    assert 800 < picked < 1200
    assert sum(map(len, losses)) == picked
    assert audit(torch.cat(losses), made.plan.certificate).answer != "broken"


def test_a_shadow_audit_finds_other_data() -> None:
    """Rows in directions that the light branch does not see, and a gate that cannot tell: they are small."""
    torch.manual_seed(0)
    made = certified(scope="model")
    dendrofx.set_tolerances(made, {"model": float("inf")})
    shadow = Shadow(made, FLIP, every=1)
    losses = torch.cat([shadow(part).losses for part in (0.02 * rows(3000, 5)).split(500)])
    assert audit(losses, made.plan.certificate).answer in ("broken", "not shown broken")
    assert audit(losses, made.plan.certificate).mean == pytest.approx(float(losses.mean()))


def test_where_nothing_can_be_shown_nothing_is_approximated() -> None:
    model = classifier(0.01)
    made = dendrofx.transform(model, calibration=batches(12, 10), budget=Budget("flip", 0.01), **asked(**OPTIONS))
    assert made.plan.certificate is None
    assert "299 at zero loss" in made.plan.refusal
    assert torch.equal(made(rows(20)), model(rows(20)))
    assert not made.plan.routed
