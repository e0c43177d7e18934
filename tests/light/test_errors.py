"""Closed-form errors against the measured ones of the fitted forms, on rows that fitted nothing."""

import math
from itertools import combinations, pairwise

import pytest
import torch
from torch import Tensor, nn

from benchmarks.models import digits
from dendrofx.graph.block import BlockData
from dendrofx.light import BFloat16, Int8, LightForm, LowRank, Pruned
from dendrofx.light.errors import FormErrors
from dendrofx.search.choose import relative_error
from tests.rungs import seeded

# Closed over measured. Up to a third the model is one of small errors; beyond, an activation's bend makes large ones smaller.
SMALL, FACTOR, FACTOR_BEYOND = 0.3, 1.35, 1.8
HALF = 1.8  # bfloat16: errors of hidden results are not independent of the results
ROUNDOFF = 3e-6  # of float32 sums, which the closed form does not know
EIGHT = Int8(weight_bits=7)
LOW: list[LightForm] = [
    LowRank(rank, basis, precision)
    for rank in (4, 12, 25)
    for basis in ("whitened", "input", "weight")
    for precision in (None, EIGHT)
]
PRUNED: list[LightForm] = [
    Pruned(energy, ridge, precision)
    for energy in (0.8, 0.95, 0.99)
    for ridge in (math.inf, 1e-3)
    for precision in (None, EIGHT)
]
WHOLE: list[LightForm] = [EIGHT, Int8(7, smooth=0.5), BFloat16()]


def chain(*widths: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inner, outer in pairwise(widths):
        layers += [nn.Linear(inner, outer), activation()]
    return nn.Sequential(*layers[:-1]).eval()


def rows(count: int, width: int) -> Tensor:
    """Of falling variance along random directions."""
    spread = torch.logspace(0, -2, width)[:, None] * torch.linalg.qr(torch.randn(width, width)).Q
    return 3 * torch.randn(count, width) @ spread


def digits_block(number: int) -> tuple[nn.Sequential, Tensor]:
    model, (images, _) = digits.load_model(), digits.load_data()
    with torch.no_grad():
        x = torch.relu(model.stem(images[digits.TRAIN :][:600]))
        for block in model.blocks[:number]:
            x = block(x)
    return nn.Sequential(model.blocks[number].fc1, nn.ReLU(), model.blocks[number].fc2), x


SITES = {
    "a Linear": lambda: (chain(48, 96), rows(800, 48)),
    "ReLU": lambda: (chain(48, 160, 40), rows(800, 48)),
    "GELU": lambda: (chain(48, 160, 40, activation=nn.GELU), rows(800, 48)),
    "three Linears": lambda: (chain(48, 160, 120, 40, activation=nn.SiLU), rows(800, 48)),
    "digits, first block": lambda: digits_block(0),
    "digits, last block": lambda: digits_block(2),
}


@pytest.mark.parametrize("site", list(SITES))
def test_the_closed_form_error_is_that_of_the_fitted_form(site: str) -> None:
    block, given = seeded(SITES[site])
    fit, seen = (BlockData(block, part) for part in given.chunk(2))
    closed, table = FormErrors(fit, seen), []
    for form in [*WHOLE, *LOW, *(PRUNED if len(block) > 1 else [])]:
        error = relative_error(seen, form.build(fit))
        table.append((form, closed.of(form), float(error.double().square().mean().sqrt())))
    print("\n".join(f"{form!s:66} {a:8.2e} {b:8.2e} {a / b:5.2f}" for form, a, b in table))
    for form, found, measured in table:
        factor = HALF if form == BFloat16() else FACTOR if measured < SMALL else FACTOR_BEYOND
        assert abs(math.log((found + ROUNDOFF) / (measured + ROUNDOFF))) < math.log(factor), (
            f"{form}: {found}, measured {measured}"
        )
    for (one, a, x), (other, b, y) in combinations(table, 2):
        if x < y / 1.5 and y > ROUNDOFF:
            assert a < b, f"{one} errs less than {other}"


def test_it_counts_the_linears_that_a_branch_has() -> None:
    block, given = seeded(SITES["three Linears"])
    data = BlockData(block, given)
    closed = FormErrors(data, data)
    for form in [*WHOLE, *LOW, *PRUNED]:
        layers = [m for m in form.build(data).modules() if hasattr(m, "macs")]
        macs = sum(int(m.macs) for m in layers)
        assert sum(n * m for n, m in closed.linears(form)) == macs, form
