"""What a pass is, and how passes are run.

A pass is a frozen dataclass whose fields are its configuration. Calling it checks `requires` on the graph that enters,
rewrites in `run`, lints and recompiles, and checks the pass's claim in `ensures` on the *result*. What it did is returned as
values: `changed` and `refused`, each with a site and nodes. `modified` is computed from `changed` and cannot lie.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from torch import fx

from dendrofx.errors import PassError
from dendrofx.graph.show import graph_text
from dendrofx.graph.sites import Refusal, Site
from dendrofx.values.meta import SHAPES


@dataclass(frozen=True)
class Change:
    """One edit: the site, what was done, and the names of the nodes that now stand there."""

    site: str
    what: str
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class PassResult:
    """The rewritten module, and what was changed and refused."""

    graph_module: fx.GraphModule
    changed: tuple[Change, ...] = field(default=())
    refused: tuple[Refusal, ...] = field(default=())

    @property
    def modified(self) -> bool:
        """Tell whether anything was changed."""
        return bool(self.changed)


class Pass(ABC):
    """Base of the passes; subclasses are frozen dataclasses."""

    def __call__(self, gm: fx.GraphModule) -> PassResult:
        """Check, rewrite in place, lint, check the claim, and recompile.

        Raises:
            PassError: the graph does not suit the pass, or the result breaks its claim.
        """
        result = self.checked(gm)
        result.graph_module.recompile()
        return result

    def checked(self, gm: fx.GraphModule) -> PassResult:
        """Do what a call does without the recompiling, of which a sequence of passes needs one at its end."""
        self.requires(gm)
        result = self.run(gm)
        result.graph_module.graph.lint()
        self.ensures(result.graph_module)
        return result

    def __str__(self) -> str:
        """Print name and configuration on one line; sites and modules by the sites' names."""
        values = ((f.name, getattr(self, f.name)) for f in fields(self))  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(f'{name}={_short(value)}' for name, value in values)})"

    def requires(self, gm: fx.GraphModule) -> None:
        """Raise `PassError` when the graph that enters does not suit the pass."""

    @abstractmethod
    def run(self, gm: fx.GraphModule) -> PassResult:
        """Rewrite the graph in place."""

    def ensures(self, gm: fx.GraphModule) -> None:
        """Raise `PassError` when the resulting graph breaks the pass's claim."""


class PassOnShapes(Pass):
    """Base of the passes that read symbolic shapes, which `capture(..., shapes=True)` leaves."""

    def requires(self, gm: fx.GraphModule) -> None:
        """Raise where no node has shapes."""
        if not any(SHAPES in n.meta for n in gm.graph.nodes):
            raise PassError("the graph has no symbolic shapes: capture it with shapes=True")


def _short(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(map(str, value))
    if isinstance(value, tuple) and all(isinstance(v, Site) for v in value):
        return ", ".join(site.name for site in value)
    return repr(value)


def run_passes(gm: fx.GraphModule, passes: Sequence[Pass]) -> PassResult:
    """Run passes in order, recompile once, and collect what they changed and refused.

    Args:
        gm: rewritten in place.
        passes: in the order they run.

    Raises:
        PassError: names the failing pass and those before it; `.graph` is the graph as it entered.
    """
    changed: tuple[Change, ...] = ()
    refused: tuple[Refusal, ...] = ()
    done: list[str] = []
    for step in passes:
        entered = graph_text(gm)
        try:
            result = step.checked(gm)
        except Exception as error:
            after = f" after {', '.join(done)}" if done else ""
            raise PassError(f"{step} failed{after}: {error}", entered) from error
        gm, changed, refused = result.graph_module, changed + result.changed, refused + result.refused
        done.append(type(step).__name__)
    gm.recompile()
    return PassResult(gm, changed, refused)


def calls(node: fx.Node, target: object) -> bool:
    """Tell whether a node calls a function or an op."""
    return node.op == "call_function" and node.target is target
