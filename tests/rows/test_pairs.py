"""Products of pairs: which selections are found, how they are cut into blocks, and what is left as it is."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dendrofx.rows.pairs import Pairs, find_pairs
from dendrofx.rows.periods import Periods
from dendrofx.rows.samples import SampleAnalysis
from tests.repeated import EXAMPLE, WIDTH, Of
from tests.rows.models import symbolic

USER = {"user": ("user",)}
FIRST, SECOND = torch.tril_indices(5, 5, -1)  # of two rows of the user and three of the item


class Places(nn.Module):
    """Places of pairs, as buffers."""

    def __init__(self) -> None:
        super().__init__()
        for name, value in {"first": FIRST, "second": SECOND, "flat": FIRST * 5 + SECOND, "back": SECOND - 5}.items():
            self.register_buffer(name, value)


def vectors(m: Any, user: Tensor, item: Tensor) -> Tensor:
    return torch.cat([m.user(user).view(-1, 2, 8), m.item(item).view(-1, 3, 8)], 1)


def others(m: Any, user: Tensor, item: Tensor) -> Tensor:
    return torch.stack([m.other(user), m.other(item), m.other(user)], 1)


def found(forward: Callable[..., Tensor]) -> Pairs | None:
    """What is found in the output of a model of two inputs."""
    layers = {"user": nn.Linear(WIDTH, 16), "item": nn.Linear(WIDTH, 24), "other": nn.Linear(WIDTH, 8)}
    gm = symbolic(Of(forward, **layers, at=Places()), EXAMPLE)
    (output,) = [n for n in gm.graph.nodes if n.op == "output"]
    return find_pairs(output.all_input_nodes[0], Periods(gm, USER, SampleAnalysis(gm)))


def products(m: Any, user: Tensor, item: Tensor) -> Tensor:
    x = vectors(m, user, item)
    return torch.bmm(x, x.transpose(1, 2))


def two(m: Any, user: Tensor, item: Tensor) -> Tensor:
    return vectors(m, user, item) @ others(m, user, item).mT


# By selection: how many pairs, and of each block what repeats, its products and how many of them are picked.
FOUND: dict[str, tuple[Callable[..., Tensor], list[tuple[str, int, int]]]] = {
    "places": (lambda m, u, i: products(m, u, i)[:, m.at.first, m.at.second], [("user", 4, 1), ("-", 15, 9)]),
    "from the end": (lambda m, u, i: products(m, u, i)[:, m.at.first, m.at.back], [("user", 4, 1), ("-", 15, 9)]),
    "made in the call": (
        lambda m, u, i: products(m, u, i)[(slice(None), *torch.tril_indices(5, 5, -1).unbind(0))],
        [("user", 4, 1), ("-", 15, 9)],
    ),
    "of a row": (lambda m, u, i: products(m, u, i).flatten(1)[:, m.at.flat], [("user", 4, 1), ("-", 15, 9)]),
    "index_select": (
        lambda m, u, i: products(m, u, i).flatten(1).index_select(1, m.at.flat),
        [("user", 4, 1), ("-", 15, 9)],
    ),
    "all": (lambda m, u, i: products(m, u, i).flatten(1), [("user", 4, 4), ("-", 15, 21)]),
    "of two": (lambda m, u, i: two(m, u, i).flatten(1), [("user", 4, 4), ("-", 2, 2), ("-", 9, 9)]),
    "permuted": (
        lambda m, u, i: (vectors(m, u, i) @ others(m, u, i).permute(0, 2, 1)).flatten(1),
        [("user", 4, 4), ("-", 2, 2), ("-", 9, 9)],
    ),
}


@pytest.mark.parametrize("kind", FOUND)
def test_blocks_of_what_is_selected(kind: str) -> None:
    forward, blocks = FOUND[kind]
    pairs = found(forward)
    assert pairs is not None
    said = [("-" if b.period is None else "".join(b.period), b.products, len(b.pick)) for b in pairs.blocks]
    assert sorted(said) == sorted(blocks)
    places = [place for b in pairs.blocks for place in b.places]
    assert sorted(places) == list(range(len(pairs.pick)))
    assert sum(b.products for b in pairs.blocks) <= pairs.products


LEFT: dict[str, Callable[..., Tensor]] = {
    "no product": lambda m, u, i: vectors(m, u, i).flatten(1),
    "nothing repeats": lambda m, u, i: (m.item(i).view(-1, 3, 8) @ others(m, u, i).mT).flatten(1)[:, :1],
    "an item's rows alone": lambda m, u, i: torch.bmm(x := m.item(i).view(-1, 3, 8), x.mT).flatten(1),
    "places of the call": lambda m, u, i: products(m, u, i).flatten(1)[:, u[0, :3].argsort()],
    "one side for all": lambda m, u, i: (m.other.weight[None, :, :8] @ vectors(m, u, i).mT).flatten(1),
    "places that are spread": lambda m, u, i: products(m, u, i)[:, m.at.first[:1], m.at.second],
    "read besides": lambda m, u, i: (p := products(m, u, i)).flatten(1) + p.sum((1, 2)).unsqueeze(1),
    "one row of each sample": lambda m, u, i: products(m, u, i)[:, 0],
    "summed": lambda m, u, i: products(m, u, i).sum(1),
    "written in place": lambda m, u, i: torch.bmm(x := vectors(m, u, i).mul_(2), x.mT).mul_(2).flatten(1),
}


@pytest.mark.parametrize("kind", LEFT)
def test_what_is_left_as_it_is(kind: str) -> None:
    assert found(LEFT[kind]) is None
