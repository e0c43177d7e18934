"""Pruned light branches: which hidden units are kept, and how the others are made up for."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dendrofx.light import Pruned
from dendrofx.runtime.branches import DenseLinear

OTHER_GEMM: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}  # fewer terms, another order of summation


def chain(width: int = 12, hidden: int = 64, out: int = 5, bias: bool = True) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, out, bias))


def kill(linear: nn.Linear, units: Tensor) -> None:
    """Let units never fire on rows of ordinary size."""
    with torch.no_grad():
        linear.bias[units] = -1e4


def layers(light: nn.Module) -> list[DenseLinear]:
    return [layer for layer in light.modules() if isinstance(layer, DenseLinear)]


def kept_units(light: nn.Module, block: nn.Sequential) -> Tensor:
    """The indices of the first Linear's units that the branch keeps."""
    weight = layers(light)[0].weight
    return torch.tensor([i for i, row in enumerate(block[0].weight) if bool((weight == row).all(1).any())])


def others(units: Tensor) -> Tensor:
    return torch.tensor(sorted(set(range(64)) - set(units.tolist())))


@pytest.mark.parametrize("bias", [True, False])
def test_energy_1_drops_just_the_dead_units(bias: bool) -> None:
    block, rows, dead = chain(bias=bias), torch.randn(300, 12), torch.randperm(64)[:32]
    kill(block[0], dead)
    light, alive = Pruned(energy=1.0).fit(block, rows), others(dead)
    first, second = layers(light)
    assert torch.equal(first.weight, block[0].weight[alive])
    assert torch.equal(first.bias, block[0].bias[alive])
    assert torch.equal(second.weight, block[2].weight[:, alive])
    torch.testing.assert_close(light(rows), block(rows).detach(), **OTHER_GEMM)


def test_energy_1_keeps_units_whose_energy_the_sum_rounds_away_and_none_that_the_next_linear_ignores() -> None:
    block, rows = chain(), torch.randn(100, 12)
    kill(block[0], torch.arange(40, 64))
    with torch.no_grad():
        block[2].weight[:, 0] = 1e10
    assert kept_units(Pruned(energy=1.0).fit(block, rows), block).tolist()[:40] == list(range(40))
    block = chain(hidden=32)
    with torch.no_grad():
        block[2].weight[:, 16:] = 0
    assert kept_units(Pruned(energy=1.0).fit(block, rows), block).tolist() == list(range(16))


@pytest.mark.parametrize("bias", [True, False])
def test_mean_compensation(bias: bool) -> None:
    block, rows = chain(bias=bias), torch.randn(200, 12)
    light = Pruned(energy=0.5).fit(block, rows)
    kept = kept_units(light, block)
    assert len(kept) < 64
    dropped = others(kept)
    missing = block[2].weight[:, dropped].double() @ block[:2](rows)[:, dropped].double().mean(0)
    offset = missing + (block[2].bias.double() if bias else 0.0)
    second = layers(light)[1]
    torch.testing.assert_close(second.bias, offset.float().detach(), **OTHER_GEMM)
    assert torch.equal(second.weight, block[2].weight[:, kept])


def test_the_fewest_units_that_hold_the_share_are_kept() -> None:
    block, rows = chain(hidden=96), torch.randn(500, 12)
    energy = block[:2](rows).double().square().mean(0) * block[2].weight.double().square().sum(0)
    share = energy.sort(descending=True).values.cumsum(0) / energy.sum()
    for wanted in (0.3, 0.6, 0.9):
        kept = kept_units(Pruned(energy=wanted).fit(block, rows), block)
        needed = next(i for i, s in enumerate(share.tolist()) if s >= wanted) + 1
        assert len(kept) == 16 * math.ceil(needed / 16)
        assert set(kept.tolist()) == set(energy.topk(len(kept)).indices.tolist())


def test_ridge_solves_the_normal_equations_and_is_better_than_the_mean() -> None:
    block, rows = chain().requires_grad_(False), torch.randn(400, 12)
    lights = [Pruned(energy=0.5, ridge=r).fit(block, rows) for r in (1e-6, 1e-1, math.inf)]
    errors = [float((light(rows) - block(rows)).double().square().sum(1).mean()) for light in lights]
    assert errors[0] < errors[1] < 0.9 * errors[2]
    kept, second = kept_units(lights[1], block), layers(lights[1])[1]
    h = block[:2](rows).double()[:, kept]
    centred, left = h - h.mean(0), block(rows).double() - h @ second.weight.double().t()
    penalty = 0.1 * centred.square().sum(0).mean()
    step = second.weight.double() - block[2].weight[:, kept].double()
    torch.testing.assert_close(centred.t() @ (left - left.mean(0)), penalty * step.t(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(second.bias.double(), left.mean(0), **OTHER_GEMM)


@pytest.mark.parametrize(
    ("alive", "hidden", "kept"), [(1, 64, 16), (16, 64, 16), (17, 64, 32), (20, 24, 24), (3, 8, 8)]
)
def test_kept_units_fill_whole_vectors(alive: int, hidden: int, kept: int) -> None:
    block, rows = chain(hidden=hidden), torch.randn(200, 12) + 0.1
    kill(block[0], torch.arange(alive, hidden))
    with torch.no_grad():
        block[0].bias[:alive] = 1.0
    first, second = layers(Pruned(energy=1.0).fit(block, rows))
    assert first.weight.shape == (kept, 12)
    assert second.weight.shape == (5, kept)
    assert (first.macs, second.macs) == (12 * kept, 5 * kept)


@pytest.mark.parametrize("ridge", [math.inf, 0.1])
def test_all_units_dead(ridge: float) -> None:
    block, rows = chain(), torch.randn(50, 12)
    kill(block[0], torch.arange(64))
    light = Pruned(ridge=ridge).fit(block, rows)
    assert layers(light)[0].weight.shape == (16, 12)
    torch.testing.assert_close(light(rows), block[2].bias.detach().expand(50, 5), rtol=0.0, atol=1e-7)


def test_a_chain_of_three_compensates_from_what_the_branch_itself_computes() -> None:
    block = nn.Sequential(nn.Linear(12, 64), nn.GELU(), nn.Linear(64, 48), nn.Tanh(), nn.Linear(48, 5))
    rows = torch.randn(300, 12)
    light = Pruned(energy=0.5).fit(block, rows)
    first, second, third = layers(light)
    assert first.weight.size(0) < 64
    assert third.weight.size(1) == second.weight.size(0) < 48
    hidden = torch.tanh(second(nn.functional.gelu(first(rows))))
    # the mean of the output is made up for, errors of the earlier layers included
    torch.testing.assert_close(third(hidden).mean(0), block(rows).mean(0).detach(), **OTHER_GEMM)
    assert torch.equal(light(rows), third(hidden))


def test_a_chain_of_three_at_energy_1_is_exact() -> None:
    block = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 5))
    for i in (0, 2):
        kill(block[i], torch.arange(8, 24))
        with torch.no_grad():
            block[i].bias[:8] = block[i].bias[24:] = 0.5
    rows = torch.randn(200, 12)
    light = Pruned(energy=1.0).fit(block, rows)
    assert [tuple(layer.weight.shape) for layer in layers(light)] == [(16, 12), (16, 16), (5, 16)]
    torch.testing.assert_close(light(rows), block(rows).detach(), **OTHER_GEMM)
