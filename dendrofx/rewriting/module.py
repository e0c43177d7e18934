"""`RoutedModule`: the `fx.GraphModule` that `transform` returns."""

from __future__ import annotations

import copy
import html
import warnings
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import fx, nn

from dendrofx.graph.pickling import PackedModule
from dendrofx.guarantee.settings import Setting, Settings
from dendrofx.lowering.fitted import check_state, is_fitted
from dendrofx.plan.plan import Plan
from dendrofx.rewriting.counted import counted_graph
from dendrofx.values.drop_in import as_called, call_form
from dendrofx.values.inputs import Inputs
from dendrofx.values.meta import ORIGINAL, PLAN, SETTINGS

NO_PLAN = "this module has no plan: it was rewritten by passes, not by dendrofx.transform"


class RoutedModule(fx.GraphModule):
    """A graph module with a plan and, beside `forward`, a `forward_counted`.

    `forward_counted(...)` takes what `forward` takes and returns `(output, counts)`, where `counts` maps each routed site
    to rows and multiply-adds per branch (see `runtime.route_counts.count_rows`). It is generated from the same graph whenever
    that is recompiled, runs the same nodes, keeps no state, and is exported by `script`.

    It can be copied and pickled, plan included. `torch.load` takes it with `weights_only=False` alone: it is code, not weights.
    `save` writes a file that needs torch alone.

    Example:
        >>> output, counts = module.forward_counted(x)
        >>> counts["fc1..fc2"]["hard_rows"]
        12
    """

    __jit_unused_properties__ = [*fx.GraphModule.__jit_unused_properties__, "plan", "settings"]  # noqa: RUF012  (torch reads it)

    @property
    def plan(self) -> Plan:
        """Every candidate site: routed or refused, and why."""
        if PLAN not in self.meta:
            raise AttributeError(NO_PLAN)
        return cast(Plan, self.meta[PLAN])

    @plan.setter
    def plan(self, plan: Plan) -> None:
        self.meta[PLAN] = plan

    @property
    def settings(self) -> Settings:
        """The settings whose budget was tested and shown, safest first; `make()` builds one of them. Empty without a budget."""
        tested: list[Setting] = self.meta.get(SETTINGS, [])
        return Settings(sorted((s for s in tested if s.accepted), key=lambda s: s.risk))

    def __repr__(self) -> str:
        """Return the plan in one sentence; `dendrofx.graph_text(module)` has the graph, and `print(module.graph)`."""
        said = self.plan.summary() if PLAN in self.meta else "rewritten by passes, no plan"
        return f"<{type(self).__name__} on dendrofx: {said}>"

    def _repr_html_(self) -> str:
        """Return the plan as a notebook shows it."""
        name = html.escape(type(self).__name__)
        return f"<p>{name}</p>{self.plan._repr_html_()}" if PLAN in self.meta else f"<p>{html.escape(repr(self))}</p>"

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  (nn.Module's own)
        if name == "plan":  # nn.Module hides what a property raises
            raise AttributeError(NO_PLAN)
        if name == "front":  # of 0.5.0; not a property, which scripting would ask for
            warnings.warn("front is called settings now, and goes with the next version", FutureWarning, stacklevel=2)
            return self.settings
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
        return _rebuilt, (PackedModule.of(self, without=SETTINGS),)

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
