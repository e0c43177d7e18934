r"""Sites: the places of a traced graph where a row may take another way.

A site is a maximal chain  Linear (activation Linear)*  of calls in the graph:

    x -> fc1 -> gelu -> dropout -> fc2 -> y          one site, "fc1..fc2"
    x -> head -> y                                   one site, "head" (a chain of one)
    x -> fc1 -> gelu -> fc2 -> y                     two sites, "fc1" and "fc2": gelu has a second user
                   \-> + ...

A module called twice is two sites, "head" and "head#2". Nothing is skipped in silence: what cannot be a site is a
`Refusal` with its reason and node.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from tabulate import tabulate
from torch import fx, nn

from dendrofx.activations import activation_of, is_transparent
from dendrofx.errors import InputError


@dataclass(frozen=True)
class Refusal:
    """Why a site is not routed, and the node that decides it (None when the module is not called in the graph)."""

    site: str
    reason: str
    node: str | None = None


@dataclass(frozen=True)
class Site:
    """One candidate for routing.

    Attributes:
        name: what tables and `sites=` call it.
        nodes: names of its graph nodes, first Linear to last Linear.
        linears: names of the `nn.Linear` modules it calls, in order.
        widths: features of its input, of every hidden value and of its output.
    """

    name: str
    nodes: tuple[str, ...]
    linears: tuple[str, ...]
    widths: tuple[int, ...]

    @property
    def macs(self) -> int:
        """Multiply-adds per row of the full block."""
        return sum(a * b for a, b in pairwise(self.widths))

    @property
    def shape(self) -> str:
        """`256 -> 1024 -> 256`."""
        return " -> ".join(map(str, self.widths))


Selector = str | Sequence[str] | Callable[[Site], bool] | None


@dataclass(frozen=True)
class Sites(Sequence[Site]):
    """The sites of one graph, in graph order, and the refusals found on the way."""

    found: tuple[Site, ...]
    refused: tuple[Refusal, ...] = field(default=())

    def __getitem__(self, index: int) -> Site:  # type: ignore[override]
        return self.found[index]

    def __len__(self) -> int:
        return len(self.found)

    def __iter__(self) -> Iterator[Site]:
        return iter(self.found)

    def __str__(self) -> str:
        rows = [[s.name, s.shape, s.macs, "candidate"] for s in self.found]
        rows += [[r.site, "", "", f"refused: {r.reason}"] for r in self.refused]
        return tabulate(rows, headers=["site", "shape", "MACs/row", "status"], tablefmt="simple")

    def expect(self, count: int) -> Sites:
        """Itself when there are `count` sites, otherwise an `InputError` that lists them."""
        if len(self) != count:
            raise InputError(f"expected {count} sites, found {len(self)}:\n{self}")
        return self

    def select(self, selector: Selector) -> Sites:
        """Keep what `selector` names; the others become refusals.

        Args:
            selector: a site or module name or a shell pattern (`"blocks.*"`), several of them, a predicate on
                `Site`, or None for all.

        Raises:
            InputError: a name or pattern that matches no site.
        """
        if selector is None:
            return self
        if callable(selector):
            kept = tuple(s for s in self.found if selector(s))
        else:
            patterns = [selector] if isinstance(selector, str) else list(selector)
            for pattern in patterns:
                if not any(_matches(s, pattern) for s in self.found):
                    names = ", ".join(s.name for s in self.found) or "none"
                    raise InputError(f"sites={pattern!r} matches no site; the model has: {names}")
            kept = tuple(s for s in self.found if any(_matches(s, p) for p in patterns))
        out = tuple(Refusal(s.name, "not selected by sites=", s.nodes[-1]) for s in self.found if s not in kept)
        return Sites(kept, self.refused + out)


def _matches(site: Site, pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for name in (site.name, *site.linears))


def find_sites(gm: fx.GraphModule) -> Sites:
    """All sites of a traced module, and a refusal for every Linear that cannot be one.

    Args:
        gm: a captured module in eval mode.

    Example:
        >>> print(find_sites(capture(model)))
        site         shape               MACs/row  status
        -----------  ----------------  ----------  ---------
        blocks.0..2  256 -> 1024 -> 256    524288  candidate
    """
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
        """The nodes after `linear` up to and with the next Linear of its chain, or None."""
        path, activated = [linear], False
        while True:
            follower = self.next_in_chain(path[-1], activated)
            if follower is None:
                return None
            if activated and self.is_site_linear(follower):
                if (split := next((n for n in path if len(n.users) > 1), None)) is not None:
                    self.refuse_split(linear, split, follower)
                    return None
                return [*path[1:], follower]
            if activation_of(follower, self.modules) is not None and not activated:
                activated = True
            elif not is_transparent(follower, self.modules):
                return None
            path.append(follower)

    def next_in_chain(self, node: fx.Node, activated: bool) -> fx.Node | None:
        """The user of `node` that could carry the chain on: an activation, a no-op or a Linear fed by it alone."""
        for user in node.users:
            fed = bool(user.args) and user.args[0] is node and user.all_input_nodes == [node]
            if fed and user not in self.taken:
                linear = activated and self.is_site_linear(user)
                if linear or is_transparent(user, self.modules) or activation_of(user, self.modules) is not None:
                    return user
        return None

    def refuse_split(self, linear: fx.Node, split: fx.Node, follower: fx.Node) -> None:
        other = next(u for u in split.users if u is not follower)
        reason = f"the middle value %{split.name} has a second user %{other.name}: the chain ends there"
        self.refused.append(Refusal(_chain_name((str(linear.target), str(follower.target))), reason, split.name))

    def refuse_uncalled(self) -> None:
        """Linears that the graph never calls: inside a leaf module, or used through their weight."""
        called = {str(n.target) for n in self.gm.graph.nodes if n.op == "call_module"}
        by_weight = {str(n.target): n for n in self.gm.graph.nodes if n.op == "get_attr"}
        for name, module in self.modules.items():
            if not isinstance(module, nn.Linear) or name in called:
                continue
            user = by_weight.get(f"{name}.weight") or by_weight.get(f"{name}.bias")
            owner = next((c for c in sorted(called) if name.startswith(f"{c}.")), None)
            if user is not None:
                reason = f"its parameters are used functionally (%{user.name}), not by calling the module"
            elif owner is not None:
                reason = f"used inside the leaf module '{owner}' ({type(self.modules[owner]).__name__})"
            else:
                reason = "not called in the graph"
            self.refused.append(Refusal(name, reason, user.name if user is not None else None))

    def unique(self, name: str) -> str:
        self.names[name] = self.names.get(name, 0) + 1
        return name if self.names[name] == 1 else f"{name}#{self.names[name]}"


def linear_refusal(module: nn.Linear) -> str | None:
    """Why a called Linear cannot be (part of) a site, or None."""
    if type(module) is not nn.Linear:
        return f"{type(module).__name__} is a subclass of nn.Linear, its forward may differ"
    if module._forward_hooks or module._forward_pre_hooks:
        return "it has forward hooks, which a light branch would skip"
    if str(module.weight.dtype) != "torch.float32":
        return f"its weight is {module.weight.dtype}; routing takes float32"
    return None


def _chain_name(targets: Sequence[str]) -> str:
    """`blocks.0.fc1..fc2`: the first name, and the last one without their common parent."""
    first, last = targets[0], targets[-1]
    if first == last:
        return first
    parent = first.rpartition(".")[0]
    short = last.removeprefix(f"{parent}.") if parent else last
    return f"{first}..{short}"
