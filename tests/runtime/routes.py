"""Routed models that tests of the run time share: each is made once, and the same wherever it is made."""

import copy
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dendrofx.gates import EnergyGate, GateForm, LearnedGate, OracleGate, RandomGate, ResidualGate, SiteRows
from dendrofx.graph.block import BlockData, block_of
from dendrofx.graph.capture import capture
from dendrofx.graph.find_sites import find_sites
from dendrofx.graph.record import record_rows
from dendrofx.light import LightForm, LowRank, Pruned
from dendrofx.rewriting.counted import graph_names
from dendrofx.rewriting.module import RoutedModule
from dendrofx.rewriting.rewrite import Branches, rewrite
from dendrofx.rewriting.tolerances import set_tolerances
from dendrofx.runtime.leaves import LightAfterGate
from dendrofx.runtime.routing import split_rows
from dendrofx.runtime.scores import UNJUDGED
from dendrofx.search.choose import relative_error
from dendrofx.values.inputs import Inputs
from tests.models import Mlp
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
