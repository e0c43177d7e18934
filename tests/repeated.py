"""Small rankers, whose users' features repeat for each of their candidates, and their inputs."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dendrofx
from dendrofx import RoutedModule
from tests.asked import asked

WIDTH = 96
Given = dict[str, Tensor]


class Of(nn.Module):
    """A function of named inputs that finds its layers here."""

    def __init__(self, function: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.eval().requires_grad_(False)

    def forward(self, user: Tensor, item: Tensor) -> Any:
        return self.function(self, user, item)


def tower(width: int = WIDTH, out: int = WIDTH) -> nn.Module:
    return nn.Sequential(nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, out), nn.ReLU())


def mlp(width: int, out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, out))


def dlrm() -> Of:
    """Two towers that are joined in front of a third."""

    def forward(m: Any, user: Tensor, item: Tensor) -> Tensor:
        return torch.sigmoid(m.top(torch.cat([m.user(user), m.item(item)], 1)))

    return Of(forward, user=tower(), item=nn.Linear(WIDTH, 32), top=mlp(WIDTH + 32, 1))


def dcn() -> Of:
    """Two cross layers over what is joined, and a deep part beside them."""

    def forward(m: Any, user: Tensor, item: Tensor) -> Tensor:
        x = torch.cat([user, item], 1)
        y = x * m.cross(x) + x
        y = x * m.second(y) + y
        return m.head(torch.cat([y, m.deep(x)], 1))  # type: ignore[no-any-return]

    both = 2 * WIDTH
    layers = {"cross": nn.Linear(both, both), "second": nn.Linear(both, both), "deep": tower(both, 8)}
    return Of(forward, **layers, head=nn.Linear(both + 8, 1))


def summed() -> Of:
    """Towers that are added, multiplied, and joined along another axis."""

    def forward(m: Any, user: Tensor, item: Tensor) -> Any:
        u, i = m.user(user), m.item(item)
        pairs = torch.stack([u, i], 1)
        return m.head(u + i * u.sigmoid()), torch.bmm(pairs, pairs.transpose(1, 2)), u

    return Of(forward, user=tower(), item=nn.Linear(WIDTH, WIDTH), head=nn.Linear(WIDTH, 3))


def attending() -> Of:
    """Candidates attend on what their user has seen: keys and values of a memory that repeats."""

    def forward(m: Any, user: Tensor, item: Tensor) -> Tensor:
        seen = user.unflatten(1, (4, WIDTH // 4))
        k, v = m.key(seen).unflatten(-1, (2, 8)).transpose(1, 2), m.value(seen).unflatten(-1, (2, 8)).transpose(1, 2)
        q = m.query(item).view(item.size(0), 1, 2, 8).transpose(1, 2)
        found = F.scaled_dot_product_attention(q, k, v)
        return m.head(found.transpose(1, 2).reshape(item.size(0), 16))  # type: ignore[no-any-return]

    layers = {"key": nn.Linear(WIDTH // 4, 16), "value": nn.Linear(WIDTH // 4, 16), "query": nn.Linear(WIDTH, 16)}
    return Of(forward, **layers, head=nn.Linear(16, 2))


def by_columns() -> Of:
    """One matrix of features and ids, read by columns."""

    def forward(m: Any, user: Tensor, item: Tensor) -> Tensor:
        ids, dense, group = user[:, 0], user[:, 1:65], user[:, 65]
        x = torch.cat([m.ids(ids.long().remainder(7)), dense, m.groups(group.long().remainder(5)), item], 1)
        return m.top(x)  # type: ignore[no-any-return]

    layers = {"ids": nn.Embedding(7, 40), "groups": nn.Embedding(5, 24)}
    return Of(forward, **layers, top=mlp(40 + 64 + 24 + WIDTH, 1))


def shared_rows() -> Of:
    """What every row has in common: a token of its own, and zeros."""

    def forward(m: Any, user: Tensor, item: Tensor) -> Tensor:
        token = m.token.weight.expand(user.size(0), 16)
        zeros = torch.zeros(user.size(0), 4)
        return m.top(torch.cat([token, m.user(user), zeros, item], 1))  # type: ignore[no-any-return]

    layers = {"token": nn.Embedding(1, 16), "user": tower()}
    return Of(forward, **layers, top=nn.Linear(16 + WIDTH + 4 + WIDTH, 2))


def in_bags() -> Of:
    """Ids of what the user has seen, in bags that sum, and take the mean of all but one id."""

    def forward(m: Any, user: Tensor, item: Tensor) -> Tensor:
        seen = user[:, :12].abs().mul(3).long().clamp_max(8)
        summed = F.embedding_bag(seen, m.table.weight, mode="sum", per_sample_weights=user[:, 12:24])
        return m.top(torch.cat([m.seen(seen), summed, m.item(item)], 1))  # type: ignore[no-any-return]

    layers = {"seen": nn.EmbeddingBag(9, 48, padding_idx=2), "table": nn.Embedding(9, 40), "item": nn.Linear(WIDTH, 32)}
    return Of(forward, **layers, top=mlp(120, 2))


def in_pairs() -> Of:
    """Products of every feature with every other, of which two of the user's repeat, beside one that joins both."""

    def forward(m: Any, user: Tensor, item: Tensor) -> Tensor:
        dense = m.dense(torch.cat([user, item], 1))
        vectors = torch.cat([dense.unsqueeze(1), m.user(user).view(-1, 7, 8), m.item(item).view(-1, 3, 8)], 1)
        first, second = m.pairs.index.unbind(0)
        products = torch.bmm(vectors, vectors.transpose(1, 2))[:, first, second]
        return m.top(torch.cat([dense, products, item.flip(0)[:, :2]], 1))  # type: ignore[no-any-return]

    pairs = nn.Module()
    pairs.register_buffer("index", torch.tril_indices(11, 11, -1))
    layers = {"dense": nn.Linear(2 * WIDTH, 8), "user": nn.Linear(WIDTH, 56), "item": nn.Linear(WIDTH, 24)}
    return Of(forward, **layers, pairs=pairs, top=mlp(8 + 55 + 2, 2))


MODELS: dict[str, Callable[[], Of]] = {
    "dlrm": dlrm,
    "dcn": dcn,
    "summed": summed,
    "attending": attending,
    "by_columns": by_columns,
    "shared_rows": shared_rows,
    "in_bags": in_bags,
    "in_pairs": in_pairs,
}


def runs(lengths: Sequence[int], seed: int = 0) -> Given:
    """A batch in which users have so many candidates each."""
    g = torch.Generator().manual_seed(seed)
    user, item = torch.randn(len(lengths), WIDTH, generator=g), torch.randn(sum(lengths), WIDTH, generator=g)
    return {"user": user.repeat_interleave(torch.tensor(lengths), 0) if lengths else user, "item": item}


def draw(*shape: int) -> Tensor:
    """The same numbers in every process."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(20))


EXAMPLE = runs([4, 3, 5])
# By kind of repeat.
BATCHES: dict[str, Given] = {
    "one user": runs([12], 1),
    "three users": runs([5, 4, 3], 2),
    "few rows repeat": runs([2, *[1] * 8], 3),
    "none repeats": runs([1] * 9, 4),
    "one row": runs([1], 5),
    "no row": runs([], 6),
    "equal but not adjacent": {**runs([1] * 8, 7), "user": draw(2, WIDTH).repeat(4, 1)},
    "items repeat": {**runs([1] * 8, 8), "item": draw(1, WIDTH).repeat(8, 1)},
    "all repeats": {k: v[:1].repeat(8, 1) for k, v in runs([2], 9).items()},
    "expanded": {**runs([1] * 8, 10), "user": draw(1, WIDTH).expand(8, WIDTH)},
    "expanded by columns": {**runs([1] * 8, 10), "user": draw(8, 1).expand(8, WIDTH)},
    "not contiguous": {k: v.t().contiguous().t() for k, v in runs([4, 4], 11).items()},
}


def once(model: nn.Module, example: Given = EXAMPLE, repeated_rows: Any = True, **options: Any) -> RoutedModule:
    """The model with repeated rows computed once, and nothing else."""
    given = asked(**{"budget": 0, "decide": False, **options})
    return dendrofx.transform(model, example, repeated_rows=repeated_rows, sites=[], **given)
