"""Many candidates for few users: rankers by their papers, with synthetic weights and features."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.cases.distinct import Share, count_rows, share
from benchmarks.cases.options import CaseOptions
from benchmarks.models.ranker import DLRM, DCNv2, Sizes, TwoTowers, features, seeded
from dendrofx.compare.case import Case, Limit
from dendrofx.compare.samples import Order
from dendrofx.values.inputs import Inputs

CANDIDATES, CALLS, QUICK_CALLS = 512, 8, 2
QUICK_SECONDS = 1.0  # of a race
ORDERS: Mapping[Order, int] = {"1 user": 1, "4 users": 4, "32 users": 32, "no repeats": sys.maxsize}


@dataclass(frozen=True)
class Candidates:
    """Candidates in calls, each call's shared among so many users; the users of no two calls are the same.

    Attributes:
        user, item: features by name, a row a candidate: as many users are there as no repeats take.
    """

    user: Mapping[str, Tensor]
    item: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.item.values())))

    def batches(self, size: int, order: Order = "random") -> list[Inputs]:
        """See `Samples`; every order but those of users has one user a call."""
        users, found = min(ORDERS.get(order, 1), size), []
        for start in range(0, len(self), size):
            place = torch.arange(min(size, len(self) - start))
            whose = start + place * users // size
            user = {n: v.index_select(0, whose) for n, v in self.user.items()}
            found.append(Inputs.of({**user, **{n: v.index_select(0, start + place) for n, v in self.item.items()}}))
        return found


def towers(options: CaseOptions) -> Case:
    """The two towers."""
    sizes = _sizes(options)
    shape = f"user {sizes.user}-512-256, item {sizes.item}-128, top 384-{_top(sizes)}-1"
    return _case("ranker", f"two towers, {shape}", TwoTowers(sizes), sizes, options, ids=False)


def dlrm(options: CaseOptions) -> Case:
    """DLRM."""
    sizes = _sizes(options)
    shape = f"{_inputs(sizes)}, bottom 512-256-64-16, top {_top(sizes)}-1"
    return _case("ranker-dlrm", f"DLRM (arXiv 1906.00091), {shape}", DLRM(sizes), sizes, options)


def dcn(options: CaseOptions) -> Case:
    """DCNv2, parallel."""
    sizes = _sizes(options)
    shape = f"{_inputs(sizes)}, 3 cross layers, deep {_top(sizes)}"
    return _case("ranker-dcn", f"DCNv2 (arXiv 2008.13535), {shape}", DCNv2(sizes), sizes, options)


def _case(name: str, title: str, model: nn.Module, sizes: Sizes, options: CaseOptions, ids: bool = True) -> Case:
    generator = torch.Generator().manual_seed(options.seed)
    ranker = seeded(model, options.seed)
    calls = QUICK_CALLS if options.quick else CALLS
    seen, test = (Candidates(*features(sizes, n * CANDIDATES, generator, ids)) for n in (1, calls))
    counted = share(ranker, {**test.user, **test.item}, test.user)
    return Case(
        name,
        f"{title}; synthetic weights and features",
        ranker,
        [dict(b.kwargs) for b in seen.batches(CANDIDATES // 4, "4 users")],
        test,
        classes=False,
        repeated_rows=True,
        budgets=(0.0,),
        orders=tuple(ORDERS),
        batch_sizes=(CANDIDATES,),
        quick_sizes=(CANDIDATES,),
        synthetic=True,
        most_seconds=QUICK_SECONDS if options.quick else math.inf,
        limit=Limit("multiply-adds", partial(_limit, counted, frozenset(test.user))),
    )


def _limit(counted: Share, repeated: frozenset[str], batches: Sequence[Inputs]) -> float:
    return counted.limit(*count_rows(batches, repeated))


def _sizes(options: CaseOptions) -> Sizes:
    return Sizes(options.user, options.item, width=options.wide(1024), depth=options.deep(3))


def _inputs(sizes: Sizes) -> str:
    return f"user {sizes.user} features + {sizes.user_ids} ids, item {sizes.item} + {sizes.item_ids}"


def _top(sizes: Sizes) -> str:
    return "-".join(map(str, sizes.top))
