"""Make one Linear of those that read the same live rows: query, key and value.

    %q = query(%x); %k = key(%x); %v = value(%x)     ->     %qkv = query_key_value(%x); %q, %k, %v = split(%qkv)

1. Only plain Linears without hooks that run on live rows, all with a bias or all without.
2. Each output is a view of the joint one: the same sums, in one product that reads the rows once.
3. A group that is called several times (a shared layer) is merged once.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass

import torch
from torch import fx, nn

from dendrofx.errors import PassError
from dendrofx.graph.find_sites import linear_refusal
from dendrofx.passes.base import Change, Pass, PassResult
from dendrofx.values.meta import LIVE, MERGED, ROWS, SHAPES

aten = torch.ops.aten


@dataclass(frozen=True)
class MergeLinears(Pass):
    """Merge sibling Linears on live rows. Claim: no two Linears of equal kind read the same live rows."""

    def run(self, gm: fx.GraphModule) -> PassResult:
        """See `Pass.run`."""
        merged: dict[tuple[str, ...], str] = {}
        changed = []
        for x, group in _siblings(gm):
            targets = tuple(str(n.target) for n in group)
            if targets not in merged:
                merged[targets] = _add_merged(gm, targets)
            nodes = _replace(gm, x, group, merged[targets])
            gm.meta.setdefault(MERGED, {}).update(dict.fromkeys(targets, merged[targets]))
            changed.append(Change(merged[targets], f"merged from {', '.join(targets)}", nodes))
        gm.graph.eliminate_dead_code()
        gm.delete_all_unused_submodules()
        return PassResult(gm, tuple(changed))

    def ensures(self, gm: fx.GraphModule) -> None:
        """See `Pass.ensures`."""
        if left := _siblings(gm):
            raise PassError(f"Linears still read the same rows: {left[0][1]}")


def _siblings(gm: fx.GraphModule) -> list[tuple[fx.Node, list[fx.Node]]]:
    """Return live rows, and the two or more mergeable Linears that read them."""
    groups: dict[tuple[fx.Node, bool], list[fx.Node]] = {}
    for node in gm.graph.nodes:
        if node.op == "call_module" and LIVE in node.meta:
            module = gm.get_submodule(str(node.target))
            if isinstance(module, nn.Linear) and linear_refusal(module) is None:
                groups.setdefault((node.args[0], module.bias is not None), []).append(node)
    return [(x, group) for (x, _), group in groups.items() if len(group) > 1]


def _add_merged(gm: fx.GraphModule, targets: tuple[str, ...]) -> str:
    parts = [gm.get_submodule(t) for t in targets]
    weight = torch.cat([p.get_parameter("weight").detach() for p in parts])
    bias = None if parts[0].bias is None else torch.cat([p.get_parameter("bias").detach() for p in parts])
    one = nn.Linear(weight.size(1), weight.size(0), bias=bias is not None, device="meta")
    one.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        one.bias = nn.Parameter(bias, requires_grad=False)
    name = "_".join([targets[0], *(t.rpartition(".")[2] for t in targets[1:])])
    while hasattr(gm.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]):
        name += "_"  # another layer's
    gm.add_submodule(name, one.eval())
    return name


def _replace(gm: fx.GraphModule, x: fx.Node, group: list[fx.Node], name: str) -> tuple[str, ...]:
    widths = [int(n.meta[SHAPES][0][-1]) for n in group]
    with gm.graph.inserting_before(group[0]):
        joint = gm.graph.create_node("call_module", name, (x,))
        parts = gm.graph.create_node(
            "call_function", aten.split_with_sizes, (joint, widths, -1), name=f"{joint.name}_parts"
        )
        new = [gm.graph.create_node("call_function", operator.getitem, (parts, i), name=f"{n.name}_part")
               for i, n in enumerate(group)]  # fmt: skip
    for node in (joint, parts, *new):
        node.meta[LIVE], node.meta[ROWS] = True, group[0].meta[ROWS]
    for node, part in zip(group, new, strict=True):
        part.meta[SHAPES] = node.meta[SHAPES]
        node.replace_all_uses_with(part)
        gm.graph.erase_node(node)
    return (joint.name, *(n.name for n in new))
