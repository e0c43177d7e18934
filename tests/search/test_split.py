"""Splitting a budget over sites, against all there is to try; and the shortlist of a model of many sites."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import dendrofx
from dendrofx import Int8, LightForm, LowRank, Pruned
from dendrofx.search.explore import MANY_SITES
from dendrofx.search.split import Option, split
from tests.models import compressible
from tests.recorded import Decided, decide, rows

OPTIONS = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), max_size=3)


def harm(options: dict[str, list[Option]], taken: dict[str, int]) -> float:
    return math.sqrt(sum(options[name][i].harm ** 2 for name, i in taken.items()))


def cost(options: dict[str, list[Option]], taken: dict[str, int]) -> float:
    return sum(options[name][i].cost for name, i in taken.items())


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.lists(OPTIONS, min_size=1, max_size=4), st.integers(0, 20))
def test_it_keeps_the_budget_and_is_nearly_the_cheapest(drawn: list[list[tuple[int, int]]], budget: int) -> None:
    """No farther from the cheapest than one site's greatest saving: what a single multiplier can miss."""
    options = {str(n): [Option(10, 0), *(Option(c, h) for c, h in of)] for n, of in enumerate(drawn)}
    taken = split(options, budget)
    assert harm(options, taken) <= budget * (1 + 1e-9)
    every = [
        dict(zip(options, some, strict=True))
        for some in itertools.product(*(range(len(of)) for of in options.values()))
    ]
    best = min(cost(options, one) for one in every if harm(options, one) <= budget * (1 + 1e-9))
    assert best <= cost(options, taken) <= best + 10


def test_a_site_that_matters_more_gets_the_form_that_errs_less() -> None:
    forms = [(0.1, 4.0), (0.5, 1.0), (1.0, 0.0)]
    options = {name: [Option(c, slope * e) for c, e in forms] for name, slope in (("calm", 0.1), ("touchy", 2.0))}
    assert split(options, 2.1) == {"calm": 0, "touchy": 1}
    assert split(options, 0.5) == {"calm": 0, "touchy": 2}
    assert split(options, 0.0) == {"calm": 2, "touchy": 2}


class Deep(nn.Module):
    """Residual blocks of nearly low rank, one more than are few."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(compressible(64, 256, 64) for _ in range(MANY_SITES + 1))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + 0.2 * block(x)
        return x


@pytest.fixture(scope="module")
def deep() -> Decided:
    torch.manual_seed(0)
    return decide(Deep().eval(), None, rows(600), max_deviation=0.05)


def test_sites_of_a_large_model_are_fitted_with_few_forms_of_all_that_there_are(deep: Decided) -> None:
    forms: list[list[LightForm]] = [
        list(dict.fromkeys(c.branches.light_form for c in found)) for found in deep.space.explored.found.values()
    ]
    assert len(forms) == MANY_SITES + 1
    assert all(1 <= len(of) <= 4 for of in forms)
    assert {type(f) for of in forms for f in of} >= {LowRank, type(forms[0][0])}
    assert all(type(e.light) in (LowRank, Pruned, Int8) for e in deep.plan.routed)


def test_they_cost_less_than_in_eight_bits_alone(deep: Decided) -> None:
    assert deep.plan.deviation is not None
    assert deep.plan.deviation <= 0.05
    assert [e.status for e in deep.plan.sites] == ["routed"] * (MANY_SITES + 1)
    macs = {s.name: s.macs for s in deep.space.sites}
    compute = sum(macs[e.name] * (e.compute or 1.0) for e in deep.plan.sites) / sum(macs.values())
    assert compute < 0.2, "8 bits are a fourth of 32"
    assert dendrofx.tolerances(deep.module)
