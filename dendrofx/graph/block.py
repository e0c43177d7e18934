"""The block of a site as a module of its own, and what one row of it costs.

    fc1 -> gelu -> dropout -> fc2      becomes      Sequential(fc1, GELU, fc2)

The Linears are the model's own modules, not copies: two sites that call one module share its weights.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cached_property
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from dendrofx.errors import InputError
from dendrofx.graph.activations import LIPSCHITZ, activation_of
from dendrofx.statistics.moments import Moments


def block_of(gm: fx.GraphModule, nodes: tuple[str, ...]) -> nn.Sequential:
    """Return the module that computes what a site's nodes compute.

    Args:
        gm: the captured module.
        nodes: the site's node names, first Linear to last Linear.
    """
    by_name = {n.name: n for n in gm.graph.nodes}
    modules: dict[str, nn.Module] = dict(gm.named_modules(remove_duplicate=False))
    layers: list[nn.Module] = []
    for name in nodes:
        node = by_name[name]
        if node.op == "call_module" and isinstance(linear := modules[str(node.target)], nn.Linear):
            layers.append(linear)
        elif (activation := activation_of(node, modules)) is not None:
            layers.append(activation)
    return nn.Sequential(*layers)


def linear_input(linear: fx.Node) -> fx.Node:
    """Return what a Linear's call takes in, given by position or as `input=`."""
    return cast(fx.Node, linear.args[0] if linear.args else linear.kwargs["input"])


def as_block(module: nn.Module) -> nn.Sequential:
    """Return a lone Linear as a chain of one; a chain as it is.

    Raises:
        InputError: the module is no chain Linear (activation Linear)*.
    """
    block = nn.Sequential(module) if isinstance(module, nn.Linear) else module
    layers = list(block) if isinstance(block, nn.Sequential) else []
    odd = len(layers) % 2 == 1 and all(
        type(m) is nn.Linear if i % 2 == 0 else type(m) in LIPSCHITZ for i, m in enumerate(layers)
    )
    if not odd or not isinstance(block, nn.Sequential):
        raise InputError(f"a light form is fitted to an nn.Linear or a chain Linear (activation Linear)*, got {module}")
    return block


class BlockData:
    """A block and the rows that reach it, with what several light forms want to know about them, computed once.

    Args:
        block: the chain.
        rows: f32[N, in], or None without data.
        moments: by Linear, of what it takes in, over more rows than these: those of a whole dataset. None takes them of `rows`.

    Attributes:
        kept: what a form computed and another form can use again, by a key of its own.
    """

    def __init__(
        self, block: nn.Sequential, rows: Tensor | None = None, moments: Sequence[Moments] | None = None
    ) -> None:
        self.block, self.rows, self.moments = block, rows, moments
        self.linears = [m for m in block if isinstance(m, nn.Linear)]
        self.activations = [m for m in block if not isinstance(m, nn.Linear)]
        self._directions: dict[tuple[int, str], Tensor] = {}
        self._spread: dict[int, Tensor] = {}
        self.kept: dict[Hashable, Any] = {}

    @cached_property
    @torch.no_grad()
    def inputs(self) -> list[Tensor]:
        """What each Linear takes in: `[rows, act(fc1(rows)), ...]`, one f32[N, in_i] per Linear."""
        assert self.rows is not None
        found, x = [], self.rows
        for layer in self.block:
            if isinstance(layer, nn.Linear):
                found.append(x)
            x = layer(x)
        return found

    @cached_property
    @torch.no_grad()
    def outputs(self) -> Tensor:
        """f32[N, out], the block's output."""
        return self.linears[-1](self.inputs[-1])  # type: ignore[no-any-return]

    def directions(self, index: int, basis: str) -> Tensor:
        """Return f32[n, k], orthonormal directions of the index-th Linear, the leading ones first (see `light/low_rank.py`)."""
        key = (index, basis)
        if key not in self._directions:
            weight = self.linears[index].weight.detach()
            if basis == "weight":
                matrix = weight
            else:
                rows = self.spread(index)
                matrix = rows if basis == "input" else F.linear(rows, weight.to(rows.dtype))
            self._directions[key] = principal_directions(matrix).to(weight.dtype)
        return self._directions[key]

    def spread(self, index: int) -> Tensor:
        """Return rows [k, n] with the second moment of what the index-th Linear takes in: the recorded ones, or f64 of moments."""
        if self.moments is None:
            return self.inputs[index]
        if index not in self._spread:  # an eigendecomposition
            self._spread[index] = self.moments[index].rows()
        return self._spread[index]

    def mean_square(self, index: int) -> Tensor:
        """Return f64[n], the mean square of each number that the index-th Linear takes in."""
        if self.moments is not None:
            return self.moments[index].mean_square
        found: Tensor = self.inputs[index].double().square().mean(0)
        return found


def finite_rows(block: nn.Sequential, rows: Tensor, moments: Sequence[Moments] | None = None) -> BlockData:
    """Return the rows on which the block and all its hidden values are finite; `moments` are of such rows alone."""
    data = BlockData(block, rows, moments)
    finite = torch.stack([v.isfinite().all(1) for v in [*data.inputs, data.outputs]]).all(0)
    return data if bool(finite.all()) else BlockData(block, rows[finite], moments)


def principal_directions(matrix: Tensor, most: int | None = None) -> Tensor:
    """Return the right singular vectors of f32[m, n], leading first, as f32[n, min(m, n, most)].

    They are taken from the smaller Gram matrix in float64.

    Taken from the Gram matrix of the rows they lose orthogonality where singular values are small, so they are
    orthonormalised once more. A sign rule makes them the same on every machine, as far as the eigenvectors are.
    """
    a = matrix.double()
    if a.size(0) >= a.size(1):
        vectors = torch.linalg.eigh(a.t() @ a).eigenvectors.flip(1)[:, :most]
    else:
        vectors = torch.linalg.qr(a.t() @ torch.linalg.eigh(a @ a.t()).eigenvectors.flip(1)[:, :most]).Q
    signs = vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
    directions: Tensor = (vectors * signs).to(matrix.dtype)
    return directions


class RowCost(NamedTuple):
    """What one row of a branch or gate costs.

    Attributes:
        macs: multiply-adds.
        work: multiply-adds, each weighted by the bits of its widest operand over 32.
        padded_macs, padded_work: the part of them that also runs for padding rows (see `runtime/kernels.py`).
    """

    macs: int
    work: int
    padded_macs: int
    padded_work: int


def row_cost(module: nn.Module) -> RowCost:
    """Return what the parts of a branch or gate count themselves (`macs`, `bits`, `pads`), plus in x out of each Linear."""
    own = getattr(module, "macs", None)
    if isinstance(module, nn.Linear):
        own = module.in_features * module.out_features
    if isinstance(own, int):
        work = -(-own * getattr(module, "bits", 32) // 32)
        pads = int(getattr(module, "pads", False))
        return RowCost(own, work, pads * own, pads * work)
    return RowCost(*(sum(parts) for parts in zip((0, 0, 0, 0), *map(row_cost, module.children()), strict=True)))


def row_macs(module: nn.Module) -> int:
    """Return the multiply-adds per row of a branch or gate."""
    return row_cost(module).macs


def converted_values(module: nn.Module) -> int:
    """Return the values per row that a branch converts from and to a lower precision: what its Linears take in and give out."""
    return sum(int(getattr(m, "converts", 0)) for m in module.modules())
