"""The ways of capture, tried in turn, and the verification that each graph has to pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

import torch
from torch import fx, nn

from dendrofx.errors import CaptureError, InputError
from dendrofx.graph.capture.behaviour import drop_hooks, held, hooked, observe, refuse_kept
from dendrofx.graph.capture.captured import Captured
from dendrofx.graph.capture.check import DiffersError, Twin, verify
from dendrofx.graph.capture.exported import export
from dendrofx.graph.capture.flat_wrapper import Run, place_of
from dendrofx.graph.capture.prepare import copy_of, prepare, stand_in
from dendrofx.graph.capture.scripts import refuse_unscriptable
from dendrofx.graph.capture.sizes import Pair, SizeTrial
from dendrofx.graph.capture.symbolic import symbolic_trace
from dendrofx.graph.capture.traced import trace
from dendrofx.graph.capture.variants import FEW, variants
from dendrofx.graph.show import first_line
from dendrofx.values.calling import CallForm
from dendrofx.values.inputs import Inputs
from dendrofx.values.meta import CALL, CAPTURE, LINEARS
from dendrofx.values.outputs import Output

_FUSED = "torch's fused encoder layers sum in another order"
_GRADIENTS = "torch sums products of strided rows in another order where weights need no gradient"


@dataclass(frozen=True)
class Attempts:
    """One model on its way to a graph.

    Attributes:
        model: the caller's, for its name and weights.
        form: of the call.
        example: inputs as the graph takes them.
        others: more of them.
        changing: modules whose hooks change values.
        notes: of `Captured`.
        looking: modules whose hooks only look.
        few: the example, or a few of its samples.
        values: the model's output on the example.
    """

    model: nn.Module
    form: CallForm
    example: Inputs | None
    others: Sequence[Inputs]
    changing: tuple[str, ...] = ()
    looking: tuple[str, ...] = ()
    few: Inputs | None = None
    values: Output | None = None

    @staticmethod
    def prepared(model: nn.Module, form: CallForm, example: Inputs | None, others: Sequence[Inputs]) -> Attempts:
        """Look at what the model does beside computing, as far as there are inputs to run it on."""
        if example is None:
            if names := list(hooked(_own(model)[0])):
                raise CaptureError(
                    f"cannot capture {type(model).__name__} without inputs: there are hooks on {', '.join(names)}, and what they"
                    " change is seen when they run. Pass example_inputs="
                )
            return Attempts(model, form, None, others)
        seen = observe(stand_in(model), form, example)
        form = form.returning(seen.output)
        return Attempts(model, form, example, others, seen.changing, seen.looking, seen.few, seen.values)

    def by(self, ways: Sequence[str]) -> fx.GraphModule:
        """Return the graph of the first way that succeeds; of those that hold for some sizes alone, the one that holds for most."""
        failed: dict[str, str] = {}
        kept: dict[str, fx.GraphModule] = {}
        cause: BaseException | None = None
        for way in ways:
            try:
                gm = getattr(self, f"by_{way}")()
            except (CaptureError, InputError) as error:
                cause = error
                failed[way] = str(error)
                continue
            kept[way] = gm
            if (reason := self.lacks(gm)) is None:
                return self.finished(gm, failed)
            failed[way] = reason
        if kept:  # the first, unless a later one holds for more
            best = min(kept, key=lambda way: (_hides_linears(kept[way]), self.lacks(kept[way]) is not None))
            failed.pop(best)
            return self.finished(kept[best], failed)
        if self.example is None:
            failed["export, trace"] = "they need inputs: pass example_inputs= or calibration="
        lines = [f"{way}: {why}" for way, why in failed.items()]
        raise CaptureError(f"cannot capture {type(self.model).__name__}.\n  " + "\n  ".join(lines)) from cause

    def lacks(self, gm: fx.GraphModule) -> str | None:
        """Return why another way may be better than a graph that is right."""
        if gm.meta[CAPTURE].way == "symbolic" and self.example is not None and _hides_linears(gm):
            return "torch's own layers hide their Linears"
        captured: Captured = gm.meta[CAPTURE]
        if captured.fixed:
            return f"it fixes {', '.join(captured.fixed)}"
        return f"it holds only for {', '.join(captured.guards)}" if captured.guards else None

    def finished(self, gm: fx.GraphModule, failed: Mapping[str, str]) -> fx.GraphModule:
        """Add notes of what was done."""
        linears = {n or "0": type(m).__name__ for n, m in self.model.named_modules() if isinstance(m, nn.Linear)}
        gm.meta[LINEARS] = linears  # a model that is one Linear became a chain of one
        notes = [f"hooks that only look are left out: {', '.join(self.looking)}"] if self.looking else []
        gm.meta[CAPTURE] = replace(
            gm.meta[CAPTURE], failed=tuple(f"{way}: {why}" for way, why in failed.items()), notes=tuple(notes)
        )
        return gm

    def by_symbolic(self) -> fx.GraphModule:
        """Return the graph that FX's own tracer gives."""
        if self.changing:
            raise CaptureError(f"the hooks of {', '.join(self.changing)} change values")
        if self.form.output is not None and not self.form.output.scripts:
            raise CaptureError(f"its output, a {self.form.output.kind.__name__}, is none that TorchScript can return")
        own, changed = _own(self.model)
        drop_hooks(own)
        state = held(own)
        gm = symbolic_trace(own, self.model, self.form)
        refuse_kept(gm, own, state)
        return self.verified(gm, "symbolic", replace(self.form, output=None), own, changed)

    def by_export(self) -> fx.GraphModule:
        """Return the graph that torch.export records."""
        return self.by_running("export", export, "torch.export.export")

    def by_trace(self) -> fx.GraphModule:
        """Return the graph that torch.jit.trace records."""
        return self.by_running("trace", trace, "torch.jit.trace")

    def by_running(self, way: str, runner: Callable[[nn.Module, CallForm, Inputs], Run], call: str) -> fx.GraphModule:
        """Return a graph of what the model does on the example."""
        assert self.example is not None
        own, changed = _own(self.model)
        drop_hooks(own, self.changing)
        try:
            run = runner(own, self.form, self.example)
        except CaptureError:
            raise
        except Exception as error:
            where = f"{self.example}{place_of(error)}"
            raise CaptureError(f"{call} failed on {where}: {first_line(error)}") from error
        form = replace(self.form, guards=run.guards)
        try:
            return self.verified(run.gm, way, form, own, changed, run)
        except DiffersError as error:
            fixed = f". The trace fixed {', '.join(run.fixed)}" if run.fixed else ""
            raise DiffersError(f"{error}{fixed}", error.variant) from error

    def verified(
        self, gm: fx.GraphModule, way: str, form: CallForm, own: nn.Module, changed: str, run: Run | None = None
    ) -> fx.GraphModule:
        """Script a graph, and run it against its model on the example and on other inputs like it."""
        drop_hooks(gm)  # those that change values are in the graph
        gm.meta[CALL] = form
        refuse_unscriptable(gm, self.example, self.few if self.few is not self.example else None)
        if self.example is None:
            gm.meta[CAPTURE] = Captured(way, None)
            return gm
        model, plain = stand_in(self.model), way != "symbolic"
        twins = self.twins(own, changed, plain)

        def call(module: nn.Module, inputs: Inputs) -> Any:  # noqa: ANN401
            return form.call(module, inputs)

        def graph(inputs: Inputs) -> Any:  # noqa: ANN401
            return form.restore(inputs.copied().call(gm.forward))

        def guarded(inputs: Inputs) -> Any:  # noqa: ANN401
            form.check(dict(inputs.kwargs))
            return graph(inputs)

        first = verify(model, graph, [("", self.example)], twins, call, self.values)
        few = self.example.take(torch.arange(FEW)) if self.example.samples > FEW else self.example
        trial = SizeTrial(Pair(lambda x: call(model, x), graph), few, form, run.limits if run is not None else ())
        if run is not None and run.fixed:
            trial.try_sizes()
        gm.meta[CALL] = form = replace(form, guards=trial.guards())
        rest = verify(model, guarded, self.tries(way, run), twins, call)
        worst = max(first, rest, key=lambda pair: pair[0])
        gm.meta[CAPTURE] = Captured(way, *worst, fixed=() if run is None else run.fixed, guards=tuple(trial.narrower))
        return gm

    def tries(self, way: str, run: Run | None) -> Iterator[tuple[str, Inputs]]:
        """Return the example's variants, and for a trace the other inputs."""
        assert self.example is not None
        sizes = {name: t.shape for name, t in self.example.kwargs}
        limits = [] if run is None else sorted({(axis, sizes[name][axis], most) for name, axis, most in run.limits})
        found = variants(self.example, values=way == "trace", limits=limits)
        more = ((", one of the other inputs", inputs) for inputs in (self.others if way == "trace" else ()))
        return chain(islice(found, 1, None), more)

    def twins(self, own: nn.Module, changed: str, plain: bool) -> list[Twin]:
        """Return the copies that lead from the model to the one that is captured, step by step."""
        twins = [Twin(stand_in(self.model), _FUSED, plain=True)] if plain else []
        twins.append(Twin(copy_of(self.model), _GRADIENTS, plain))
        return [*twins, Twin(own, changed, plain)] if changed else twins


def _own(model: nn.Module) -> tuple[nn.Module, str]:
    """Return a copy for the graph, and how it was changed."""
    own = copy_of(model)
    return own, prepare(own)


def _hides_linears(gm: fx.GraphModule) -> bool:
    """Return whether a leaf module of the graph has Linears inside that could be called."""
    called = [gm.get_submodule(str(n.target)) for n in gm.graph.nodes if n.op == "call_module"]
    return any(type(m) is not nn.Linear and any(type(c) is nn.Linear for c in m.modules()) for m in called)
