"""What tests compare: graphs by structure, outputs within a named tolerance."""

import difflib
from typing import Any

import torch
from torch import Tensor, fx, nn

from dendrofx.gates import AlwaysLight, GateForm, SiteRows
from dendrofx.graph.block import BlockData, block_of
from dendrofx.graph.capture import Tracer, capture
from dendrofx.graph.find_sites import find_sites
from dendrofx.graph.show import graph_text
from dendrofx.light import LightForm, LowRank
from dendrofx.passes import AddGate, AddLight, MarkSites, OutlineBlock, Pass, RouteRows, run_passes
from dendrofx.values.inputs import Inputs

# The same matrix products on the same rows, in the same order: the same bits.
SAME_GEMM: dict[str, Any] = {"rtol": 0.0, "atol": 0.0}
# The same products on another number of rows, or in another order: a few float32 rounding errors of sums of < 1000 terms.
OTHER_GEMM: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-6}

LIGHT_GATE = AlwaysLight()
RANK_2 = LowRank(rank=2)


def assert_same_output(a: nn.Module, b: nn.Module, rows: Any, tolerance: dict[str, Any] = SAME_GEMM) -> None:
    """`a` and `b` agree on `rows`: one batch, as `Inputs.of` takes it."""
    batch = Inputs.of(rows)
    with torch.no_grad():
        torch.testing.assert_close(batch.call(b), batch.call(a), **tolerance, equal_nan=True)


def assert_same_graph(got: fx.GraphModule, expected: nn.Module) -> None:
    """The two graphs have the same operations, wired alike. A plain `expected` module is traced, its children as leaves."""
    wanted = expected if isinstance(expected, fx.GraphModule) else one_level(expected)
    if described(got) != described(wanted):
        lines = (graph_text(gm).splitlines() for gm in (wanted, got))
        raise AssertionError("\n".join(["graphs differ:", *difflib.ndiff(*lines), *_first_difference(got, wanted)]))


def described(gm: fx.GraphModule) -> list[tuple[Any, ...]]:
    """Each node as (operation, what it calls, arguments), nodes by their position."""
    at = {node: f"%{i}" for i, node in enumerate(gm.graph.nodes)}

    def wired(node: fx.Node) -> str:
        return repr(fx.node.map_arg((node.args, sorted(node.kwargs.items())), lambda n: _Name(at[n])))

    return [(n.op, _kind(gm, n), "" if n.op == "placeholder" else wired(n)) for n in gm.graph.nodes]


class _Name(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _kind(gm: fx.GraphModule, node: fx.Node) -> object:
    if node.op == "call_module":
        return type(gm.get_submodule(str(node.target))).__name__
    if node.op == "get_attr":
        owner, _, name = str(node.target).rpartition(".")
        value: Tensor = getattr(gm.get_submodule(owner), name)
        return (value.dtype, tuple(value.shape))
    return node.target if node.op in ("call_function", "call_method") else None


def _first_difference(got: fx.GraphModule, wanted: fx.GraphModule) -> list[str]:
    for a, b in zip(described(got), described(wanted), strict=False):
        if a != b:
            return [f"first difference: got {a}, expected {b}"]
    return [f"got {len(described(got))} nodes, expected {len(described(wanted))}"]


class _OneLevel(Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def one_level(model: nn.Module) -> fx.GraphModule:
    """A trace in which every child is one call, also an `nn.Sequential`."""
    tracer = _OneLevel()
    graph = tracer.trace(model)
    return fx.GraphModule(tracer.root, graph)


def five_passes(
    gm: fx.GraphModule, gate: GateForm = LIGHT_GATE, light: LightForm = RANK_2, select: Any = None
) -> list[Pass]:
    """The passes of `rewrite`, for the selected sites of `gm`."""
    sites = find_sites(gm).select(select)
    blocks = {s.name: block_of(gm, s.nodes) for s in sites}
    lights = {name: light.fit(block) for name, block in blocks.items()}
    gates = {n: (gate.reads, gate.fit(SiteRows(BlockData(b), lights[n]))) for n, b in blocks.items()}
    return [MarkSites(sites.found), OutlineBlock(), AddLight(lights), AddGate(gates), RouteRows()]


def after(steps: int, model: nn.Module, gate: GateForm = LIGHT_GATE, select: Any = None) -> fx.GraphModule:
    """`model` captured and rewritten by the first `steps` of the five passes."""
    gm = capture(model.eval())
    return run_passes(gm, five_passes(gm, gate, select=select)[:steps]).graph_module
