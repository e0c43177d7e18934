"""`RoutedModule`: the `fx.GraphModule` that `transform` returns."""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Iterator, Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import fx, nn

from dendrofx.errors import InputError
from dendrofx.graph.block import row_cost
from dendrofx.graph.pickling import PackedModule
from dendrofx.runtime.attention import plan_attention
from dendrofx.runtime.cascade import FullOnDoubtful, count_cascade, doubt_not_finite
from dendrofx.runtime.leaves import FullOnHardRows, LightBeforeGate, LightWithEvidence, LightWithScales
from dendrofx.runtime.live import live_rows
from dendrofx.runtime.live_counts import count_live_linears, count_live_macs
from dendrofx.runtime.routing import count_rows, no_counts, split_rows
from dendrofx.values.counts import DEAD_ROWS
from dendrofx.values.drop_in import as_called, call_form
from dendrofx.values.inputs import Inputs
from dendrofx.values.meta import FRONT, MACS, ORIGINAL, PLAN

if TYPE_CHECKING:
    from dendrofx.guarantee.front import Setting
    from dendrofx.plan.plan import Plan

NO_PLAN = "this module has no plan: it was rewritten by passes, not by dendrofx.transform"


class RoutedModule(fx.GraphModule):
    """A graph module with a plan and, beside `forward`, a `forward_counted`.

    `forward_counted(...)` takes what `forward` takes and returns `(output, counts)`, where `counts` maps each routed site
    to rows and multiply-adds per branch (see `routed.count_rows`). It is generated from the same graph whenever that is
    recompiled, runs the same nodes, keeps no state, and is exported by `script`.

    It can be copied and pickled, plan included. `torch.load` takes it with `weights_only=False` alone: it is code, not weights.
    `save` writes a file that needs torch alone.

    Example:
        >>> output, counts = module.forward_counted(x)
        >>> counts["fc1..fc2"]["hard_rows"]
        12
    """

    __jit_unused_properties__ = [*fx.GraphModule.__jit_unused_properties__, "plan", "front"]  # noqa: RUF012  (torch reads it)

    @property
    def plan(self) -> Plan:
        """Every candidate site: routed or refused, and why."""
        if PLAN not in self.meta:
            raise AttributeError(NO_PLAN)
        return cast("Plan", self.meta[PLAN])

    @plan.setter
    def plan(self, plan: Plan) -> None:
        self.meta[PLAN] = plan

    @property
    def front(self) -> list[Setting]:
        """The settings whose budget was tested and shown, safest first; `make()` builds one of them. Empty without a budget."""
        tested: list[Setting] = self.meta.get(FRONT, [])
        return [s for s in tested if s.accepted]

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  (nn.Module's own)
        if name == "plan":  # nn.Module hides what a property raises
            raise AttributeError(NO_PLAN)
        try:
            return super().__getattr__(name)
        except AttributeError:
            original = self.__dict__.get("meta", {}).get(ORIGINAL)
            if original is None:
                raise
            try:
                return original.answer(name)
            except AttributeError:
                pass
            raise

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:  # noqa: ANN401
        """Load a state dict of this module's own weights, tolerances among it.

        Raises:
            InputError: other weights, to which light branches, gates and laid-out weights would not be fitted.
        """
        from dendrofx.lowering.fitted import check_state, is_fitted

        if is_fitted(self):
            check_state(self, state_dict)
        return super().load_state_dict(state_dict, strict, assign)

    def __copy__(self) -> RoutedModule:
        """Return a module of its own with the same branches, weights and tolerances, and the plan."""
        made = RoutedModule(self, copy.deepcopy(self.graph))
        made.meta.update(self.meta)
        name_as_original(made)
        return made.train(self.training)

    def __deepcopy__(self, memo: dict[int, Any]) -> RoutedModule:
        made = cast(RoutedModule, super().__deepcopy__(memo))
        name_as_original(made)
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (PackedModule.of(self, without=FRONT),)

    def recompile(self) -> Any:  # noqa: ANN401  (torch.fx's own return type, PythonCode)
        """Regenerate `forward` and `forward_counted`, which take what the model took, and the graph's own beside them."""
        code = super().recompile()
        kind: Any = type(self)
        kind.graph_forward = kind.forward
        kind.graph_forward_counted = type(fx.GraphModule(self, counted_graph(self))).forward
        kind.forward = as_called(kind.graph_forward, _as_the_model)
        kind.forward_counted = torch.jit.export(as_called(kind.graph_forward_counted, _counted_as_the_model))
        kind.__call__ = nn.Module.__call__  # FX's own prints a part of the graph beside every error
        return code


def _as_the_model(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401
    form = call_form(module)
    if form is None:
        return module.graph_forward(*args, **kwargs)
    plain = form.plain(Inputs(args, tuple(kwargs.items())))
    return form.restore(plain.call(module.graph_forward))


def _counted_as_the_model(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401
    form = call_form(module)
    if form is None:
        return module.graph_forward_counted(*args, **kwargs)
    plain = form.plain(Inputs(args, tuple(kwargs.items())))
    output, counts = plain.call(module.graph_forward_counted)
    return form.restore(output), counts


def _rebuilt(packed: PackedModule) -> RoutedModule:
    """Rebuild a pickled module."""
    made = cast(RoutedModule, packed.unpack(RoutedModule))
    name_as_original(made)
    return made


def name_as_original(module: RoutedModule) -> None:
    """Give a module's class the name of the original's: libraries choose by it, and look whether they know it."""
    if (form := call_form(module)) is not None:
        type(module).__name__ = form.model


def routed_nodes(gm: fx.GraphModule) -> Iterator[tuple[str, fx.Node]]:
    """Return `(site name, its full node)` of every routed site, in graph order."""
    for node in gm.graph.nodes:
        if node.op == "call_module" and isinstance(gm.get_submodule(str(node.target)), FullOnHardRows):
            rows = cast(fx.Node, node.args[0])
            yield str(rows.args[2]), node


def graph_names(gm: fx.GraphModule) -> dict[str, str]:
    """Return each routed site's name inside the module: `fc1..fc2` -> `fc1_fc2`, of `routed.fc1_fc2.gate`."""
    return {site: str(node.target).split(".")[-2] for site, node in routed_nodes(gm)}


def site_modules(gm: fx.GraphModule, full_node: fx.Node) -> dict[str, nn.Module]:
    """Return the gate, light and full leaves of a routed site."""
    prefix = str(full_node.target).rpartition(".")[0]
    return {part: gm.get_submodule(f"{prefix}.{part}") for part in ("gate", "light", "full")}


def tolerances(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return the tolerance buffers of a routed module by site, as the plan names it; write to them with `.fill_(value)`.

    Args:
        module: eager, scripted, or loaded from a file. A frozen module has none: set them before freezing.

    Raises:
        InputError: it is no module.

    Example:
        >>> dendrofx.tolerances(torch.jit.load("model.pt"))
        {'fc1..fc2': tensor(0.0420)}
    """
    return {site: buffer for _, site, buffer in _tolerances(module)}


def set_tolerances(module: nn.Module, values: Mapping[str, float]) -> None:
    """Write tolerances by site, as the plan names it; unnamed sites keep theirs. All of them are written, or none.

    Args:
        module: eager, scripted, or loaded from a file.
        values: at least 0; 0 sends every row to the full branch, infinity every row that can be judged to the light one.

    Raises:
        InputError: a value that is no tolerance, or a site that the module does not have.

    Example:
        >>> dendrofx.set_tolerances(routed, {"fc1..fc2": 0.05})
        >>> dendrofx.set_tolerances(routed, dict.fromkeys(dendrofx.tolerances(routed), 0.0))
    """
    sites = {site: buffer for _, site, buffer in _tolerances(module)}
    inside = {name: buffer for name, _, buffer in _tolerances(module)}
    if not isinstance(values, Mapping):
        raise InputError(
            f"tolerances are set by site, got {values!r}: pass {{site: value}}, or for all of them"
            f" dict.fromkeys(dendrofx.tolerances(module), {values if isinstance(values, int | float) else 0.05})"
        )
    written = []
    for name, value in values.items():
        if name not in sites and name not in inside:
            has = ", ".join(sites) or "none: nothing is routed, or it is frozen"
            raise InputError(f"the module has no site {name!r}; it has {has}")
        written.append(({**inside, **sites}[name], _tolerance(name, value)))
    with torch.inference_mode():  # where alone a module that was made, copied or loaded in it can be written to
        for buffer, number in written:
            buffer.fill_(number)


def _tolerance(name: str, value: object) -> float:
    """Check a tolerance, and return one that float32 holds."""
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if not number >= 0:
        raise InputError(
            f"the tolerance of {name!r} must be a number of at least 0, got {value!r}; 0.05 is five percent"
        )
    return number if math.isinf(number) else min(number, torch.finfo(torch.float32).max)


def _tolerances(module: nn.Module) -> list[tuple[str, str, torch.Tensor]]:
    """Return `(name inside the module, name in the plan, buffer)` of every routed site."""
    if not isinstance(module, nn.Module):
        raise InputError(f"tolerances are those of a module that transform returned, or of its script, got {module!r}")
    found = []
    for name, buffer in module.named_buffers():
        parts = name.split(".")
        if parts[0] == "routed" and parts[2:] == ["tolerance"]:
            full = getattr(getattr(module.routed, parts[1]), "full", None)  # which keeps the name, scripted too
            found.append((parts[1], str(getattr(full, "site", "") or parts[1]), buffer))
    return found


def counted_graph(gm: fx.GraphModule) -> fx.Graph:
    """Return the graph of `forward_counted`: `forward`'s nodes, then one `count_rows` per routed site."""
    graph = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    result = graph.graph_copy(gm.graph, copied)
    counts: dict[str, fx.Node] = {}
    for site, full in routed_nodes(gm):
        parts = site_modules(gm, full)
        split = cast(fx.Node, full.args[2])
        if split.target is not split_rows:
            continue
        score, tolerance = split.args[:2]
        costs = [list(row_cost(parts[part])) for part in ("gate", "light", "full")]
        original = cast(FullOnHardRows, parts["full"]).original_macs
        reads_light = isinstance(parts["light"], LightBeforeGate | LightWithEvidence | LightWithScales)
        margin = float(getattr(parts["gate"], "margin", 0.0))
        args = (split, score, tolerance, margin, reads_light, costs, original)
        counts[site] = graph.call_function(count_rows, fx.node.map_arg(args, lambda n: copied[n]))
    counts.update(_live_counts(gm, graph, copied))
    cascade = _cascade_counts(gm, graph, copied)
    graph.output((result, cascade if cascade is not None else counts if counts else graph.call_function(no_counts)))
    return graph


def _cascade_counts(gm: fx.GraphModule, graph: fx.Graph, copied: Mapping[fx.Node, fx.Node]) -> fx.Node | None:
    """Call both models of a cascade for their counts, in the copied graph; return the node that joins them, if there is one."""
    found = [
        n
        for n in gm.graph.nodes
        if n.op == "call_module" and isinstance(gm.get_submodule(str(n.target)), FullOnDoubtful)
    ]
    if not found:
        return None
    full = found[0]
    light, split = cast(fx.Node, full.args[1]), cast(fx.Node, full.args[2])
    gate = cast(fx.Node, split.args[0])
    gate = cast(fx.Node, gate.args[0]) if gate.target is doubt_not_finite else gate
    margin = float(getattr(gm.get_submodule(str(gate.target)), "margin", 0.0))
    inner = [_called_counted(graph, copied[n]) for n in (light, full)]
    score, tolerance = (copied[cast(fx.Node, a)] for a in split.args[:2])
    return graph.call_function(count_cascade, (copied[split], score, tolerance, margin, *inner))


def _called_counted(graph: fx.Graph, call: fx.Node) -> fx.Node:
    """Make a call of a module one of its `forward_counted`; return the node of its counts."""
    with graph.inserting_before(call):
        module = graph.create_node("get_attr", str(call.target))
        pair = graph.call_method("forward_counted", (module, *call.args))
        output, counts = (graph.call_function(operator.getitem, (pair, i)) for i in (0, 1))
    call.replace_all_uses_with(output)
    graph.erase_node(call)
    return counts


def _live_counts(gm: fx.GraphModule, graph: fx.Graph, copied: Mapping[fx.Node, fx.Node]) -> dict[str, fx.Node]:
    """Return the node that counts what dead rows spared, where rows are dropped."""
    rows = next((n for n in gm.graph.nodes if n.target is live_rows), None)
    if rows is None:
        return {}
    linear_macs = rows.meta.get(MACS, 0)
    plans = [n for n in gm.graph.nodes if n.target is plan_attention and MACS in n.meta]
    if not plans:
        return {DEAD_ROWS: graph.call_function(count_live_linears, (copied[rows], linear_macs))}
    args = (copied[rows], linear_macs, [copied[p] for p in plans], [p.meta[MACS] for p in plans])
    return {DEAD_ROWS: graph.call_function(count_live_macs, args)}
