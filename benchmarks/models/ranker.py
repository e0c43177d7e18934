"""Rankers, which score many candidates for few users: the user's features are the same in all rows of a user.

- `TwoTowers`: an MLP for each side and one on top of both.
- `DLRM`: M. Naumov et al., "Deep Learning Recommendation Model for Personalization and Recommendation Systems",
  arXiv 1906.00091: a bottom MLP on all dense features, an embedding for each categorical one, the dot product of every pair of
  these vectors, and a top MLP on the products beside the dense vector.
- `DCNv2`: R. Wang et al., "DCN V2: Improved Deep & Cross Network and Practical Lessons for Web-scale Learning to Rank Systems",
  arXiv 2008.13535: cross layers `x0 * (W x + b) + x`, and a deep part behind them (stacked) or beside them (parallel).

Weights are random numbers: what is learned changes no row's arithmetic. Annotations are not postponed, for TorchScript reads them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

HASHES = 1000  # rows of every table
EMBEDDING = 16  # as in the DLRM that its authors train on Criteo's data


@dataclass(frozen=True)
class Sizes:
    """The sizes of a ranker.

    Attributes:
        user, item: dense features of each side.
        user_ids, item_ids: categorical features of each side, of the models that have embeddings.
        width, depth: of the MLP on top: hidden layers of `width`, half of it, and so on.
    """

    user: int = 512
    item: int = 128
    user_ids: int = 24
    item_ids: int = 8
    width: int = 1024
    depth: int = 3

    @property
    def top(self) -> list[int]:
        """The widths of the MLP on top, its output not among them."""
        return [max(self.width >> i, 1) for i in range(self.depth)]


class TwoTowers(nn.Module):
    """The user's features and the item's, each through an MLP of its own, then one on both."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.user, self.item = _mlp(sizes.user, [512, 256]), _mlp(sizes.item, [128])
        self.top = nn.Sequential(*_mlp(256 + 128, sizes.top), nn.Linear(sizes.top[-1], 1))

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """f32[rows, user], f32[rows, item] -> f32[rows, 1], a probability."""
        return torch.sigmoid(self.top(torch.cat([self.user(user), self.item(item)], 1)))


class Lookups(nn.Module):
    """An embedding for each categorical feature."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList([nn.Embedding(HASHES, EMBEDDING) for _ in range(features)])

    def forward(self, ids: Tensor) -> Tensor:
        """i64[rows, features] -> f32[rows, features, EMBEDDING]."""
        found = []
        for i, table in enumerate(self.tables):
            found.append(table(ids[:, i]))
        return torch.stack(found, 1)


class DLRM(nn.Module):
    """Dot products of every pair of features, the dense ones together being one of them."""

    first: Tensor  # of the pairs
    second: Tensor

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.bottom = _mlp(sizes.user + sizes.item, [512, 256, 64, EMBEDDING])
        self.user_tables, self.item_tables = Lookups(sizes.user_ids), Lookups(sizes.item_ids)
        features = 1 + sizes.user_ids + sizes.item_ids
        first, second = torch.tril_indices(features, features, -1)
        self.register_buffer("first", first)
        self.register_buffer("second", second)
        self.top = nn.Sequential(*_mlp(EMBEDDING + len(first), sizes.top), nn.Linear(sizes.top[-1], 1))

    def forward(self, user: Tensor, user_ids: Tensor, item: Tensor, item_ids: Tensor) -> Tensor:
        """f32[rows, user], i64[rows, ids], f32[rows, item], i64[rows, ids] -> f32[rows, 1], a probability."""
        dense = self.bottom(torch.cat([user, item], 1))
        looked = [self.user_tables(user_ids), self.item_tables(item_ids)]
        vectors = torch.cat([dense.unsqueeze(1), looked[0], looked[1]], 1)
        products = torch.bmm(vectors, vectors.transpose(1, 2))[:, self.first, self.second]
        return torch.sigmoid(self.top(torch.cat([dense, products], 1)))


class Cross(nn.Module):
    """A cross layer, `x0 * (W x + b) + x`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x0: Tensor, x: Tensor) -> Tensor:
        """f32[rows, width] twice -> f32[rows, width]."""
        crossed: Tensor = x0 * self.linear(x) + x
        return crossed


class DCNv2(nn.Module):
    """Cross layers and a deep part."""

    def __init__(self, sizes: Sizes, layers: int = 3, stacked: bool = False) -> None:
        super().__init__()
        self.user_tables, self.item_tables = Lookups(sizes.user_ids), Lookups(sizes.item_ids)
        width = sizes.user + sizes.item + EMBEDDING * (sizes.user_ids + sizes.item_ids)
        self.cross = nn.ModuleList([Cross(width) for _ in range(layers)])
        self.deep = _mlp(width, sizes.top)
        self.stacked = stacked
        self.head = nn.Linear(sizes.top[-1] + (0 if stacked else width), 1)

    def forward(self, user: Tensor, user_ids: Tensor, item: Tensor, item_ids: Tensor) -> Tensor:
        """f32[rows, user], i64[rows, ids], f32[rows, item], i64[rows, ids] -> f32[rows, 1], a probability."""
        looked = [self.user_tables(user_ids).flatten(1), self.item_tables(item_ids).flatten(1)]
        x0 = torch.cat([user, looked[0], item, looked[1]], 1)
        x = x0
        for layer in self.cross:
            x = layer(x0, x)
        found = self.deep(x) if self.stacked else torch.cat([x, self.deep(x0)], 1)
        return torch.sigmoid(self.head(found))


def seeded(model: nn.Module, seed: int) -> nn.Module:
    """Fill a ranker with random weights that keep its values of one size from layer to layer, and put it into eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            gain = 0.25 if "cross" in name else 2.0
            nn.init.normal_(module.weight, std=(gain / module.in_features) ** 0.5, generator=generator)
            nn.init.normal_(module.bias, std=0.1, generator=generator)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=EMBEDDING**-0.25, generator=generator)  # dot products of variance 1
    return model.eval()


def features(
    sizes: Sizes, rows: int, generator: torch.Generator, ids: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return features of random users and of random items, a row each, by the names of the models' inputs."""

    def side(name: str, dense: int, categorical: int) -> dict[str, Tensor]:
        found = {name: torch.randn(rows, dense, generator=generator)}
        looked = torch.randint(HASHES, (rows, categorical), generator=generator)
        return {**found, f"{name}_ids": looked} if ids else found

    return side("user", sizes.user, sizes.user_ids), side("item", sizes.item, sizes.item_ids)


def _mlp(width: int, widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in zip([width, *widths], widths, strict=False):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers)
