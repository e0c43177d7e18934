"""Finding sites: one walk over a captured graph, and a refusal for every Linear that cannot be part of one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest

import torch
from torch import fx, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from dendrofx.errors import InputError
from dendrofx.graph.activations import activation_of, has_hooks, is_in_place, is_transparent
from dendrofx.graph.capture import capture
from dendrofx.graph.sites import Refusal, Site, Sites
from dendrofx.values.meta import LINEARS, MERGED, SPLIT

aten = torch.ops.aten
# Functions that hold weights or multiply.
PRODUCTS = (
    r"linear|conv(_?transpose)?\dd|convolution|lstm|gru|rnn_\w+|b?mm|matmul|addmm|baddbmm|einsum|embedding|"
    r"scaled_dot_product_attention"
)


def find_sites(gm: nn.Module) -> Sites:
    """Return all sites of a module, and a refusal for every Linear that cannot be one.

    Args:
        gm: in eval mode; one that is not captured yet is captured, as `transform(model)` does without inputs.

    Raises:
        InputError: it is no module.
        CaptureError: it cannot be captured.

    Example:
        >>> print(dendrofx.find_sites(model))
        site         shape               MACs/row  status
        -----------  ----------------  ----------  ---------
        blocks.0..2  256 -> 1024 -> 256    524288  candidate
    """
    if not isinstance(gm, nn.Module):
        raise InputError(f"sites are those of a model, got {gm!r}: pass an nn.Module in eval mode")
    if not isinstance(gm, fx.GraphModule):
        gm = capture(gm)
    return _Finder(gm).find()


class _Finder:
    """One walk over the graph; `taken` holds the Linear nodes that already belong to a site."""

    def __init__(self, gm: fx.GraphModule) -> None:
        self.gm = gm
        self.modules: dict[str, nn.Module] = dict(gm.named_modules(remove_duplicate=False))
        self.taken: set[fx.Node] = set()
        self.names: dict[str, int] = {}
        self.refused: list[Refusal] = []

    def find(self) -> Sites:
        found = [self.chain(n) for n in self.gm.graph.nodes if n not in self.taken and self.is_site_linear(n)]
        self.refuse_uncalled()
        return Sites(tuple(found), tuple(self.refused))

    def is_site_linear(self, node: fx.Node) -> bool:
        if node.op != "call_module" or not isinstance(module := self.modules[str(node.target)], nn.Linear):
            return False
        reason = linear_refusal(module)
        if reason is not None and node not in self.taken:
            self.taken.add(node)
            self.refused.append(Refusal(str(node.target), reason, node.name))
        return reason is None

    def chain(self, first: fx.Node) -> Site:
        nodes, linears = [first], [first]
        while (step := self.extend(linears[-1])) is not None:
            nodes += step
            linears.append(step[-1])
        self.taken.update(linears)
        targets = tuple(str(n.target) for n in linears)
        modules = [self.modules[t] for t in targets]
        widths = (modules[0].in_features, *(m.out_features for m in modules))
        return Site(self.unique(_chain_name(targets)), tuple(n.name for n in nodes), targets, widths)  # type: ignore[arg-type]

    def extend(self, linear: fx.Node) -> list[fx.Node] | None:
        """Return the nodes after `linear` up to and with the next Linear of its chain, or None."""
        path, activated = [linear], False
        while True:
            follower = self.next_in_chain(path[-1], activated)
            if follower is None:
                return None
            if activated and self.is_site_linear(follower):
                reason = self.break_before(path, follower)
                if reason is None:
                    return [*path[1:], follower]
                name = _chain_name((str(linear.target), str(follower.target)))
                self.refused.append(Refusal(name, f"{reason[1]}: the chain ends there", reason[0].name))
                return None
            if activation_of(follower, self.modules) is not None and not activated:
                activated = True
            elif not is_transparent(follower, self.modules):
                return None
            path.append(follower)

    def next_in_chain(self, node: fx.Node, activated: bool) -> fx.Node | None:
        """Return the user of `node` that could carry the chain on: an activation, a no-op or a Linear fed by it alone."""
        for user in node.users:
            fed = bool(user.args) and user.args[0] is node and user.all_input_nodes == [node]
            if fed and user not in self.taken:
                linear = activated and self.is_site_linear(user)
                if linear or is_transparent(user, self.modules) or activation_of(user, self.modules) is not None:
                    return user
        return None

    def break_before(self, path: list[fx.Node], follower: fx.Node) -> tuple[fx.Node, str] | None:
        """Return why `path` and the Linear after it cannot be one block: the node and the reason, or None."""
        inside = {*path, follower}
        for node in path:
            if (other := next((u for u in node.users if u not in inside), None)) is not None:
                return node, f"the middle value %{node.name} has a second user %{other.name}"
        node = path[0].next
        while node is not follower:  # the block will run where its last node stood
            if node not in inside and self.writes_in_place(node):
                return node, f"%{node.name} writes in place between its nodes"
            node = node.next
        return None

    def writes_in_place(self, node: fx.Node) -> bool:
        """Return whether a node may change a value that another node reads."""
        if node.op == "call_module":
            return getattr(self.modules[str(node.target)], "inplace", False) is True
        return is_in_place(node)

    def refuse_uncalled(self) -> None:
        """Refuse Linears that the graph never calls: inside a leaf module, or used through their parameters."""
        called = {str(n.target) for n in self.gm.graph.nodes if n.op == "call_module"}
        reads = {str(n.target): n for n in self.gm.graph.nodes if n.op == "get_attr"}
        for name, kind in self.linears().items():
            if name not in called and name not in self.gm.meta.get(MERGED, {}):
                read = reads.get(f"{name}.weight") or reads.get(f"{name}.bias")
                leaf = next((c for c in sorted(called) if name.startswith(f"{c}.")), None)
                node = None if read is None else read.name
                self.refused.append(Refusal(name, self.uncalled(name, kind, read, leaf), node))

    def uncalled(self, name: str, kind: str, read: fx.Node | None, leaf: str | None) -> str:
        """Return why a Linear of class `kind` is not called: a node reads its weight, or a leaf module has it."""
        if name in self.gm.meta.get(SPLIT, {}):
            return "split by columns, so that those that repeat run on distinct rows"
        if kind == NonDynamicallyQuantizableLinear.__name__ and (read is not None or leaf is not None):
            return f"never swapped: nn.MultiheadAttention reads the weight of this {kind} without calling it"
        if leaf is not None:
            return f"used inside the leaf module '{leaf}' ({type(self.modules[leaf]).__name__})"
        if read is None:
            return "not called in the graph"
        if kind != "Linear":
            return subclass_refusal(kind)
        converted = next((u for u in read.users if u.target in (aten.to, aten._to_copy)), None)
        if converted is not None:
            return (
                f"its weight is converted before each use (%{converted.name}), as under autocast; routing takes float32"
            )
        return f"its parameters are used functionally (%{read.name}), not by calling the module"

    def linears(self) -> dict[str, str]:
        """Return every Linear of the model, `{name: class name}`."""
        found = {name: type(m).__name__ for name, m in self.gm.named_modules() if isinstance(m, nn.Linear)}
        return {**found, **self.gm.meta.get(LINEARS, {})}

    def unique(self, name: str) -> str:
        self.names[name] = self.names.get(name, 0) + 1
        return name if self.names[name] == 1 else f"{name}#{self.names[name]}"


def linear_refusal(module: nn.Linear) -> str | None:
    """Return why a called Linear cannot be (part of) a site, or None."""
    if type(module) is not nn.Linear:
        return subclass_refusal(type(module).__name__)
    if has_hooks(module):
        return "it has forward hooks, which a light branch would skip"
    if module.weight.numel() == 0:
        return f"it has no weights: {module.in_features} -> {module.out_features} features"
    if module.weight.dtype is not torch.float32:
        return f"its weight is {module.weight.dtype}; routing takes float32"
    return None


def subclass_refusal(kind: str) -> str:
    """Return why a Linear of another class is left alone."""
    return f"{kind} is a subclass of nn.Linear, its forward may differ"


def without_linears(gm: fx.GraphModule) -> str:
    """Say what a graph that has no Linear is made of: its modules with weights and its products, counted."""
    modules = dict(gm.named_modules(remove_duplicate=False))
    found = Counter(kind for node in gm.graph.nodes if (kind := _weighs(node, modules)))
    made = ", ".join(f"{count} {kind}" for kind, count in found.items()) or "nothing that has weights"
    return f"no Linear in it: {made}; only modules of class nn.Linear are routed"


def _weighs(node: fx.Node, modules: Mapping[str, nn.Module]) -> str:
    """Return what a node is called if it holds weights or multiplies: `Conv2d`, or `conv2d()` where it is a function."""
    if node.op == "call_module":
        module = modules[str(node.target)]
        return type(module).__name__ if next(module.parameters(), None) is not None else ""
    if node.op not in ("call_function", "call_method"):
        return ""
    name = str(getattr(node.target, "__name__", node.target)).partition(".")[0].strip("_")
    return f"{name}()" if re.fullmatch(PRODUCTS, name) else ""


def _chain_name(targets: Sequence[str]) -> str:
    """Return `blocks.0.fc1..fc2`: the first name, and the last one without the parents that they share."""
    first, last = targets[0].split("."), targets[-1].split(".")
    if first == last:
        return targets[0]
    shared = next(i for i, (a, b) in enumerate(zip_longest(first, last)) if a != b)
    return f"{targets[0]}..{'.'.join(last[shared:])}"
