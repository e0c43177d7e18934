"""The block of a site as a module of its own, and what one row of it costs.

    fc1 -> gelu -> dropout -> fc2      becomes      Sequential(fc1, GELU, fc2)

The Linears are the model's own modules, not copies: two sites that call one module share its weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from dendrofx.activations import activation_of
from dendrofx.errors import InputError


def block_of(gm: fx.GraphModule, nodes: tuple[str, ...]) -> nn.Sequential:
    """The module that computes what a site's nodes compute.

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


def as_block(module: nn.Module) -> nn.Sequential:
    """A lone Linear as a chain of one; a chain as it is.

    Raises:
        InputError: the module is no chain Linear (activation Linear)*.
    """
    block = nn.Sequential(module) if isinstance(module, nn.Linear) else module
    layers = list(block) if isinstance(block, nn.Sequential) else []
    odd = len(layers) % 2 == 1 and all(isinstance(m, nn.Linear) == (i % 2 == 0) for i, m in enumerate(layers))
    if not odd or not isinstance(block, nn.Sequential):
        raise InputError(f"a light form is fitted to an nn.Linear or a chain Linear (activation Linear)*, got {module}")
    return block


def linears_of(block: nn.Sequential) -> list[nn.Linear]:
    """The Linears of a chain, in order."""
    return [m for m in block if isinstance(m, nn.Linear)]


def activations_of(block: nn.Sequential) -> list[nn.Module]:
    """The activations of a chain, in order."""
    return [m for m in block if not isinstance(m, nn.Linear)]


@torch.no_grad()
def hidden_rows(block: nn.Sequential, rows: Tensor) -> list[Tensor]:
    """What each Linear of the chain takes in: `[rows, act(fc1(rows)), ...]`, one f32[N, in_i] per Linear."""
    inputs = []
    for layer in block:
        if isinstance(layer, nn.Linear):
            inputs.append(rows)
        rows = layer(rows)
    return inputs


def row_macs(module: nn.Module) -> int:
    """Multiply-adds per row of a branch or gate: what its parts count themselves, plus in x out of each Linear."""
    own = getattr(module, "macs", None)
    if isinstance(own, int):
        return own
    if isinstance(module, nn.Linear):
        return module.in_features * module.out_features
    return sum(row_macs(child) for child in module.children())
